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

"""Reading a qcow2 image: the disk that is in it, and nothing else.

Who made the file may have meant harm, so it is read here and not by qemu: no other file is
ever opened, whatever it names; what it says is checked before it is used; and memory is
bounded by one cluster of tables, one of data and one piece, some 10 MiB.

Source: docs/interop/qcow2.txt of QEMU.
"""

import shlex
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from osc_backup_port import errors, model, units
from osc_backup_port.formats import stream

MAGIC = b'QFI\xfb'
PIECE = 4 * units.MIB

# Magic, version, backing file (offset, length), cluster bits, size, encryption, L1 table
# (entries, offset), refcount table (offset, clusters), snapshots (count, offset).
HEADER = struct.Struct('>4sIQIIQIIQQIIQ')
# Features: incompatible, compatible, autoclear; order of the refcounts, length of the header.
MORE = struct.Struct('>QQQII')
_COMPRESSION_AT = HEADER.size + MORE.size
_CLUSTER_BITS = range(9, 22)

_CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED = 1 << 1, 1 << 2, 1 << 3, 1 << 4
#: Dirty is about refcounts, which nobody needs who reads.
_DIRTY = 1 << 0
_KNOWN = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED
_ZLIB, _ZSTD = 0, 1

_OFFSET = (1 << 56) - (1 << 9)
_IS_COMPRESSED = 1 << 62
_IS_ZERO = 1
_SECTOR = 512
_SUBCLUSTERS = 32
_ENTRY = struct.Struct('>Q')
_EXTENDED_ENTRY = struct.Struct('>QQ')
#: So many entries of the L1 table are read at a time.
_L1_STEP = 4096
#: More than the largest cluster.
_MAX_WINDOW = 8 * units.MIB


class Header(NamedTuple):
    """What is needed to read the disk.

    :ivar size: of the disk
    :ivar l1_offset: where the table of tables is
    :ivar is_extended: clusters are kept in 32 parts
    """

    version: int
    size: int
    cluster_bits: int
    l1_size: int
    l1_offset: int
    is_extended: bool
    is_zstd: bool

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def entry(self) -> struct.Struct:
        """What the tables of clusters consist of."""
        return _EXTENDED_ENTRY if self.is_extended else _ENTRY

    @property
    def span(self) -> int:
        """How many bytes of the disk one table of clusters describes."""
        return self.cluster // self.entry.size * self.cluster


