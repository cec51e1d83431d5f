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

"""Files that appear whole or not at all, and that nobody else can lay a hand on."""

import errno
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
import typing
from typing import Any

import pytest

from osc_backup_port import errors, files

WITHOUT_NAME = pytest.param(True, id='without-name')
WITH_NAME = pytest.param(False, id='with-name')


@pytest.fixture(params=[WITHOUT_NAME, WITH_NAME])
def unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """In a file system that has files without a name, and in one that has not."""
    if not request.param:
        monkeypatch.setattr(files, '_open_unnamed', lambda folder: None)
    return bool(request.param)


@pytest.fixture
def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file system that knows neither files without a name nor hard links."""

    def refuse(*_args: Any, **_more: Any) -> None:
        raise OSError(errno.EPERM, 'no links here')

    monkeypatch.setattr(files, '_open_unnamed', lambda folder: None)
    monkeypatch.setattr(files.os, 'link', refuse)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: pathlib.Path, unnamed: bool) -> None:
    path = tmp_path / 'image'
    with files.new_file(path) as file:
        file.write(b'content')
        assert not path.exists()
        there = os.listdir(tmp_path)
        assert len(there) == (0 if unnamed else 1)
        assert [mode(tmp_path / name) for name in there] == [0o600] * len(there)

    assert path.read_bytes() == b'content'
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ['image']


@pytest.mark.parametrize('replace', [True, False])
def test_what_fails_leaves_all_as_it_was(
    tmp_path: pathlib.Path, unnamed: bool, replace: bool
) -> None:
    path = tmp_path / 'image'
    path.write_bytes(b'old')

    def interrupted() -> None:
        with files.new_file(path, replace) as file:
            file.write(b'new')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert path.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['image']


def planted(kind: str, path: pathlib.Path, victim: pathlib.Path) -> None:
    if kind == 'link':
        path.symlink_to(victim)
    elif kind == 'dangling':
        path.symlink_to(victim.with_name('nowhere'))
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    else:
        path.write_bytes(b'of somebody else')


@pytest.mark.parametrize('kind', ['file', 'link', 'dangling', 'fifo', 'folder'])
def test_what_comes_meanwhile_is_not_replaced(
    tmp_path: pathlib.Path, unnamed: bool, kind: str
) -> None:
    path, victim = tmp_path / 'image', tmp_path / 'victim'
    victim.write_bytes(b'precious')

    def write() -> None:
        with files.new_file(path) as file:
            file.write(b'new')
            planted(kind, path, victim)

    with pytest.raises(errors.Conflict, match='is there already'):
        write()

    assert sorted(os.listdir(tmp_path)) == ['image', 'victim']
    assert victim.read_bytes() == b'precious'
    if kind == 'file':
        assert path.read_bytes() == b'of somebody else'


@pytest.mark.parametrize('kind', ['file', 'link', 'dangling', 'fifo', 'folder'])
def test_nothing_is_done_with_what_was_planted(tmp_path: pathlib.Path, kind: str) -> None:
    """Under the name that releases before this one took."""
    path, victim = tmp_path / 'image', tmp_path / 'victim'
    victim.write_bytes(b'precious')
    planted(kind, tmp_path / 'image.part', victim)

    files.write_file(path, b'new')

    assert path.read_bytes() == b'new'
    assert victim.read_bytes() == b'precious'
    assert sorted(os.listdir(tmp_path)) == ['image', 'image.part', 'victim']


def test_a_link_is_replaced_and_not_followed(tmp_path: pathlib.Path, unnamed: bool) -> None:
    path, victim = tmp_path / 'record.json', tmp_path / 'victim'
    victim.write_bytes(b'precious')
    path.symlink_to(victim)

    files.write_file(path, b'new', replace=True)

    assert not path.is_symlink()
    assert path.read_bytes() == b'new'
    assert victim.read_bytes() == b'precious'


def test_two_runs_that_write_one_file(tmp_path: pathlib.Path, unnamed: bool) -> None:
    """The first that is complete wins; the other is told, and replaces nothing."""
    path = tmp_path / 'image'

    def second() -> None:
        with files.new_file(path) as file:
            file.write(b'second')
            files.write_file(path, b'first')

    with pytest.raises(errors.Conflict, match='is there already'):
        second()
    assert path.read_bytes() == b'first'
    assert os.listdir(tmp_path) == ['image']


def test_many_at_once_in_one_folder(tmp_path: pathlib.Path, unnamed: bool) -> None:
    def work(number: int) -> None:
        for step in range(10):
            files.write_file(tmp_path / f'{number}', f'{number} {step}'.encode(), replace=True)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(tmp_path)) == ['0', '1', '2', '3']
    assert [(tmp_path / str(n)).read_bytes() for n in range(4)] == [
        f'{n} 9'.encode() for n in range(4)
    ]


def test_where_there_are_no_links(tmp_path: pathlib.Path, without_links: None) -> None:
    path = tmp_path / 'image'
    files.write_file(path, b'first')
    with pytest.raises(errors.Conflict):
        files.write_file(path, b'second')
    files.write_file(path, b'third', replace=True)
    assert path.read_bytes() == b'third'
    assert os.listdir(tmp_path) == ['image']


KILLED = """
import os, pathlib, signal, sys
from osc_backup_port import files
if sys.argv[2] == 'False':
    files._open_unnamed = lambda folder: None
