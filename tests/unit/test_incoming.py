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

"""What a stream is: told, or known by its size, and never guessed where a disk may be it."""

import bz2
import gzip
import io
import lzma
import pathlib
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable

import pytest
import zstandard

from osc_backup_port import errors, model
from osc_backup_port.formats import incoming, rbd_diff, rbd_export, strangers, stream
from tests.unit.streams import as_file, as_pipe, reader

#: Of the volume; its record cannot tell whether it has a few bytes less.
SIZE = 4096
SNAPSHOT = 'backup.0f.snap.1.1'


def may_have(size: int) -> bool:
    return 3072 < size <= SIZE


def recognise(content: bytes, piped: bool = False) -> str:
    return incoming.recognise(reader(content, piped), SIZE, may_have)


def diff(size: int = SIZE) -> bytes:
    return b''.join(rbd_diff.encode(model.Increment(None, SNAPSHOT, size, iter([]))))


def export(size: int = SIZE) -> bytes:
    layout = model.ImageLayout(size, 22, 1, 0, 0)
    return b''.join(rbd_export.encode(layout, 1, [model.Increment(None, None, size, iter([]))]))


def disk_with(head: bytes, size: int = SIZE) -> bytes:
    return head.ljust(size, b'\xaa')


def disk_that_is_a_diff(size: int = SIZE) -> bytes:
    """A disk that is a whole diff, from its first byte to its last: only its owner knows."""
    head = diff()[: -len(rbd_diff.END)]
    fill = size - len(head) - 17 - len(rbd_diff.END)
    record = b'w' + bytes(8) + fill.to_bytes(8, 'little')
    return head + record + b'\xaa' * fill + rbd_diff.END


def packed_with(program: str) -> bytes:
    if shutil.which(program) is None:
        pytest.skip(f'no {program} here')
    return subprocess.run(
        [program, '-c'], input=b'x' * 100, capture_output=True, check=True
    ).stdout


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('vm.ovf'))
    return file.getvalue()[:1024]


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('vm.raw', b'x')
    return file.getvalue()


#: What people bring, and what has to be said of it.
STRANGERS: dict[str, tuple[bytes, str, str]] = {
    'gzip': (
        gzip.compress(b'x'),
        'compressed with gzip',
        '--format gzip. Or unpack it',
    ),
    'zstd': (zstandard.compress(b'x'), 'compressed with zstd', '--format zstd. Or unpack it'),
    'pzstd': (b'\x50\x2a\x4d\x18' + bytes(8), 'compressed with zstd', 'zstd -dc'),
    'xz': (lzma.compress(b'x'), 'compressed with xz', 'xz -dc'),
    'bzip2': (bz2.compress(b'x'), 'compressed with bzip2', 'bzip2 -dc'),
    'bzip2 of nothing': (bz2.compress(b''), 'compressed with bzip2', 'bzip2 -dc'),
    'lz4': (b'\x04\x22\x4d\x18' + bytes(8), 'compressed with lz4', 'lz4 -dc'),
    'lz4, old': (b'\x02\x21\x4c\x18' + bytes(8), 'compressed with lz4', 'lz4 -dc'),
    'lzip': (b'LZIP\x01', 'compressed with lzip', 'lzip -dc'),
    'lzop': (b'\x89LZO\x00\r\n\x1a\n', 'compressed with lzop', 'lzop -dc'),
    'zip': (_zip(), 'a zip archive', 'unzip -p'),
    '7z': (b"7z\xbc\xaf'\x1c", 'a 7z archive', '7z x -so'),
    'ova': (_tar(), 'a tar archive', 'tar xf'),
    'qcow2': (
        b'QFI\xfb\0\0\0\3',
        'a qcow2 image',
        'qemu-img convert -O raw',
    ),
    'qed': (b'QED\0', 'a qed image', 'qemu-img convert -O raw'),
    'vmdk': (b'KDMV\1\0\0\0', 'a vmdk image', 'qemu-img convert -O raw'),
    'vmdk of ESX': (b'COWD\1\0\0\0', 'a vmdk image', 'qemu-img convert -O raw'),
    'vmdk, text': (b'# Disk DescriptorFile\nversion=1', 'a vmdk image', 'qemu-img convert'),
    'vhdx': (b'vhdxfileQ\0E\0', 'a vhdx image', 'qemu-img convert -O raw'),
    'vhd': (b'conectix\0\0\0\2', 'a vhd image', 'qemu-img convert -O raw'),
    'vdi': (bytes(64) + b'\x7f\x10\xda\xbe', 'a vdi image', 'qemu-img convert -O raw'),
}
#: And what has more than one reading.
DISGUISES: dict[str, Callable[[], bytes]] = {
    'rbd-diff': diff,
    'rbd-diff, cut in its name': lambda: diff()[:25],
    'rbd': export,
    'rbd, a whole disk': lambda: disk_with(export()),
    'rbd-diff, a whole disk': disk_that_is_a_diff,
}


