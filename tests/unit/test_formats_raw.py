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

"""Bytes of files and pipes: exact, hashed, holes kept. Raw images, which are that."""

import contextlib
import hashlib
import io
import os
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.formats import raw, stream
from tests.unit.streams import as_file, as_pipe, reader

SIZE = 16 * units.MIB
ITEMS: list[model.Item] = [
    model.Data(units.MIB, b'first'),
    model.Zero(units.MIB + 5, 4096),
    model.Data(8 * units.MIB, b'x' * units.MIB),
]
DENSE = b''.join(
    [
        bytes(units.MIB),
        b'first',
        bytes(7 * units.MIB - 5),
        b'x' * units.MIB,
        bytes(7 * units.MIB),
    ]
)
SHA256 = hashlib.sha256(DENSE).hexdigest()


@pytest.fixture
def sparse_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """What is written, where holes can be."""
    path = tmp_path / 'image.raw'
    with io.FileIO(path, 'w') as file:
        raw.write(stream.Writer(file), ITEMS, SIZE)
    return path


def test_a_raw_file_has_the_bytes_and_the_holes(sparse_file: pathlib.Path) -> None:
    assert (sparse_file.read_bytes() == DENSE) is True
    assert sparse_file.stat().st_blocks * 512 < 2 * units.MIB


def test_the_hash_and_the_counts_are_those_of_all_bytes(tmp_path: pathlib.Path) -> None:
    with io.FileIO(tmp_path / 'image.raw', 'w') as file:
        writer = stream.Writer(file)
        raw.write(writer, ITEMS, SIZE)

    assert writer.sha256 == SHA256
    assert writer.position == SIZE
    assert writer.written == 5 + units.MIB


def test_no_hash_where_none_is_wanted(sparse_file: pathlib.Path) -> None:
    with io.FileIO(sparse_file) as file:
        source = stream.Reader(file, 'x', checksum=False)
        source.read(10)
    assert source.sha256 is None
    with io.FileIO(sparse_file.with_suffix('.2'), 'w') as file:
        assert stream.Writer(file, checksum=False).sha256 is None


def test_an_image_that_is_one_hole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'image.raw'
    with io.FileIO(path, 'w') as file:
        writer = stream.Writer(file)
        raw.write(writer, [], SIZE)

    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks == 0
    assert writer.sha256 == hashlib.sha256(bytes(SIZE)).hexdigest()


def test_holes_are_found_again_and_hashed(sparse_file: pathlib.Path) -> None:
    with io.FileIO(sparse_file) as file:
        source = stream.Reader(file, 'x')
        items = list(raw.read(source, SIZE))
        assert source.size == SIZE

    assert source.sha256 == SHA256
    content, position = bytearray(SIZE), 0
    for item in items:
        assert item.offset == position
        position += item.length
        if isinstance(item, model.Data):
            content[item.offset : position] = item.data
    assert position == SIZE
    assert (content == DENSE) is True
    assert sum(item.length for item in items if isinstance(item, model.Zero)) == 9 * units.MIB


def test_pieces_end_where_objects_do() -> None:
    content = b'x' * (9 * units.MIB)

    items = list(raw.read(reader(content), len(content)))

    assert [item.offset for item in items] == [0, 4 * units.MIB, 8 * units.MIB]


def test_a_file_that_got_other_bytes_is_another_one(tmp_path: pathlib.Path) -> None:
    """Also where its inode, its size and its mtime are the same: what cp -p leaves."""
    path = tmp_path / 'image'
    path.write_bytes(b'one')
    with io.FileIO(path) as file:
        before, told = stream.Reader(file, 'image', False).identity(), path.stat()
        # The clock of a file system is coarse.
        time.sleep(0.05)
        path.write_bytes(b'two')
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        after = stream.Reader(file, 'image', False).identity()

    assert path.stat().st_mtime_ns == told.st_mtime_ns
    assert before != after


