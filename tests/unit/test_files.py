#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""Files that appear whole or not at all."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from osc_backup_port import errors, files


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'
    with files.part_file(path) as file:
        file.write(b'content')
        assert not path.exists()
        assert mode(tmp_path / 'image.part') == 0o600

    assert path.read_bytes() == b'content'
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ['image']


def test_what_fails_leaves_all_as_it_was(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'
    path.write_bytes(b'old')

    def interrupted() -> None:
        with files.part_file(path) as file:
            file.write(b'new')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['image']


def test_a_part_of_a_dead_run_is_written_anew(tmp_path: pathlib.Path) -> None:
    part = tmp_path / 'image.part'
    part.write_bytes(b'of a dead run, and long')
    part.chmod(0o644)

    with files.part_file(tmp_path / 'image') as file:
        file.write(b'new')

    assert (tmp_path / 'image').read_bytes() == b'new'
    assert mode(tmp_path / 'image') == 0o600


def test_two_runs_do_not_write_one_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'
    with files.part_file(path) as file:
        file.write(b'first')
        with (
            pytest.raises(errors.Conflict, match='another run is writing this file'),
            files.part_file(path),
        ):
            pass
    assert path.read_bytes() == b'first'


def test_a_run_that_was_killed_does_not_lock_the_next_one_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'
    program = (
        'import os, pathlib, sys\n'
        'from osc_backup_port import files\n'
        'with files.part_file(pathlib.Path(sys.argv[1])) as file:\n'
        '    file.write(b"half")\n'
        '    os._exit(9)\n'
    )
    done = subprocess.run([sys.executable, '-c', program, path], check=False)
    assert done.returncode == 9
    assert os.listdir(tmp_path) == ['image.part']

    with files.part_file(path) as file:
        file.write(b'whole')

    assert path.read_bytes() == b'whole'
    assert os.listdir(tmp_path) == ['image']


def test_a_folder_in_the_way_is_told_and_kept(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'image').mkdir()

    with pytest.raises(IsADirectoryError), files.part_file(tmp_path / 'image') as file:
        file.write(b'x')

    assert os.listdir(tmp_path) == ['image']


def test_a_small_file_is_replaced_as_a_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'record.json'
    path.write_bytes(b'old and long')
    path.chmod(0o644)

    files.write_private(path, b'new')

    assert path.read_bytes() == b'new'
    assert mode(path) == 0o600


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    files.write_private(path, b'content')

    assert os.read(descriptor, 100) == b'content'
    os.close(descriptor)
    assert stat.S_ISFIFO(path.stat().st_mode)