def read_header(reader: stream.Reader) -> Header:
    """Return the header of a qcow2 image that stands for itself.

    :raises InvalidInput: it needs another file or a key, has features that are not known
        here, or is no file of which any part can be read
    """
    if reader.size is None:
        raise errors.InvalidInput(
            f'{reader.name}: is a pipe. A qcow2 image has to be read here and there.',
            'Write it to a file, and give that: --file <path>',
        )
    content = reader.read_at(0, _COMPRESSION_AT + 1)
    if not content.startswith(MAGIC):
        raise errors.InvalidInput(
            f'{reader.name}: begins with {content[:16]!r}, expected a qcow2 image.',
            'If it is a raw image: --format raw',
        )
    if len(content) < HEADER.size:
        raise _cut_short(reader)
    told = HEADER.unpack_from(content)
    version, backing, bits, size, encryption, l1_size, l1_offset = (*told[1:3], *told[4:9])
    features, compression = _features(reader, version, content)
    _refuse(reader, backing, encryption, features)
    if bits not in _CLUSTER_BITS:
        raise damaged(reader, f'its clusters have 2^{bits} bytes, expected 2^9 to 2^21')
    if compression not in (_ZLIB, _ZSTD):
        raise _not_known(reader, f'the compression type {compression}')
    is_extended = bool(features & _EXTENDED)
    header = Header(version, size, bits, l1_size, l1_offset, is_extended, compression == _ZSTD)
    tables = -(-size // header.span)
    if l1_size < tables or l1_offset % header.cluster:
        raise damaged(reader, f'its L1 table has {l1_size} entries at byte {l1_offset}')
    return header


def _features(reader: stream.Reader, version: int, content: bytes) -> tuple[int, int]:
    """Return the incompatible features and the type of compression."""
    if version == 2:
        return 0, _ZLIB
    if version != 3:
        raise _not_known(reader, f'version {version}')
    if len(content) <= _COMPRESSION_AT:
        raise _cut_short(reader)
    features, *_, length = MORE.unpack_from(content, HEADER.size)
    if not features & _COMPRESSION:
        return features, _ZLIB
    if length <= _COMPRESSION_AT:
        raise damaged(reader, 'its header has no place for the type of compression')
    return features, content[_COMPRESSION_AT]


def _refuse(reader: stream.Reader, backing: int, encryption: int, features: int) -> None:
    """:raises InvalidInput: the disk is not in this file alone, or not in the clear"""
    file = shlex.quote(reader.name)
    convert = f'If you trust it, make a whole one: qemu-img convert -O qcow2 {file} <new file>'
    if backing:
        raise errors.InvalidInput(
            f'{reader.name}: is only what differs from another file (its backing file), expected '
            'a whole image. That other file is not opened.',
            convert,
        )
    if features & _DATA_FILE:
        raise errors.InvalidInput(
            f'{reader.name}: keeps its data in another file, expected a whole image. That other '
            'file is not opened.',
            convert,
        )
    if encryption:
        raise errors.InvalidInput(
            f'{reader.name}: is encrypted (method {encryption}), expected an image that is not.',
            'Decrypt it first: qemu-img convert, with its secret (--object secret,...).',
        )
    if features & _CORRUPT:
        raise errors.InvalidInput(
            f'{reader.name}: is marked as damaged.', f'Repair it: qemu-img check -r all {file}'
        )
    if unknown := features & ~_KNOWN:
        raise _not_known(reader, f'the features {unknown:#x}')


def read(reader: stream.Reader, header: Header) -> Iterator[model.Item]:
    """Yield the disk, from its first byte to its last.

    :raises InvalidInput: the tables of the image contradict themselves
    :raises TruncatedStream: what they lead to is not in the file
    """
    yield from _gathered(_Disk(reader, header).items())
    reader.pass_over()


class _Run(NamedTuple):
    """A part of the disk, and where it is in the file.

    :ivar source: byte in the file; None: zeros, which are nowhere
    :ivar packed: bytes that it takes there, if it is compressed; else 0
    """

    offset: int
    length: int
    source: int | None
    packed: int = 0


class _Disk:
    def __init__(self, reader: stream.Reader, header: Header) -> None:
        self._reader = reader
        self._header = header
        self._file_size = reader.size or 0

    def items(self) -> Iterator[model.Item]:
        for run in _merged(self._runs()):
            length = min(run.length, self._header.size - run.offset)
            if length <= 0:
                return
            if run.source is None:
                yield model.Zero(run.offset, length)
            elif run.packed:
                yield model.Data(run.offset, self._unpack(run.source, run.packed)[:length])
            else:
                yield self._read(run.offset, length, run.source)

    def _read(self, offset: int, length: int, source: int) -> model.Item:
        last = source + length - 1
        # The end of the last cluster need not be there: it is zeros.
        if last - last % self._header.cluster >= self._file_size:
            raise _cut_short(self._reader)
        # Space that was taken for the whole disk when the file was made.
        if self._reader.is_hole_at(source, length):
            return model.Zero(offset, length)
        data = self._reader.read_at(source, length)
        return model.Data(offset, data.ljust(length, b'\0'))

    def _runs(self) -> Iterator[_Run]:
        header = self._header
        for number, entry in enumerate(self._l1_entries()):
            table, offset = entry & _OFFSET, number * header.span
            if not table:
                yield _Run(offset, header.span, None)
                continue
            self._check_aligned(table, 'a table')
            content = self._reader.read_at(table, header.cluster)
            if len(content) != header.cluster:
                raise _cut_short(self._reader)
            for at, told in enumerate(header.entry.iter_unpack(content)):
                yield from self._cluster(offset + at * header.cluster, *told)

    def _l1_entries(self) -> Iterator[int]:
        header = self._header
        count = -(-header.size // header.span)
        for at in range(0, count, _L1_STEP):
            size = min(_L1_STEP, count - at) * _ENTRY.size
            content = self._reader.read_at(header.l1_offset + at * _ENTRY.size, size)
            if len(content) != size:
                raise _cut_short(self._reader)
            for (entry,) in _ENTRY.iter_unpack(content):
                yield entry

    def _cluster(self, offset: int, entry: int, parts: int | None = None) -> Iterator[_Run]:
        """:param parts: of a cluster in parts, which are there, and which are zeros"""
        size = self._header.cluster
        if entry & _IS_COMPRESSED:
            yield _Run(offset, size, *self._compressed(entry))
            return
        source = entry & _OFFSET
        self._check_aligned(source, 'a cluster')
        if parts is not None:
            yield from self._parts(offset, source, parts)
        elif entry & _IS_ZERO:
            if self._header.version == 2:
                raise damaged(self._reader, 'a cluster has a mark that version 2 does not have')
            yield _Run(offset, size, None)
        else:
            yield _Run(offset, size, source or None)

    def _parts(self, offset: int, source: int, parts: int) -> Iterator[_Run]:
        size = self._header.cluster // _SUBCLUSTERS
        for number in range(_SUBCLUSTERS):
            is_there, is_zero = parts >> number & 1, parts >> number + _SUBCLUSTERS & 1
            if is_there and (is_zero or not source):
                raise damaged(self._reader, 'a part of a cluster is there, and is not')
            at = number * size
            yield _Run(offset + at, size, source + at if is_there else None)

    def _compressed(self, entry: int) -> tuple[int, int]:
        """Return where a compressed cluster is, and how many bytes it has at most."""
        bits = 62 - (self._header.cluster_bits - 8)
        source = entry & ((1 << bits) - 1)
        sectors = (entry & (_IS_COMPRESSED - 1)) >> bits
        size = (sectors + 1) * _SECTOR - source % _SECTOR
        if source >= self._file_size:
            raise _cut_short(self._reader)
        return source, size

    def _unpack(self, source: int, size: int) -> bytes:
        packed = self._reader.read_at(source, size)
        unpack = _unpack_zstd if self._header.is_zstd else _unpack_zlib
        data = unpack(packed, self._header.cluster)
        if data is None:
            raise damaged(
                self._reader, f'a compressed cluster at byte {source} cannot be unpacked'
            )
        return data

    def _check_aligned(self, place: int, what: str) -> None:
        if place % self._header.cluster:
            raise damaged(self._reader, f'{what} is at byte {place}, in the middle of a cluster')


def _unpack_zlib(packed: bytes, size: int) -> bytes | None:
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size)
    except zlib.error:
        return None
    return data if len(data) == size else None


def _unpack_zstd(packed: bytes, size: int) -> bytes | None:
    # Few images have it.
    import zstandard

    library = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        # Behind it are the sectors of the next ones.
        with library.stream_reader(packed) as unpacked:
            data: bytes = unpacked.read(size)
    except zstandard.ZstdError:
        return None
    return data if len(data) == size else None


def _merged(runs: Iterator[_Run]) -> Iterator[_Run]:
    """Put together what is one after the other on the disk and in the file."""
    last: _Run | None = None
    for run in runs:
        if last is not None and _continues(last, run):
            last = last._replace(length=last.length + run.length)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def _continues(last: _Run, run: _Run) -> bool:
    if last.source is None or run.source is None:
        return last.source is run.source
    is_next = run.source == last.source + last.length and not (run.packed or last.packed)
    return is_next and bool(run.offset % PIECE)


def _gathered(items: Iterator[model.Item]) -> Iterator[model.Item]:
    """Put data together, up to pieces of the size that the other side likes."""
    start, pieces = 0, list[bytes]()
    for item in items:
        if pieces and (isinstance(item, model.Zero) or not item.offset % PIECE):
            yield model.Data(start, b''.join(pieces))
            pieces = []
        if isinstance(item, model.Zero):
            yield item
            continue
        if not pieces:
            start = item.offset
        pieces.append(item.data)
    if pieces:
        yield model.Data(start, b''.join(pieces))


def damaged(reader: stream.Reader, problem: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{reader.name}: is a damaged qcow2 image: {problem}.',
        f'Copy or export it again. This tells more: qemu-img check {shlex.quote(reader.name)}',
    )


def _cut_short(reader: stream.Reader) -> errors.TruncatedStream:
    return errors.TruncatedStream(
        f'{reader.name}: ends after {reader.size} bytes, and the qcow2 image in it goes on.',
        'The file was cut short: copy or export it again.',
    )


def _not_known(reader: stream.Reader, what: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{reader.name}: is a qcow2 image with {what}, which is not known here.',
        'If you trust it, make a plain one: '
        f'qemu-img convert -O qcow2 {shlex.quote(reader.name)} <new file>',
    )