class TestWhatStdoutMayBe:
    """A shell hands us files that are open already, in one way or another."""

    def write(self, file: io.FileIO) -> stream.Writer:
        writer = stream.Writer(file)
        raw.write(writer, ITEMS, SIZE)
        return writer

    def test_a_file_that_appends(self, tmp_path: pathlib.Path) -> None:
        """``>>``: seeking would leave no hole there, and nothing at all."""
        path = tmp_path / 'image.raw'
        path.write_bytes(b'before')
        with io.FileIO(path, 'a') as file:
            writer = self.write(file)

        assert (path.read_bytes() == b'before' + DENSE) is True
        assert writer.sha256 == SHA256

    def test_a_file_with_something_in_the_way(self, tmp_path: pathlib.Path) -> None:
        """``1<>``: a hole would let through what was there."""
        path = tmp_path / 'image.raw'
        path.write_bytes(b'y' * SIZE)
        with io.FileIO(path, 'r+') as file:
            self.write(file)

        assert (path.read_bytes() == DENSE) is True

    def test_a_file_that_somebody_wrote_to_before(self, tmp_path: pathlib.Path) -> None:
        """``{ echo; openstack ...; } >``: what comes before stays, holes may follow."""
        path = tmp_path / 'image.raw'
        with io.FileIO(path, 'w') as file:
            file.write(b'before')
            writer = self.write(file)

        assert (path.read_bytes() == b'before' + DENSE) is True
        assert path.stat().st_blocks * 512 < 2 * units.MIB
        assert writer.position == SIZE

    def test_a_pipe(self) -> None:
        source, sink = os.pipe()
        program = 'import sys, hashlib; h = hashlib.sha256(sys.stdin.buffer.read()); '
        with subprocess.Popen(
            [sys.executable, '-c', program + 'print(h.hexdigest())'],
            stdin=source,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            os.close(source)
            with io.FileIO(sink, 'w') as file:
                writer = self.write(file)
            assert process.stdout is not None
            assert process.stdout.read().strip() == SHA256 == writer.sha256


@pytest.mark.parametrize('piped', [False, True])
def test_a_raw_image_that_is_too_short(piped: bool) -> None:
    content = bytes(range(200))

    for end in range(1, 200):
        with pytest.raises(errors.TruncatedStream, match=f'ends after {end} bytes'):
            list(raw.read(reader(content[:end], piped), 200))


def test_a_sparse_image_that_is_too_short(sparse_file: pathlib.Path) -> None:
    with io.FileIO(sparse_file) as file, pytest.raises(errors.TruncatedStream):
        list(raw.read(stream.Reader(file, 'x'), SIZE + 1))


@pytest.mark.parametrize('piped', [False, True])
def test_a_raw_image_that_is_too_long(piped: bool) -> None:
    with pytest.raises(errors.InvalidInput, match='goes on after 199 bytes'):
        list(raw.read(reader(bytes(200), piped), 199))


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._pipe = as_pipe(content)
        self._random = random.Random(0)

    def fileno(self) -> int:
        return self._pipe.fileno()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:
        view = memoryview(buffer)
        return self._pipe.readinto(view[: self._random.randrange(1, 9)])


@pytest.fixture(params=['file', 'pipe', 'trickle', 'part of a file'])
def source(request: pytest.FixtureRequest) -> Iterator[io.RawIOBase]:
    content = bytes(range(256)) * 4
    with contextlib.ExitStack() as stack:
        file: io.RawIOBase
        if request.param == 'file':
            file = as_file(content)
        elif request.param == 'pipe':
            file = as_pipe(content)
        elif request.param == 'trickle':
            file = Trickle(content)
        else:
            file = as_file(b'read by somebody before' + content)
            file.seek(23)
        yield stack.enter_context(file)


def test_reading_is_exact_wherever_it_comes_from(source: io.RawIOBase) -> None:
    content = bytes(range(256)) * 4
    moved: list[int] = []
    reads = stream.Reader(source, 'x', moved=moved.append)

    assert reads.peek(5) == content[:5]
    assert reads.read_exactly(3) == content[:3]
    assert reads.peek(2) == content[3:5]
    assert reads.peek(16) == content[3:19]
    assert reads.read_exactly(600) == content[3:603]
    assert reads.position == 603
    assert reads.sha256 == hashlib.sha256(content[:603]).hexdigest()
    with pytest.raises(errors.InvalidInput, match='more bytes follow the end mark at byte 603'):
        reads.expect_end()
    with pytest.raises(errors.TruncatedStream, match='of which 79 bytes are missing'):
        reads.read_exactly(500)
    reads.expect_end()
    assert reads.peek(1) == b''
    assert sum(moved) == len(content)


def test_holes_are_passed_over_up_to_the_limit(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'sparse'
    with io.FileIO(path, 'w') as file:
        os.ftruncate(file.fileno(), units.MIB)
        os.pwrite(file.fileno(), b'x' * 4096, 65536)
    with io.FileIO(path) as file:
        reads = stream.Reader(file, 'x')

        assert reads.skip_hole(1000) == 1000
        assert reads.skip_hole(units.MIB) == 65536 - 1000
        assert reads.skip_hole(units.MIB) == 0
        assert reads.read_exactly(4096) == b'x' * 4096
        assert reads.skip_hole(2 * units.MIB) == units.MIB - 65536 - 4096
        assert reads.skip_hole(1) == 0
        assert reads.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_goes_to_its_disk_while_it_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, '_FLUSH_STEP', 2 * units.MIB)
    sizes: list[int] = []

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, 'posix_fadvise', advise)
    with io.FileIO(tmp_path / 'image', 'w+') as file:
        writer = stream.Writer(file, False)
        for _ in range(5):
            writer.write(bytes(units.MIB))
        writer.write_zeros(16 * units.MIB)
        writer.write(b'x')
        file.seek(0)
        assert file.read() == bytes(21 * units.MIB) + b'x'
    assert sizes == [2 * units.MIB, 4 * units.MIB, 21 * units.MIB + 1]
