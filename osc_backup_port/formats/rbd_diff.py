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

"""The rbd diff format, versions 1 and 2.

A banner, records of metadata, records of data, an end mark.  All numbers are
little-endian.  Version 1 is what ``rbd export-diff`` writes and all that
``rbd import-diff`` reads.  Version 2 puts the length of each record behind
its tag, so that unknown ones can be skipped; it occurs inside of the rbd
export format 2.  The format has no checksum and no id of the image.

Source: doc/dev/rbd-diff.rst and doc/dev/rbd-export.rst of Ceph.
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model, units
from osc_backup_port.formats import stream

BANNERS = {1: b'rbd diff v1\n', 2: b'rbd diff v2\n'}
END = b'e'
_LARGEST_NAME = 4096
#: Data is handed on in pieces of at most this size, however large a record
#: says that it is.
PIECE = 4 * units.MIB

_U32 = struct.Struct('<I')
_U64 = struct.Struct('<Q')
_RANGE = struct.Struct('<QQ')


def read(reader: stream.Reader) -> model.Increment:
    """Read a diff up to its first data; its items read the rest.

    The items read to the end mark and not beyond.

    :raises InvalidInput: this is no such stream, or it contradicts itself
    :raises TruncatedStream: it ends too early; also while items are read
    """
    return _Decoder(reader).decode()


def read_header(reader: stream.Reader) -> model.Increment:
    """Read what comes before the data of a diff of version 1; there are no items.

    :raises InvalidInput: this is no such stream
    """
    return _Decoder(reader).read_header()


class Part:
    """The items in a part of a diff of version 1 that was cut between two records.

    Iterating raises ``TruncatedStream`` or ``InvalidInput`` as :func:`read` does.

    :param reader: ends where the part does
    :param size: of the image
    :ivar is_last: whether the end mark was met, as the last byte
    """

    def __init__(self, reader: stream.Reader, size: int) -> None:
        self._reader = reader
        self._decoder = _Decoder(reader, version=1, size=size)
        self.is_last = False

    def __iter__(self) -> Iterator[model.Item]:
        while tag := self._reader.read(1):
            if tag == END:
                self._reader.expect_end()
                self.is_last = True
                return
            yield from self._decoder.read_record(tag)


class _Decoder:
    def __init__(
        self, reader: stream.Reader, version: int | None = None, size: int | None = None
    ) -> None:
        self._reader = reader
        self._version = version or self._read_version()
        self._names: dict[bytes, str] = {}
        self._size = size

    def decode(self) -> model.Increment:
        return dataclasses.replace(self.read_header(), items=self._read_items())

    def read_header(self) -> model.Increment:
        while self._reader.peek(1) not in (b'w', b'z', END):
            self._read_metadata(self._reader.read_exactly(1))
        if self._size is None:
            raise self._invalid('the record that tells the size of the image is missing')
        return model.Increment(self._names.get(b'f'), self._names.get(b't'), self._size, iter(()))

    def _read_version(self) -> int:
        banner = self._reader.read_exactly(len(BANNERS[1]))
        for version, known in BANNERS.items():
            if banner == known:
                return version
        raise errors.InvalidInput(
            f'{self._reader.name}: begins with {banner!r}, expected {BANNERS[1]!r}.'
        )

    def _read_metadata(self, tag: bytes) -> None:
        """Read a record that comes before the data."""
        length = self._read_length()
        if tag in (b'f', b't'):
            self._names[tag] = self._read_name()
        elif tag == b's':
            (self._size,) = _U64.unpack(self._reader.read_exactly(8))
        elif tag == b'p':
            # One byte, whatever the length says: it was wrong for years.
            self._reader.read_exactly(1)
        else:
            self._skip(tag, length)

    def _read_items(self) -> Iterator[model.Item]:
        while (tag := self._reader.read_exactly(1)) != END:
            yield from self.read_record(tag)

    def read_record(self, tag: bytes) -> Iterator[model.Item]:
        """Read a record of data, whose tag was read already."""
        length = self._read_length()
        if tag in (b'w', b'z'):
            yield from self._read_range(tag)
        else:
            self._skip(tag, length)

    def _read_range(self, tag: bytes) -> Iterator[model.Item]:
        offset, length = _RANGE.unpack(self._reader.read_exactly(_RANGE.size))
        if self._size is None or offset + length > self._size:
            raise self._invalid(
                f'a record of {length} bytes at offset {offset} lies outside of the image, '
                f'which has {self._size} bytes'
            )
        if tag == b'z':
            if length:
                yield model.Zero(offset, length)
            return
        for at in range(offset, offset + length, PIECE):
            yield model.Data(at, self._reader.read_exactly(min(PIECE, offset + length - at)))

    def _read_length(self) -> int | None:
        if self._version == 1:
            return None
        (length,) = _U64.unpack(self._reader.read_exactly(8))
        return int(length)

    def _read_name(self) -> str:
        (length,) = _U32.unpack(self._reader.read_exactly(4))
        if not 0 < length <= _LARGEST_NAME:
            raise self._invalid(f'the name of a snapshot has {length} bytes')
        try:
            return self._reader.read_exactly(length).decode()
        except UnicodeDecodeError:
            raise self._invalid('the name of a snapshot is not UTF-8') from None

    def _skip(self, tag: bytes, length: int | None) -> None:
        """Pass over a record that is of no use here, as ``rbd`` does."""
        if length is None:
            raise self._invalid(f'unknown record {tag!r}')
        while length:
            length -= len(self._reader.read_exactly(min(length, PIECE)))

    def _invalid(self, problem: str) -> errors.InvalidInput:
        return errors.InvalidInput(
            f'{self._reader.name}: {problem} (at byte {self._reader.position}).',
            'The stream is damaged: export it again.',
        )


def encode(increment: model.Increment, version: int = 1) -> Iterator[bytes]:
    """Yield *increment* as the bytes of a diff stream."""
    yield encode_header(increment, version)
    for record in encode_items(increment.items, version):
        yield from record
    yield END


def encode_header(increment: model.Increment, version: int = 1) -> bytes:
    """Return what comes before the data."""
    return BANNERS[version] + b''.join(_encode_metadata(increment, version))


def _encode_metadata(increment: model.Increment, version: int) -> Iterator[bytes]:
    for tag, name in ((b'f', increment.from_snap), (b't', increment.to_snap)):
        if name is not None:
            raw = name.encode()
            yield _record(tag, _U32.pack(len(raw)) + raw, version)
    if version == 2 and increment.to_snap is not None:
        # Snapshots of backups are never protected.
        yield _record(b'p', b'\0', version)
    yield _record(b's', _U64.pack(increment.size), version)


def encode_items(items: Iterable[model.Item], version: int = 1) -> Iterator[tuple[bytes, ...]]:
    """Yield a record for each of *items*, in pieces that need not be joined."""
    for item in items:
        place = _RANGE.pack(item.offset, item.length)
        if isinstance(item, model.Zero):
            yield (_record(b'z', place, version),)
        else:
            yield _record(b'w', place, version, len(item.data)), item.data


def _record(tag: bytes, content: bytes, version: int, more: int = 0) -> bytes:
    """Return a record; *more* bytes of it follow elsewhere."""
    length = b'' if version == 1 else _U64.pack(len(content) + more)
    return tag + length + content
