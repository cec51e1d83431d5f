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

import io
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from osc_backup_port import errors, input_file


def test_a_file_up_to_a_limit(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x'
    path.write_bytes(b'0123456789')
    assert input_file.read(path, 100) == b'0123456789'
    assert input_file.read(str(path), 4) == b'0123'


def test_none(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        input_file.read(tmp_path / 'x', 1)


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'0123456789')))
    assert input_file.read('-', 4) == b'0123'


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'socket', 'zeros', 'null'])
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: pathlib.Path) -> None:
    path = {'zeros': pathlib.Path('/dev/zero'), 'null': pathlib.Path('/dev/null')}.get(
        kind, tmp_path / 'x'
    )
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    with pytest.raises(errors.InvalidInput, match=f'{path}: is a .*, expected a file'):
        input_file.read(path, 10)


def test_a_pipe_that_the_shell_hands_over(tmp_path: pathlib.Path) -> None:
    script = (
        'import sys; from osc_backup_port import input_file; '
        'print(input_file.read(sys.argv[1], 4))'
    )
    for word in ('<(sleep 0.2; echo 0123456789)', '/dev/stdin'):
        done = subprocess.run(
            [
                'bash',
                '-c',
                f'(sleep 0.2; echo 0123456789) | {sys.executable} -c "{script}" {word}',
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "b'0123'\n", done.stderr
