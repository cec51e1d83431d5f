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

"""An increment of an archive as a stream of items, all of it checked."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from osc_backup_port import model
from osc_backup_port.archive import catalog, manifest, sealed, segments
from osc_backup_port.archive import store as archive_store
from osc_backup_port.formats import rbd_diff, stream


def describe(increment: manifest.Increment) -> model.Increment:
    """Return an increment without its items."""
    return model.Increment(increment.from_snap, increment.to_snap, increment.size, iter(()))


def read_segments(
    store: archive_store.Store, backup: catalog.Backup, first: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the stream of each segment, checked by its sha256.

    :param first: the number of the first that is wanted
    """
    wanted = itertools.islice(backup.increment.segments, first, None)
    limit = manifest.MAX_SEGMENT_SIZE

    def fetch(segment: manifest.Segment) -> bytes | None:
        return store.get(f'{backup.path}/{segment.name}', limit)

    where = f'{store.name}/{backup.path}'
    number = first
    for raw in segments.unpack(wanted, fetch, where):
        yield number, raw
        # Before the next one is expanded; enumerate() would keep it.
        del raw
        number += 1


def items(
    increment: manifest.Increment, parts: Iterable[tuple[int, bytes]], where: str
) -> Iterator[model.Item]:
    """Yield what is in segments that follow each other.

    :param where: what to call their folder in an error
    :raises InvalidInput: they do not hold what the increment says
    """
    return _in_order(_of_segments(increment, parts, where), where)


def _of_segments(
    increment: manifest.Increment, parts: Iterable[tuple[int, bytes]], where: str
) -> Iterator[model.Item]:
    last = len(increment.segments) - 1
    for number, raw in parts:
        reader = stream.Reader(
            segments.Chunks(iter([raw])), f'{where}/{increment.segments[number].name}', False
        )
        if number == 0:
            _check_header(rbd_diff.read_header(reader), increment, where)
        part = rbd_diff.Part(reader, increment.size)
        yield from part
        if part.is_last != (number == last):
            raise sealed.damaged(reader.name, 'has the end mark of the stream in the wrong place')
        # Before the next one is expanded.
        del raw, reader, part


def read(store: archive_store.Store, backup: catalog.Backup) -> Iterator[model.Item]:
    """Yield all items of an increment."""
    where = f'{store.name}/{backup.path}'
    return items(backup.increment, read_segments(store, backup), where)


@dataclasses.dataclass
class Arriving:
    """The segments of one increment as they go by, before it is known what they are.

    :param where: what to call their folder in an error
    """

    where: str
    seen: manifest.Segments = dataclasses.field(default_factory=manifest.Segments)
    is_whole: bool = False

    def begin(self, described: Iterator[tuple[manifest.Segment, bytes]]) -> model.Increment:
        """Read the header, which is in the first segment."""
        self._described = described
        first = next(described, None)
        if first is None:
            raise sealed.damaged(self.where, 'has no segments')
        self.seen.append(first[0])
        reader = self._reader_of(*first)
        self._readers = [reader]
        self._head = rbd_diff.read_header(reader)
        return self._head

    def items(self) -> Iterator[model.Item]:
        return _in_order(self._items(), self.where)

    def _items(self) -> Iterator[model.Item]:
        # Nothing keeps a segment when the next one is expanded.
        yield from self._part(self._readers.pop())
        for segment, raw in self._described:
            if self.is_whole:
                raise sealed.damaged(self.where, 'has more segments behind the last one')
            self.seen.append(segment)
            reader = self._reader_of(segment, raw)
            del raw
            yield from self._part(reader)
            del reader

    def check(self, backup: catalog.Backup) -> None:
        """See that what went by is what was written.

        :raises InvalidInput: it is not
        """
        increment = backup.increment
        expected = (increment.from_snap, increment.to_snap, increment.size)
        found = (self._head.from_snap, self._head.to_snap, self._head.size)
        if not self.is_whole or self.seen != increment.segments or found != expected:
            raise sealed.damaged(self.where, 'its segments are not those that were written')

    def _part(self, reader: stream.Reader) -> Iterator[model.Item]:
        part = rbd_diff.Part(reader, self._head.size)
        yield from part
        self.is_whole = part.is_last

    def _reader_of(self, segment: manifest.Segment, raw: bytes) -> stream.Reader:
        return stream.Reader(
            segments.Chunks(iter([raw])), f'{self.where}/{segment.name}', checksum=False
        )


def _in_order(items: Iterator[model.Item], where: str) -> Iterator[model.Item]:
    """Yield items of which none goes back behind the end of the one before.

    Nobody writes an archive that does.  It could be imported in parts, and extracted from its
    end, and would not come out as the same bytes.
    """
    end = 0
    for item in items:
        if item.offset < end:
            raise sealed.damaged(where, f'goes back, to offset {item.offset}, in its stream')
        end = item.offset + item.length
        yield item


def _check_header(found: model.Increment, expected: manifest.Increment, where: str) -> None:
    for name in ('from_snap', 'to_snap', 'size'):
        if getattr(found, name) != getattr(expected, name):
            raise sealed.damaged(
                where,
                f'its stream says that {name} is {getattr(found, name)}, '
                f'expected {getattr(expected, name)}',
            )
