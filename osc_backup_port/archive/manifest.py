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

"""What the documents of an archive say, checked on the way in.

The normative description is doc/source/reference/archive-format.rst.
"""

import collections.abc
import dataclasses
import hashlib
import itertools
import operator
import re
import struct
import typing

from osc_backup_port import errors, model, spool, units
from osc_backup_port.archive import names, sealed
from osc_backup_port.driver import ceph as ceph_driver

FORMAT = 'osc-backup-port archive'
VERSION = 1

#: Bytes of records in a segment, before compression; never passed by more than
#: one record, of which none is larger than a request.
SEGMENT_SIZE = 8 * units.MIB
#: Images of more segments than this have larger ones, up to a limit: what is said of
#: all of them has to fit into one document.
_MANY_SEGMENTS = 1 << 18
_LARGEST_SEGMENT_SIZE = 56 * units.MIB
#: What a reader accepts.
MAX_SEGMENT_SIZE = 64 * units.MIB
_LARGEST_IMAGE = 1 << 60
#: The largest ``increment.json`` that is decoded as any other document.
_LARGEST_PLAIN = units.MIB

_HASH = re.compile(r'[0-9a-f]{64}')
_TIME = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\+00:00|Z)')


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """``archive.json``"""

    id: str
    created_at: str


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One file of an increment.

    :param size: bytes of the file
    :param raw_size: bytes of the diff stream in it
    """

    name: str
    size: int
    sha256: str
    raw_size: int


class Segments(collections.abc.Sequence[Segment]):
    """Many segments, counted from 0: a large image has 400 000.

    Each takes 41 bytes, most of them not in memory.
    """

    _ROW = struct.Struct('<?II32s')
    _BLOCK = 128

    def __init__(self, segments: collections.abc.Iterable[Segment] = ()) -> None:
        self._blocks: list[spool.Spooled] = []
        self._rest = bytearray()
        for segment in segments:
            self.append(segment)

    def append(self, segment: Segment) -> None:
        is_compressed = names.is_compressed(segment.name)
        digest = bytes.fromhex(segment.sha256)
        self._rest += self._ROW.pack(is_compressed, segment.size, segment.raw_size, digest)
        if len(self._rest) == self._BLOCK * self._ROW.size:
            self._blocks.append(spool.Spooled(bytes(self._rest)))
            self._rest.clear()

    def __len__(self) -> int:
        return len(self._blocks) * self._BLOCK + len(self._rest) // self._ROW.size

    def __iter__(self) -> collections.abc.Iterator[Segment]:
        rows = itertools.chain(map(spool.Spooled.read, self._blocks), [bytes(self._rest)])
        found = itertools.chain.from_iterable(map(self._ROW.iter_unpack, rows))
        yield from (self._segment(number, *row) for number, row in enumerate(found))

    @typing.overload
    def __getitem__(self, index: int) -> Segment: ...

    @typing.overload
    def __getitem__(self, index: slice) -> tuple[Segment, ...]: ...

    def __getitem__(self, index: int | slice) -> Segment | tuple[Segment, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        block, row = divmod(number, self._BLOCK)
        rows = self._blocks[block].read() if block < len(self._blocks) else self._rest
        return self._segment(number, *self._ROW.unpack_from(rows, row * self._ROW.size))

    @staticmethod
    def _segment(
        number: int, is_compressed: bool, size: int, raw_size: int, digest: bytes
    ) -> Segment:
        return Segment(names.segment(number, is_compressed), size, digest.hex(), raw_size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, collections.abc.Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True, slots=True)
class Increment:
    """``increment.json``

    :param from_snap: where it starts from: an earlier increment of the same
        image; None: the beginning of time
    :param to_snap: the snapshot that it leads to
    :param size: of the image at that point, in bytes
    :param volume_metadata_sha256: None where there is no such file
    """

    backup_id: str
    number: int
    from_snap: str | None
    to_snap: str
    size: int
    segments: collections.abc.Sequence[Segment]
    record_sha256: str
    volume_metadata_sha256: str | None
    created_at: str

    @property
    def folder(self) -> str:
        return names.increment(self.number, self.backup_id)

    @property
    def stored_size(self) -> int:
        return sum(segment.size for segment in self.segments)


def segment_size(image_size: int) -> int:
    """Return the bytes of records that go into a segment of an image."""
    return min(max(SEGMENT_SIZE, image_size // _MANY_SEGMENTS), _LARGEST_SEGMENT_SIZE)


def encode_archive(info: Archive) -> bytes:
    return sealed.seal({'format': FORMAT, 'version': VERSION, **dataclasses.asdict(info)})


def decode_archive(content: bytes, name: str) -> Archive:
    """:raises InvalidInput: damaged, or of a version that is not known here"""
    fields = _Fields(sealed.unseal(content, name), name)
    if fields.text('format') != FORMAT:
        raise errors.InvalidInput(f'{name}: is not the mark of an archive of ours.')
    version = fields.number('version')
    if version != VERSION:
        raise errors.InvalidInput(
            f'{name}: the archive has format version {version}, known here: {VERSION}.',
            'Use a newer release of osc-backup-port.',
        )
    return Archive(fields.uuid('id'), fields.time('created_at'))


def encode_image(layout: model.ImageLayout) -> bytes:
    return sealed.seal(
        {
            'size': layout.size,
            'order': layout.order,
            'features': layout.features or 0,
            'stripe_unit': layout.stripe_unit,
            'stripe_count': layout.stripe_count,
        }
    )


def decode_image(content: bytes, name: str) -> model.ImageLayout:
    """:raises InvalidInput: damaged"""
    fields = _Fields(sealed.unseal(content, name), name)
    layout = model.ImageLayout(
        fields.number('size', _LARGEST_IMAGE),
        fields.number('order'),
        fields.number('features', 1 << 64),
        fields.number('stripe_unit', 1 << 40),
        fields.number('stripe_count', 1 << 40),
    )
    if not 12 <= layout.order <= 25:
        raise sealed.forged(name, f'the object order is {layout.order}, expected 12 to 25')
    return layout


def encode_increment(info: Increment) -> bytes:
    document = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    document['segments'] = []
    canonical = (
        _CANONICAL % _values(segment, 'raw_size', 'sha256', 'size') for segment in info.segments
    )
    digest = _spliced_digest(document, canonical)
    begin, end = _split(sealed.write({**document, 'sha256': digest}), _EMPTY)
    content = bytearray(begin)
    for number, segment in enumerate(info.segments):
        content += b',\n' if number else _BEGIN
        content += _WRITTEN % _values(segment, 'size', 'sha256', 'raw_size')
    content += (_END if info.segments else _EMPTY) + end
    return bytes(content)


def _values(segment: Segment, *keys: str) -> tuple[bytes | int, ...]:
    values = (getattr(segment, key) for key in ('name', *keys))
    return tuple(value.encode() if isinstance(value, str) else value for value in values)


def _split(content: bytes, mark: bytes) -> tuple[bytes, bytes]:
    begin, _, end = content.partition(mark)
    return begin, end


def _spliced_digest(
    document: dict[str, typing.Any], canonical: collections.abc.Iterable[bytes]
) -> str:
    """Return the sha256 of a document whose list of segments is given apart."""
    begin, end = _split(sealed.canonical(document), b'"segments":[]')
    found = hashlib.sha256(begin + b'"segments":[')
    for number, item in enumerate(canonical):
        found.update(b',' + item if number else item)
    found.update(b']' + end)
    return found.hexdigest()


# A text in JSON has no quotation mark of its own: these stand nowhere but in their place.
_EMPTY = b'"segments": []'
_BEGIN = b'"segments": [\n'
_END = b'\n ]'
_WRITTEN = b'  {\n   "name": "%b",\n   "size": %d,\n   "sha256": "%b",\n   "raw_size": %d\n  }'
_CANONICAL = b'{"name":"%b","raw_size":%d,"sha256":"%b","size":%d}'
_ITEM = re.compile(
    rb'  \{\n   "name": "([0-9]{5,9})\.rbd-diff(\.zst)?",\n   "size": (0|[1-9][0-9]{0,8}),\n'
    rb'   "sha256": "([0-9a-f]{64})",\n   "raw_size": (0|[1-9][0-9]{0,8})\n  \}(,\n)?'
)


def _read_increment(content: bytes, name: str) -> tuple['_Fields', Segments]:
    """Return the fields of a document, and its segments.

    A large one is mostly segments, which are read one by one: all in one go they would
    take ten times their bytes.

    :raises InvalidInput: damaged, or forged
    """
    if len(content) <= _LARGEST_PLAIN:
        fields = _Fields(sealed.unseal(content, name), name)
        return fields, Segments(_segments(fields, name, 0))
    begin, end = content.find(_BEGIN), content.rfind(_END)
    found, at = Segments(), begin + len(_BEGIN)

    def canonical() -> collections.abc.Iterator[bytes]:
        nonlocal at
        is_last = False
        while not is_last:
            match = _ITEM.match(content, at, end)
            if match is None or match[1] != b'%05d' % len(found):
                raise sealed.damaged(name, f'segment {len(found)} is not as it was written')
            number, suffix, size, digest, raw_size, comma = match.groups()
            if max(int(size), int(raw_size)) >= MAX_SEGMENT_SIZE:
                raise sealed.damaged(name, f'segment {len(found)} is too large')
            segment = names.segment(int(number), suffix is not None)
            found.append(Segment(segment, int(size), digest.decode(), int(raw_size)))
            at, is_last = match.end(), comma is None
            yield _CANONICAL % (
                number + b'.rbd-diff' + (suffix or b''),
                int(raw_size),
                digest,
                int(size),
            )

    if begin < 0 or len(content) - (end - begin) > _LARGEST_PLAIN:
        raise sealed.damaged(name, 'has no list of segments as it is written')
    rest = content[:begin] + _EMPTY + content[end + len(_END) :]
    document, expected = sealed.read(rest, name)
    if document.get('segments') != [] or expected != _spliced_digest(document, canonical()):
        raise sealed.damaged(name, 'its content does not match its own sha256')
    if at != end:
        raise sealed.damaged(name, 'has more than segments in their list')
    return _Fields(document, name), found


def decode_increment(content: bytes, name: str) -> Increment:
    """:raises InvalidInput: damaged, or it contradicts itself"""
    fields, segments = _read_increment(content, name)
    info = Increment(
        fields.uuid('backup_id'),
        fields.number('number'),
        fields.optional_text('from_snap'),
        fields.text('to_snap'),
        fields.number('size', _LARGEST_IMAGE),
        segments,
        fields.digest('record_sha256'),
        fields.digest('volume_metadata_sha256') if fields.has('volume_metadata_sha256') else None,
        fields.time('created_at'),
    )
    if ceph_driver.backup_of_snapshot(info.to_snap) != info.backup_id:
        raise sealed.forged(name, f'leads to {info.to_snap!r}, which is no snapshot of it')
    if info.from_snap is not None and ceph_driver.backup_of_snapshot(info.from_snap) is None:
        raise sealed.forged(name, f'starts from {info.from_snap!r}, a snapshot of no backup')
    return info


def encode_proof(segments: collections.abc.Sequence[Segment]) -> bytes:
    """Return what a run notes of segments that it has written."""
    return sealed.seal({'segments': [dataclasses.asdict(segment) for segment in segments]})


def decode_proof(content: bytes, name: str, first: int) -> list[Segment]:
    """:raises InvalidInput: it does not tell of segments from number *first* on"""
    return list(_segments(_Fields(sealed.unseal(content, name), name), name, first))


def _segments(fields: '_Fields', name: str, first: int) -> collections.abc.Iterator[Segment]:
    if not fields.items('segments'):
        raise sealed.forged(name, 'has no segments, expected one at least')
    for number, item in enumerate(fields.items('segments'), first):
        inner = _Fields(item, name)
        segment = Segment(
            inner.text('name'),
            inner.number('size', MAX_SEGMENT_SIZE),
            inner.digest('sha256'),
            inner.number('raw_size', MAX_SEGMENT_SIZE),
        )
        if names.parse_segment(segment.name) != number:
            raise sealed.forged(name, f'segment {number} is called {segment.name!r}')
        yield segment


class _Fields:
    """A decoded object whose values are asked for by type."""

    def __init__(self, document: typing.Any, name: str) -> None:
        self._name = name
        if not isinstance(document, dict):
            raise sealed.forged(name, f'holds {type(document).__name__}, expected an object')
        self._document = document

    def has(self, key: str) -> bool:
        return self._document.get(key) is not None

    def text(self, key: str) -> str:
        value = self._document.get(key)
        if not isinstance(value, str) or not 0 < len(value) <= 4096:
            raise self._wrong(key, 'a text')
        return value

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def uuid(self, key: str) -> str:
        value = self.text(key)
        if not names.is_uuid(value):
            raise self._wrong(key, 'a UUID')
        return value

    def time(self, key: str) -> str:
        value = self.text(key)
        if not _TIME.fullmatch(value):
            raise self._wrong(key, 'a time in UTC')
        return value

    def digest(self, key: str) -> str:
        value = self.text(key)
        if not _HASH.fullmatch(value):
            raise self._wrong(key, 'a sha256')
        return value

    def number(self, key: str, limit: int = 1 << 31) -> int:
        value = self._document.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
            raise self._wrong(key, f'a number from 0 to below {limit}')
        return value

    def items(self, key: str) -> list[typing.Any]:
        value = self._document.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, 'a list')
        return value

    def _wrong(self, key: str, expected: str) -> errors.InvalidInput:
        found = repr(self._document.get(key))[:60]
        return sealed.forged(self._name, f'{key} is {found}, expected {expected}')
