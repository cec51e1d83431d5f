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

"""What is told of an image beside its file."""

import dataclasses
import io
import json
import os
import pathlib
import typing

import pytest

from osc_backup_port import errors
from osc_backup_port.formats import stream
from osc_backup_port.moving import image_info
from tests.unit import chains
from tests.unit.chains import IDS
from tests.unit.streams import as_file

INFO = image_info.ImageInfo('raw', IDS[0], 1 << 30, 5, 'a' * 64)


def write(path: pathlib.Path, info: image_info.ImageInfo = INFO) -> None:
    with image_info.described_file(path) as output:
        output.file.write(b'bytes')
        output.describe(info)


def test_what_was_told_is_read_again(tmp_path: pathlib.Path) -> None:
    for info in (INFO, dataclasses.replace(INFO, format='rbd-diff', sha256=None)):
        path = tmp_path / info.format
        write(path, info)

        assert image_info.read(path) == info
    assert image_info.read(tmp_path / 'other') is None


def test_both_appear_or_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'

    def fail() -> None:
        with image_info.described_file(path) as output:
            output.describe(INFO)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_none_appears_where_the_file_cannot(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size == len(b'bytes'):
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', fsync)

    with pytest.raises(OSError, match='No space'):
        write(tmp_path / 'image')

    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_leaves_what_is_told_of_the_first(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'
    other = dataclasses.replace(INFO, backup_id=IDS[1])

    def write_around(inner: typing.Callable[[], object]) -> None:
        with image_info.described_file(path) as output:
            output.describe(other)
            inner()

    with pytest.raises(errors.Conflict):
        write_around(lambda: write(path))
    assert (path.read_bytes(), image_info.read(path)) == (b'bytes', INFO)

    path.unlink()
    foreign = path.with_name('image.info')
    with pytest.raises(errors.Conflict):
        write_around(lambda: foreign.write_bytes(b'precious'))
    assert foreign.read_bytes() == b'precious'
    assert not path.exists()


def test_what_was_told_of_a_file_that_is_gone_is_replaced(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image'
    write(path)
    path.unlink()
    other = dataclasses.replace(INFO, backup_id=IDS[1])

    write(path, other)

    assert image_info.read(path) == other


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'precious',
        b'[]',
        b'[' * 100_000,
        b'\xff\xfe',
        b'{"kind": "image of a volume backup", "version": 2}',
        json.dumps({'kind': 'image of a volume backup', 'version': 1}).encode(),
    ],
)
def test_a_file_of_somebody_else_is_kept(tmp_path: pathlib.Path, content: bytes) -> None:
    path, info = tmp_path / 'image', tmp_path / 'image.info'
    info.write_bytes(content)

    with pytest.raises(errors.Conflict, match=r'image.info: is there already'):
        write(path)
    with pytest.raises(errors.InvalidInput, match='--format'):
        image_info.read(path)

    assert info.read_bytes() == content
    assert not path.exists()


@pytest.mark.parametrize(
    'changes',
    [
        {'format': 'vmdk'},
        {'file_size': '5'},
        {'image_size': True},
        {'sha256': 'no'},
        {'sha256': 5},
        {'kind': 'other'},
    ],
)
def test_what_is_not_as_we_write_it(tmp_path: pathlib.Path, changes: dict[str, object]) -> None:
    path = tmp_path / 'image'
    write(path)
    info = tmp_path / 'image.info'
    info.write_text(json.dumps({**json.loads(info.read_text()), **changes}))

    with pytest.raises(errors.InvalidInput, match='is not what export-image writes'):
        image_info.read(path)


def test_a_pipe_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / 'image.info')

    assert image_info.read(tmp_path / 'image') is None


def test_a_name_that_has_no_room_for_more(tmp_path: pathlib.Path) -> None:
    assert image_info.read(tmp_path / ('x' * 252)) is None


class TestWhetherItIsAboutThisFile:
    def check(
        self,
        content: bytes = b'bytes',
        told: str | None = None,
        number: int = 0,
        **changes: object,
    ) -> None:
        info = dataclasses.replace(INFO, **changes)  # type: ignore[arg-type]
        reader = stream.Reader(as_file(content), 'image')
        image_info.check(info, reader, chains.backup(number), told)

    def test_it_is(self) -> None:
        self.check()
        self.check(told='raw')

    def test_another_size(self) -> None:
        with pytest.raises(errors.InvalidInput, match=r'has 4 bytes, image.info says 5'):
            self.check(b'byte')

    def test_another_format_than_told(self) -> None:
        with pytest.raises(errors.InvalidInput, match=r'--format is rbd, but image.info says'):
            self.check(told='rbd')

    def test_another_backup(self) -> None:
        with pytest.raises(errors.InvalidInput, match=f'is of backup {IDS[0]}'):
            self.check(number=1)

    def test_a_chain_may_hold_another_backup(self) -> None:
        self.check(number=1, format='rbd')

    @pytest.mark.parametrize(
        ('told', 'hashed', 'good'),
        [('0' * 64, True, False), (None, True, True), ('0' * 64, False, True)],
    )
    def test_the_hash_where_it_is_known(self, told: str | None, hashed: bool, good: bool) -> None:
        reader = stream.Reader(io.FileIO(os.devnull), 'image', hashed)
        info = dataclasses.replace(INFO, sha256=told)
        if good:
            image_info.check_sha256(info, reader)
            return
        with pytest.raises(errors.InvalidInput, match='has the sha256 e3b0c4'):
            image_info.check_sha256(info, reader)
