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

"""The data of one increment on its way into an archive.

What a dead run left behind is used as far as it is proven.  Each run notes, for a few
segments at a time, what it has written: name, size and sha256.  The next run reads these
segments back, sees that they are what was written, and goes on behind the last record of
them.  Extents go by in ascending order, so that nothing before that record is missing.
What no note tells of, or is not as it was noted, is written anew.
"""

import collections
import contextlib
import logging
from collections.abc import Generator, Iterable, Iterator

from osc_backup_port import errors, model
from osc_backup_port.archive import manifest, names, sealed, segments
from osc_backup_port.archive import store as archive_store
from osc_backup_port.formats import rbd_diff, stream
from osc_backup_port.moving import endpoints
from osc_backup_port.transfer import differing, metering

LOG = logging.getLogger(__name__)

#: Segments in a note; a killed run has to write at most these, and those that were under
#: way, again.
_PROOF_LENGTH = 16


class SegmentWriter(endpoints.Writing):
    """Writes the segments of one increment into its folder.

    :param path: the folder
    :param increment: tells where it starts and leads to; its items are not used
    :ivar segments: of the increment, those with it that a dead run has proven
    :ivar written: bytes that were put into the archive
    :ivar first: offset in the image from which on items are wanted
    """

    def __init__(
        self,
        store: archive_store.Store,
        path: str,
        increment: model.Increment,
        level: int | None,
        meter: metering.Meter,
    ) -> None:
        self._store = store
        self._path = path
        self._increment = increment
        self._level = level
        self._meter = meter
        self._is_complete = False
        self.segments = manifest.Segments()
        self.written = 0
        self.first = 0

    def write(self, items: Iterable[model.Item]) -> None:
        """Write segments.  When it returns, or raises, no thread writes any more."""
        if self._is_complete:
            # Who compares them with what is there has to see them.
            collections.deque(items, maxlen=0)
            return
        first = len(self.segments)
        size = manifest.segment_size(self._increment.size)
        in_order = not self._store.takes_any_order
        with (
            contextlib.closing(self._records(items)) as records,
            contextlib.closing(
                segments.pack(records, self._level, self._put, first, size, in_order)
            ) as packed,
        ):
            for segment in packed:
                self.written += segment.size
                self.segments.append(segment)
                self._prove(first)

    def _put(self, packed: segments.Packed) -> None:
        self._store.put(f'{self._path}/{packed.segment.name}', packed.content)

    def _prove(self, first: int) -> None:
        """Note the last segments, once they are enough; nobody comes back to a stream."""
        done = self.segments
        if self._store.takes_any_order and (len(done) - first) % _PROOF_LENGTH == 0:
            start = len(done) - _PROOF_LENGTH
            proof = manifest.encode_proof(done[start:])
            self._store.put(f'{self._path}/{names.proof(start)}', proof)

    def _records(self, items: Iterable[model.Item]) -> Generator[tuple[bytes, ...], None, None]:
        if not self.segments:
            yield (rbd_diff.encode_header(self._increment),)
        metered = self._meter.watch(items, self._increment.size)
        if self._increment.from_snap is None:
            metered = differing.drop_zeros(metered)
        yield from rbd_diff.encode_items(metered)
        yield (rbd_diff.END,)

    def resume(self, left: str) -> None:
        """Take over into our folder what a dead run has proven.

        What else is in our folder of a dead run goes.

        :param left: the folder that a dead run left, which may be ours
        """
        there = {entry.name for entry in self._store.entries(left)}
        kept: list[str] = []
        while not self._is_complete and (proof := names.proof(len(self.segments))) in there:
            try:
                part = list(self._read_back(left, proof))
            except errors.InvalidInput:
                break
            for segment, end, is_last in part:
                kept.append(segment.name)
                self.segments.append(segment)
                self.first = max(self.first, end)
                self._is_complete = is_last
            kept.append(proof)
        if kept:
            LOG.info('%s: %d segments of an earlier run are used.', left, len(self.segments))
        if left != self._path:
            for name in kept:
                self._store.copy(f'{left}/{name}', f'{self._path}/{name}')
            return
        for name in sorted(there.difference(kept)):
            if (
                names.parse_segment(name) is not None
                or names.is_proof(name)
                or names.is_part(name)
            ):
                self._store.delete(f'{self._path}/{name}')

    def _read_back(self, left: str, proof: str) -> Iterator[tuple[manifest.Segment, int, bool]]:
        """Yield the segments that a note tells of, each with the end of its last record.

        And whether the increment ends with it.

        :raises InvalidInput: one is not what was written, or is of another increment
        """
        path, first = f'{left}/{proof}', len(self.segments)
        content = self._store.get(path, sealed.MAX_SMALL_SIZE) or b''
        for number, segment in enumerate(manifest.decode_proof(content, path, first), first):
            part = self._read_segment(left, segment, is_first=number == 0)
            end = max((item.offset + item.length for item in part), default=0)
            yield segment, end, part.is_last

    def _read_segment(self, left: str, segment: manifest.Segment, is_first: bool) -> rbd_diff.Part:
        path = f'{left}/{segment.name}'
        if names.is_compressed(segment.name) != (self._level is not None):
            raise errors.InvalidInput(f'{path}: was compressed in another way.')
        content = self._store.get(path, manifest.MAX_SEGMENT_SIZE)
        raw = segments.check(segment, content, left)
        reader = stream.Reader(segments.Chunks(iter([raw])), path, False)
        if is_first:
            header, wanted = rbd_diff.read_header(reader), self._increment
            if (header.from_snap, header.to_snap, header.size) != (
                wanted.from_snap,
                wanted.to_snap,
                wanted.size,
            ):
                raise errors.InvalidInput(f'{path}: is of another increment.')
        return rbd_diff.Part(reader, self._increment.size)


def forget_proofs(store: archive_store.Store, path: str) -> None:
    """Remove the notes for a next run, once the increment is finished."""
    for entry in store.entries(path):
        if names.is_proof(entry.name) or entry.name == names.WRITER:
            store.delete(f'{path}/{entry.name}')
