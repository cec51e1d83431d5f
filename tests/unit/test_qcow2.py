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

"""qcow2 images, with qemu-img as the judge, and files that mean harm."""

import hashlib
import io
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osc_backup_port import errors, model, units
from osc_backup_port.formats import image_formats, incoming, qcow2_read, stream
from tests.unit import streams
from tests.unit.streams import (
    as_file,
    as_pipe,
    ascending_items,
    joined,
    outgoing,
    read_point,
    reader,
    write_point,
)

SIZE = 3 * units.MIB
#: Of half a cluster more than the tables of two clusters: a disk need not end with one.
ODD_SIZE = SIZE + 512 * 63
FORMAT = image_formats.get('qcow2')

needs_qemu = pytest.mark.skipif(
    not (shutil.which('qemu-img') and shutil.which('qemu-io')),
    reason='qemu-img and qemu-io are not installed (qemu-utils)',
)


def qemu_img(*arguments: object) -> str:
    done = subprocess.run(
        ['qemu-img', *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def raw_by_qemu(content: bytes) -> bytes:
    """Return the disk as qemu reads it, which has no complaint about the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'x.qcow2')
        path.write_bytes(content)
        assert 'No errors were found' in qemu_img('check', '-f', 'qcow2', path)
        qemu_img('convert', '-f', 'qcow2', '-O', 'raw', path, f'{path}.raw')
        return pathlib.Path(f'{path}.raw').read_bytes()


def disk(size: int = SIZE) -> bytes:
    """Return a disk of data, zeros and what compresses."""
    chance = random.Random(size)
    parts = [chance.randbytes(70_000), bytes(500_000), b'abc' * 100_000, bytes(200_000)]
    return (b''.join(parts) * (size // 1_000_000 + 1))[:size]


def by_qemu(folder: pathlib.Path, content: bytes, *options: str) -> bytes:
    """Return a qcow2 file that qemu made of a disk."""
    source, target = folder / 'x.raw', folder / 'by-qemu.qcow2'
    source.write_bytes(content)
    qemu_img('convert', '-f', 'raw', '-O', 'qcow2', *options, source, target)
    return target.read_bytes()


@needs_qemu
@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([512, SIZE, ODD_SIZE]).flatmap(
        lambda size: st.tuples(st.just(size), ascending_items(size))
    )
)
def test_qemu_reads_what_is_written(sized: tuple[int, list[model.Item]]) -> None:
    size, items = sized

    assert raw_by_qemu(write_point('qcow2', items, size)) == joined(items, size)


@settings(max_examples=50, deadline=None)
@given(ascending_items(ODD_SIZE))
def test_what_is_written_is_read(items: list[model.Item]) -> None:
    content = write_point('qcow2', items, ODD_SIZE)

    assert read_point('qcow2', content, ODD_SIZE) == joined(items, ODD_SIZE)


@needs_qemu
def test_a_large_disk_takes_only_what_it_holds(tmp_path: pathlib.Path) -> None:
    size, path = 5 * 1024 * units.GIB, tmp_path / 'x.qcow2'
    places = [0, units.GIB - 5, 512 * units.MIB * 7000, size - 70_000]
    items: list[model.Item] = [model.Data(place, b'data' * 10_000) for place in sorted(places)]
    with io.FileIO(path, 'w') as file:
        streams.write(FORMAT, stream.Writer(file), outgoing(items, size))

    assert path.stat().st_size < 3 * units.MIB
    assert 'No errors were found' in qemu_img('check', '-f', 'qcow2', path)
    # By us: qemu-img would write a file of that size.
    with io.FileIO(path) as file:
        arriving = incoming.open_stream(stream.Reader(file, 'x'), size, 'qcow2')
        found = [one for one in next(arriving.increments).items if isinstance(one, model.Data)]
    for item in items:
        pieces = [one for one in found if one.offset <= item.offset < one.offset + one.length]
        assert len(pieces) == 1
        assert pieces[0].data[item.offset - pieces[0].offset :].startswith(b'data')


@needs_qemu
def test_many_refcounts() -> None:
    """More clusters than one block of refcounts counts: those of the counts are counted too."""
    size = 2200 * units.MIB
    zeros = bytes(4 * units.MIB)
    items = (model.Data(at, zeros) for at in range(0, size, len(zeros)))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'x.qcow2')
        writer = _Sparse(io.FileIO(path, 'w'), checksum=False)
        streams.write(FORMAT, writer, outgoing(items, size))

        assert 'No errors were found' in qemu_img('check', '-f', 'qcow2', path)


class _Sparse(stream.Writer):
    """Leaves zeros away, so that a test need not write them."""

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        if any(data[:8]) or any(data[-8:]):
            super().write_at(offset, data)


@needs_qemu
@pytest.mark.parametrize(
    'options',
    [
        [],
        ['-c'],
        ['-o', 'compat=0.10'],
        ['-o', 'compat=0.10', '-c'],
        ['-o', 'cluster_size=512'],
        ['-o', 'cluster_size=2M'],
        ['-o', 'cluster_size=2M', '-c'],
        ['-o', 'compression_type=zstd', '-c'],
        ['-o', 'extended_l2=on'],
        ['-o', 'extended_l2=on', '-c'],
        ['-o', 'lazy_refcounts=on'],
        ['-o', 'refcount_bits=1'],
        ['-o', 'preallocation=metadata'],
        ['-o', 'preallocation=falloc'],
        ['-o', 'preallocation=full'],
        ['-S', '0'],
    ],
    ids=' '.join,
)
@pytest.mark.parametrize('size', [SIZE, ODD_SIZE])
def test_what_qemu_writes_is_read(tmp_path: pathlib.Path, options: list[str], size: int) -> None:
    content = disk(size)

    assert read_point('qcow2', by_qemu(tmp_path, content, *options), size) == content


@needs_qemu
@pytest.mark.parametrize('options', ['compat=1.1', 'extended_l2=on', 'cluster_size=4k'])
@pytest.mark.parametrize('seed', range(3))
def test_what_machines_have_written(tmp_path: pathlib.Path, options: str, seed: int) -> None:
    """Written, overwritten, zeroed, discarded here and there, and a snapshot amid that."""
    path, chance = tmp_path / 'x.qcow2', random.Random(seed)
    qemu_img('create', '-f', 'qcow2', '-o', options, path, SIZE)
    for round_number in range(2):
        commands = []
        for _ in range(20):
            at = chance.randrange(0, SIZE, 512)
            length = min(chance.choice([512, 4096, 65_536, 200_192]), SIZE - at)
            how = chance.choice([f'write -P {chance.randrange(1, 255)}', 'write -z', 'discard'])
            commands += ['-c', f'{how} {at} {length}']
        subprocess.run(
            ['qemu-io', '-f', 'qcow2', '-d', 'unmap', *commands, path],
            check=True,
            capture_output=True,
        )
        if round_number == 0:
            qemu_img('snapshot', '-c', 'earlier', path)

    content = path.read_bytes()
    assert read_point('qcow2', content, SIZE) == raw_by_qemu(content)


@needs_qemu
def test_space_that_was_only_reserved_is_not_read(tmp_path: pathlib.Path) -> None:
    path, size = tmp_path / 'x.qcow2', 50 * units.MIB
    qemu_img('create', '-f', 'qcow2', '-o', 'preallocation=metadata', path, size)
    with io.FileIO(path) as file:
        source = stream.Reader(file, 'x')
        arriving = incoming.open_stream(source, size, 'qcow2')
        items = list(next(arriving.increments).items)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {type(item) for item in items} == {model.Zero}
    assert sum(item.length for item in items) == size


class TestTheFile:
    """A qcow2 image is written here and there."""

    def test_may_have_no_name(self, tmp_path: pathlib.Path) -> None:
        descriptor = os.open(tmp_path, os.O_RDWR | os.O_TMPFILE)
        with io.FileIO(descriptor, 'r+') as file:
            writer = stream.Writer(file)
            streams.write(FORMAT, writer, outgoing([model.Data(5, b'x')], SIZE))
            file.seek(0)
            content = file.read()
        assert writer.position == len(content)
        assert writer.sha256 == hashlib.sha256(content).hexdigest()

    @pytest.mark.parametrize('wanted', [True, False])
    def test_is_hashed_when_it_is_complete(self, tmp_path: pathlib.Path, wanted: bool) -> None:
        with io.FileIO(tmp_path / 'x', 'w') as file:
            writer = stream.Writer(file, wanted)
            streams.write(FORMAT, writer, outgoing([model.Data(0, disk())], SIZE))
        expected = hashlib.sha256((tmp_path / 'x').read_bytes()).hexdigest()
        assert writer.sha256 == (expected if wanted else None)

    def test_is_no_pipe(self) -> None:
        source, sink = os.pipe()
        with (
            io.FileIO(source),
            io.FileIO(sink, 'w') as file,
            pytest.raises(errors.InvalidInput, match='is not a new file') as caught,
        ):
            streams.write(FORMAT, stream.Writer(file, name='stdout'), outgoing([], SIZE))
        assert '--file' in str(caught.value)

    def test_has_nothing_in_it(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / 'x').write_bytes(b'there')
        with (
            io.FileIO(tmp_path / 'x', 'r+') as file,
            pytest.raises(errors.InvalidInput, match='is not a new file'),
        ):
            streams.write(FORMAT, stream.Writer(file), outgoing([], SIZE))
        assert (tmp_path / 'x').read_bytes() == b'there'

    def test_has_whole_sectors(self) -> None:
        with pytest.raises(errors.InvalidInput, match='whole sectors of 512'):
            write_point('qcow2', [], SIZE + 1)

    def test_is_no_image_before_all_of_it_is_there(self) -> None:
        def failing() -> Iterator[model.Item]:
            yield model.Data(0, disk())
            raise errors.CephError('lost')

        with as_file(b'') as file:
            with pytest.raises(errors.CephError):
                streams.write(FORMAT, stream.Writer(file), outgoing(failing(), SIZE))
            file.seek(0)
            assert file.read(4) == bytes(4)


class TestReading:
    @pytest.mark.parametrize('wanted', [True, False])
    def test_the_whole_file_is_hashed(self, wanted: bool) -> None:
        content = write_point('qcow2', [model.Data(0, disk())], SIZE)
        source, hashes = reader(content), list[str | None]()
        if not wanted:
            source.do_not_hash()
        arriving = incoming.open_stream(
            source, SIZE, 'qcow2', at_end=lambda: hashes.append(source.sha256)
        )

        list(next(arriving.increments).items)
        assert hashes == [hashlib.sha256(content).hexdigest() if wanted else None]
        assert source.position == len(content)

    def test_a_pipe_is_refused(self) -> None:
        piped = stream.Reader(as_pipe(write_point('qcow2', [], SIZE)[:60_000]), 'stdin')

        with pytest.raises(errors.InvalidInput, match='stdin: is a pipe') as caught:
            incoming.open_stream(piped, SIZE, 'qcow2')
        assert '--file' in str(caught.value)

    def test_of_another_size(self) -> None:
        with pytest.raises(errors.InvalidInput, match=f'a disk of {SIZE} bytes'):
            read_point('qcow2', write_point('qcow2', [], SIZE), 2 * SIZE)

    def test_the_size_is_told_where_the_volume_may_have_it(self) -> None:
        source = reader(write_point('qcow2', [], SIZE))

        assert incoming.image_size(source, 'qcow2', 9, lambda size: size == SIZE) == SIZE
        assert incoming.image_size(source, 'qcow2', 9, lambda size: size == 9) == 9

    def test_it_is_something_else(self) -> None:
        with pytest.raises(errors.InvalidInput, match=r"begins with b'.*expected the format qcow"):
            read_point('qcow2', bytes(SIZE), SIZE)

    def test_memory_is_bounded(self, tmp_path: pathlib.Path) -> None:
        program = (
            'import io, sys\n'
            'from osc_backup_port import model, units\n'
            'from osc_backup_port.formats import image_formats, incoming, stream\n'
            'from tests.unit import peak_memory, streams\n'
            'size, data = 512 * units.MIB, b"x" * units.MIB\n'
            'items = (model.Data(at, data) for at in range(0, size // 2, units.MIB))\n'
            'with io.FileIO(sys.argv[1], "w") as file:\n'
            '    writer = stream.Writer(file)\n'
            '    one = image_formats.get("qcow2")\n'
            '    streams.write(one, writer, streams.outgoing(items, size))\n'
            'before = peak_memory.mebibytes()\n'
            'with io.FileIO(sys.argv[1]) as file:\n'
            '    arriving = incoming.open_stream(stream.Reader(file, "x"), size, "qcow2")\n'
            '    for item in next(arriving.increments).items:\n'
            '        pass\n'
            'print(before, peak_memory.mebibytes())\n'
        )
        done = subprocess.run(
            [sys.executable, '-c', program, tmp_path / 'x'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert max(map(int, done.stdout.split())) < 150


def changed(content: bytes, at: int, value: int, size: int = 4) -> bytes:
    return content[:at] + value.to_bytes(size, 'big') + content[at + size :]


#: What is changed in a good file, and what is said then.
HOSTILE: dict[str, tuple[int, int, int, str]] = {
    'version 1': (4, 1, 4, 'with version 1, which is not known here'),
    'version 4': (4, 4, 4, 'with version 4'),
    'backing file': (8, 65_000, 8, 'only what differs from another file'),
    'clusters of nothing': (20, 0, 4, r'clusters have 2\^0 bytes'),
    'clusters of 4 GiB': (20, 32, 4, r'clusters have 2\^32 bytes'),
    'no shift is made with that': (20, 2**32 - 1, 4, 'clusters have'),
    'encrypted with AES': (32, 1, 4, 'is encrypted'),
    'encrypted with LUKS': (32, 2, 4, 'is encrypted'),
    'L1 table too small': (36, 0, 4, 'its L1 table has 0 entries'),
    'L1 table amid a cluster': (40, 65_537, 8, 'its L1 table'),
    'L1 table behind the end': (40, 2**50, 8, 'ends after'),
    'L1 table at the end of the numbers': (40, 2**64 - 65_536, 8, 'ends after'),
    'another file has the data': (72, 1 << 2, 8, 'keeps its data in another file'),
    'corrupt': (72, 1 << 1, 8, 'marked as damaged'),
    'features nobody knows': (72, 1 << 5 | 1 << 63, 8, 'the features 0x8000000000000020'),
    'compression, without a type': (72, 1 << 3, 8, 'no place for the type of compression'),
    'size of nothing': (24, 0, 8, 'holds a disk of 0 bytes'),
    'size of everything': (24, 2**64 - 512, 8, 'L1 table has 1 entries'),
    'a table behind the end': (65_536, 2**40, 8, 'ends after'),
    'a table amid a cluster': (65_536, 66_048, 8, 'a table is at byte 66048'),
}


@pytest.fixture(scope='module')
def good() -> bytes:
    return write_point('qcow2', [model.Data(0, disk())], SIZE)


class TestAFileThatMeansHarm:
    @pytest.mark.parametrize('name', HOSTILE)
    def test_is_refused(self, good: bytes, name: str) -> None:
        at, value, size, told = HOSTILE[name]

        with pytest.raises(errors.InvalidInput, match=told) as caught:
            read_point('qcow2', changed(good, at, value, size), SIZE)
        assert caught.value.hint

    @needs_qemu
    @pytest.mark.parametrize('option', ['backing_file', 'data_file'])
    def test_leads_to_no_other_file(self, tmp_path: pathlib.Path, option: str) -> None:
        secret, path = tmp_path / 'secret', tmp_path / 'x.qcow2'
        secret.write_bytes(b'secret'.ljust(SIZE))
        more = ['-F', 'raw'] if option == 'backing_file' else []
        qemu_img('create', '-f', 'qcow2', '-o', f'{option}={secret}', *more, path, SIZE)

        with pytest.raises(errors.InvalidInput, match='That other file is not opened'):
            read_point('qcow2', path.read_bytes(), SIZE)

    @pytest.mark.parametrize('kept', [4, 71, 72, 104, 105, 65_536, 65_544, 200_000])
    def test_is_cut_short(self, good: bytes, kept: int) -> None:
        with pytest.raises(errors.InvalidInput, match='the-stream: '):
            read_point('qcow2', good[:kept], SIZE)

    def test_has_a_bomb_for_a_cluster(self, good: bytes) -> None:
        made = zlib.compressobj(9, zlib.DEFLATED, -12)
        bomb = made.compress(bytes(50 * units.MIB)) + made.flush()
        table = int.from_bytes(good[65_536:65_544], 'big') & (1 << 63) - 1
        place = len(good)
        sectors = len(bomb) // 512
        entry = 1 << 62 | sectors << 54 | place
        content = changed(good, table, entry, 8) + bomb.ljust((sectors + 2) * 512, b'\0')

        # Of all that it unpacks to one cluster is asked for.
        assert read_point('qcow2', content, SIZE) == bytes(65_536) + disk()[65_536:]

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_is_read_or_refused_and_nothing_else(self, data: st.DataObject) -> None:
        version, extended = data.draw(st.sampled_from([(3, 0), (3, 1 << 4), (2, 0)]))
        content = bytearray(write_point('qcow2', [model.Data(70_000, disk(400_000))], 2**20))
        content[4:8] = version.to_bytes(4, 'big')
        content[72:80] = extended.to_bytes(8, 'big')
        table = int.from_bytes(content[65_536:65_544], 'big') & (1 << 63) - 1
        places = st.integers(0, 120) | st.integers(65_536, 65_544)
        places |= st.integers(table, table + 200)
        for at in data.draw(st.lists(places, max_size=6)):
            content[at] = data.draw(st.integers(0, 255))

        problem = _problem_of(bytes(content))
        assert problem is None or problem.startswith('the-stream: ')


def _problem_of(content: bytes) -> str | None:
    """Read a file, unless it is a large one; return why it is refused."""
    source = reader(content)
    try:
        header = qcow2_read.read_header(source)
        if header.size <= 2**22:
            for item in qcow2_read.read(source, header):
                assert 0 < item.length <= max(qcow2_read.PIECE, header.size)
    except errors.InvalidInput as error:
        return error.problem
    return None