class TestAFileOfExactlyTheSize:
    """It is raw, whatever the disk begins with."""

    @pytest.mark.parametrize('name', STRANGERS)
    def test_may_begin_as_anything(self, name: str) -> None:
        assert recognise(disk_with(STRANGERS[name][0])) == 'raw'

    @pytest.mark.parametrize('head', [b'', b'rbd diff v1\nhello', b'rbd image v2\nhello', b'eE'])
    def test_may_hold_the_name_of_a_format(self, head: bytes) -> None:
        assert recognise(disk_with(head)) == 'raw'

    @pytest.mark.parametrize('content', [disk_that_is_a_diff(), disk_with(export())])
    def test_is_refused_where_it_may_be_an_export(self, content: bytes) -> None:
        with pytest.raises(errors.InvalidInput, match='A raw image may as well') as caught:
            recognise(content)

        assert '--format raw' in str(caught.value)
        assert '--format rbd' in str(caught.value)


class TestAFileOfAnotherSize:
    @pytest.mark.parametrize(('content', 'found'), [(diff(), 'rbd-diff'), (export(), 'rbd')])
    def test_is_what_it_begins_as(self, content: bytes, found: str) -> None:
        assert recognise(content) == found

    @pytest.mark.parametrize('name', STRANGERS)
    @pytest.mark.parametrize('size', [600, 3500, 9000])
    def test_is_named_where_it_is_no_image(self, name: str, size: int) -> None:
        head, what, hint = STRANGERS[name]

        with pytest.raises(errors.InvalidInput, match=f'is {what}') as caught:
            recognise(disk_with(head, size))

        assert hint in str(caught.value)
        assert '--format raw' in str(caught.value)

    def test_a_vhd_of_fixed_size(self) -> None:
        with pytest.raises(errors.InvalidInput, match='vhd image of fixed size'):
            recognise(bytes(SIZE) + b'conectix'.ljust(512, b'\0'))

    def test_may_be_a_volume_of_that_size_or_cut_short(self) -> None:
        with pytest.raises(errors.InvalidInput, match='has 4000 bytes') as caught:
            recognise(bytes(4000))

        assert '--format raw' in str(caught.value)
        assert 'cut short' in str(caught.value)

    @pytest.mark.parametrize('size', [1, 3072, 4097])
    def test_that_no_such_volume_has(self, size: int) -> None:
        with pytest.raises(errors.InvalidInput, match=f'has {size} bytes') as caught:
            recognise(bytes(size))

        assert '--format' not in str(caught.value)


class TestAPipe:
    """Its size is not known before its end: anything may come."""

    @pytest.mark.parametrize('head', [b'', b'rbd diff v1\nhello', b'rbd image v2\nhello'])
    def test_is_raw_where_it_can_be_nothing_else(self, head: bytes) -> None:
        assert recognise(disk_with(head), piped=True) == 'raw'

    @pytest.mark.parametrize('name', DISGUISES)
    def test_is_refused_where_it_may_be_an_export(self, name: str) -> None:
        with pytest.raises(errors.InvalidInput, match='A raw image may as well') as caught:
            recognise(DISGUISES[name](), piped=True)

        assert '--format raw' in str(caught.value)

    @pytest.mark.parametrize('name', STRANGERS)
    def test_is_refused_where_it_may_be_compressed(self, name: str) -> None:
        head, what, _hint = STRANGERS[name]

        with pytest.raises(errors.InvalidInput, match=f'is {what}') as caught:
            recognise(disk_with(head), piped=True)

        assert '--format raw' in str(caught.value)

    def test_nothing_is_read(self) -> None:
        source = stream.Reader(as_pipe(disk_with(b'rbd diff v1\nhello')), 'x')

        incoming.recognise(source, SIZE, may_have)

        assert source.position == 0
        assert source.read(SIZE + 1) == disk_with(b'rbd diff v1\nhello')