with files.new_file(pathlib.Path(sys.argv[1])) as file:
    file.write(b'half')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_was_killed_leaves_nothing_for_good(
    tmp_path: pathlib.Path, unnamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'image'
    arguments = [sys.executable, '-c', KILLED, str(path), str(unnamed)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == (0 if unnamed else 1)

    monkeypatch.setattr(files, '_swept', set())
    files.write_file(path, b'whole')

    assert path.read_bytes() == b'whole'
    assert os.listdir(tmp_path) == ['image']


def test_what_a_living_run_writes_is_not_swept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, '_open_unnamed', lambda folder: None)
    with files.new_file(tmp_path / 'one') as file:
        monkeypatch.setattr(files, '_swept', set())
        files.write_file(tmp_path / 'other', b'other')
        file.write(b'one')
    assert (tmp_path / 'one').read_bytes() == b'one'


def test_what_replaces_a_file_just_now_is_not_swept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a name for a moment, between two steps."""
    path = tmp_path / 'one'
    path.write_bytes(b'old')
    move = files._Temporary._move

    def move_after_a_sweep(temporary: typing.Any, name: str) -> None:
        monkeypatch.setattr(files, '_swept', set())
        files.write_file(tmp_path / 'other', b'other')
        move(temporary, name)

    monkeypatch.setattr(files._Temporary, '_move', move_after_a_sweep)
    files.write_file(path, b'new', replace=True)
    assert path.read_bytes() == b'new'


def test_a_folder_in_the_way_is_told_and_kept(tmp_path: pathlib.Path, unnamed: bool) -> None:
    (tmp_path / 'image').mkdir()

    with pytest.raises(IsADirectoryError):
        files.write_file(tmp_path / 'image', b'x', replace=True)

    assert os.listdir(tmp_path) == ['image']


def test_a_small_file_is_replaced_as_a_whole(tmp_path: pathlib.Path, unnamed: bool) -> None:
    path = tmp_path / 'record.json'
    path.write_bytes(b'old and long')
    path.chmod(0o644)

    files.write_file(path, b'new', replace=True)

    assert path.read_bytes() == b'new'
    assert mode(path) == 0o600


def test_a_pipe_that_the_user_named_is_written_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    files.write_output(path, b'content')

    assert os.read(descriptor, 100) == b'content'
    os.close(descriptor)
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize('kind', ['link', 'dangling', 'fifo', 'folder'])
def test_only_a_plain_file_is_read(tmp_path: pathlib.Path, kind: str) -> None:
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    planted(kind, tmp_path / 'file', victim)
    with pytest.raises(errors.InvalidInput, match=r'is a link|is not a file'):
        files.read_file(tmp_path / 'file', 100)


def test_a_file_is_read_up_to_a_limit(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'file'
    assert files.read_file(path, 3) is None
    path.write_bytes(b'abc')
    assert files.read_file(path, 3) == b'abc'
    with pytest.raises(errors.InvalidInput, match='has 3 bytes, expected at most 2'):
        files.read_file(path, 2)


def test_new_folders_are_private_and_last(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.readlink(f'/proc/self/fd/{descriptor}'))
        fsync(descriptor)

    monkeypatch.setattr(files.os, 'fsync', watched)

    files.make_folder(tmp_path / 'a' / 'b' / 'c')
    files.make_folder(tmp_path / 'a' / 'b')
    assert synced == [str(tmp_path), str(tmp_path / 'a'), str(tmp_path / 'a' / 'b')]
    assert [mode(tmp_path / name) for name in ('a', 'a/b', 'a/b/c')] == [0o700] * 3

    synced.clear()
    files.write_file(tmp_path / 'a' / 'file', b'content')
    # The file, then its name.
    assert len(synced) == 2
    assert synced[1] == str(tmp_path / 'a')


def test_a_file_where_a_folder_should_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'a').write_bytes(b'')
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / 'a')
    with pytest.raises(NotADirectoryError):
        files.make_folder(tmp_path / 'a' / 'b')
