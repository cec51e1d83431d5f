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
import re
import typing

from osc_backup_port import errors, model, units
from osc_backup_port.archive import names, sealed
from osc_backup_port.ceph import naming

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
    segments: tuple[Segment, ...]
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
    return sealed.seal(dataclasses.asdict(info))


def decode_increment(content: bytes, name: str) -> Increment:
    """:raises InvalidInput: damaged, or it contradicts itself"""
    fields = _Fields(sealed.unseal(content, name), name)
    info = Increment(
        fields.uuid('backup_id'),
        fields.number('number'),
        fields.optional_text('from_snap'),
        fields.text('to_snap'),
        fields.number('size', _LARGEST_IMAGE),
        tuple(_segments(fields, name, 0)),
        fields.digest('record_sha256'),
        fields.digest('volume_metadata_sha256') if fields.has('volume_metadata_sha256') else None,
        fields.time('created_at'),
    )
    if naming.backup_of_snapshot(info.to_snap) != info.backup_id:
        raise sealed.forged(name, f'leads to {info.to_snap!r}, which is no snapshot of it')
    if info.from_snap is not None and naming.backup_of_snapshot(info.from_snap) is None:
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