@pytest.mark.parametrize('piped', [False, True])
def test_an_open_stream_is_recognised_where_nobody_tells_its_format(piped: bool) -> None:
    assert incoming.open_stream(reader(bytes(SIZE), piped), SIZE).format == 'raw'
    with pytest.raises(errors.InvalidInput, match='--format'):
        incoming.open_stream(reader(diff(), True), SIZE)


@pytest.mark.parametrize('piped', [False, True])
def test_nothing_at_all(piped: bool) -> None:
    with pytest.raises(errors.InvalidInput, match='is empty'):
        recognise(b'', piped)


class TestAFormatThatIsTold:
    @pytest.mark.parametrize('piped', [False, True])
    @pytest.mark.parametrize('name', [*STRANGERS, *DISGUISES])
    def test_raw_is_taken_as_it_is(self, name: str, piped: bool) -> None:
        head = STRANGERS[name][0] if name in STRANGERS else DISGUISES[name]()
        content = disk_with(head)
        arriving = incoming.open_stream(reader(content, piped), SIZE, 'raw')

        (increment,) = arriving.increments
        found = b''.join(
            item.data if isinstance(item, model.Data) else bytes(item.length)
            for item in increment.items
        )
        assert found == content

    @pytest.mark.parametrize('told', ['rbd', 'rbd-diff'])
    @pytest.mark.parametrize('name', STRANGERS)
    def test_but_it_is_compressed(self, name: str, told: str) -> None:
        head, what, _hint = STRANGERS[name]

        with pytest.raises(errors.InvalidInput, match=f'is {what}, expected the format {told}'):
            incoming.open_stream(reader(head), SIZE, told)

    @pytest.mark.parametrize(
        ('content', 'told', 'found'), [(diff(), 'rbd', 'rbd-diff'), (export(), 'rbd-diff', 'rbd')]
    )
    def test_but_it_is_the_other(self, content: bytes, told: str, found: str) -> None:
        with pytest.raises(errors.InvalidInput, match=f'begins as the format {found} does'):
            incoming.open_stream(reader(content), SIZE, told)

    def test_but_it_is_nothing_of_the_kind(self) -> None:
        with pytest.raises(errors.InvalidInput, match=r"begins with b'\\x00.*expected the format"):
            incoming.open_stream(reader(bytes(100)), SIZE, 'rbd-diff')


@pytest.mark.parametrize('content', [diff(), export(), bytes(SIZE)])
@pytest.mark.parametrize('piped', [False, True])
def test_the_last_increment_ends_with_the_stream(content: bytes, piped: bool) -> None:
    formats = {b'rbd d': 'rbd-diff', b'rbd i': 'rbd'}
    told, seen = formats.get(content[:5], 'raw'), []

    arriving = incoming.open_stream(
        reader(content, piped), SIZE, told, at_end=lambda: seen.append('end')
    )
    for increment in arriving.increments:
        assert seen == []
        for _item in increment.items:
            pass
        assert seen == ['end']

    arriving = incoming.open_stream(reader(content + b'x', piped), SIZE, told)
    increment = next(arriving.increments)
    with pytest.raises(errors.InvalidInput, match=r'more bytes follow|goes on after'):
        list(increment.items)


def test_the_size_of_a_raw_image() -> None:
    def size_of(size: int, piped: bool) -> int:
        return incoming.image_size(reader(bytes(size), piped), 'raw', SIZE, may_have)

    assert [size_of(size, False) for size in (3072, 3073, SIZE, 4097)] == [SIZE, 3073, SIZE, SIZE]
    assert size_of(3073, True) == SIZE


def test_a_name_is_quoted_in_the_command(tmp_path: pathlib.Path) -> None:
    source = stream.Reader(as_file(gzip.compress(b'x')), 'a disk; of mine.gz')

    with pytest.raises(errors.InvalidInput, match=r"gzip -dc 'a disk; of mine.gz'"):
        incoming.recognise(source, SIZE, may_have)


@pytest.mark.parametrize('program', ['gzip', 'bzip2', 'xz', 'zstd', 'lz4', 'lzip', 'lzop'])
def test_what_the_programs_write(program: str) -> None:
    found = strangers.recognise(packed_with(program))

    assert found is not None
    assert found.what == f'compressed with {program}'
