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

"""The data of one increment on its way from an image into an archive.

What a dead run left behind is used as far as it is proven.  Each run notes, for a few
segments at a time, what it has written: name, size and sha256.  The next run reads these
segments back, sees that they are what was written, and goes on behind the last record of
them.  Extents go by in ascending order, so that nothing before that record is missing.
What no note tells of, or is not as it was noted, is written anew.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator

from osc_backup_port import errors, model
from osc_backup_port.archive import manifest, names, sealed, segments
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.formats import rbd_diff, stream
from osc_backup_port.transfer import differing, limits, metering, reading

#: Segments in a note; a killed run has to write at most these, and those that were under
#: way, again.
_PROOF_LENGTH = 16


@dataclasses.dataclass
class _Done:
    """What is written of an increment.

    :ivar position: where the last record ends
    :ivar is_complete: nothing is missing
    """

    segments: manifest.Segments = dataclasses.field(default_factory=manifest.Segments)
    position: int = 0
    is_complete: bool = False

    def add(self, segment: manifest.Segment, end: int, is_last: bool) -> None:
        self.segments.append(segment)
        self.position = max(self.position, end)
        self.is_complete = is_last


class SegmentWriter:
    """Writes the segments of one increment into its folder.

    :param path: the folder
    :param left: the folder that a dead run left, which may be the same
    :ivar written: bytes that were put into the archive
    """

    def __init__(
        self,
        store: archive_store.Store,
        path: str,
        left: str,
        level: int | None,
        meter: metering.Meter,
        bounds: limits.Limits,
    ) -> None:
        self._store = store
        self._path = path
        self._left = left
        self._level = level
        self._meter = meter
        self._bounds = bounds
        self.written = 0

    def write(self, image: ceph_image.Image, increment: model.Increment) -> manifest.Segments:
        """Read from *image*, opened at the end of *increment*, and write segments.

        When it returns, or raises, no thread writes any more.

        :param increment: tells where it starts; its items are not used
        """
        done = self._resume(increment)
        if done.is_complete:
            return done.segments
        first = len(done.segments)
        size = manifest.segment_size(increment.size)
        in_order = not self._store.takes_any_order
        with (
            contextlib.closing(self._records(image, increment, done)) as records,
            contextlib.closing(
                segments.pack(records, self._level, self._put, first, size, in_order)
            ) as packed,
        ):
            for segment in packed:
                self.written += segment.size
                done.segments.append(segment)
                self._prove(done.segments, first)
        return done.segments

    def _put(self, packed: segments.Packed) -> None:
        self._store.put(f'{self._path}/{packed.segment.name}', packed.content)

    def _prove(self, done: manifest.Segments, first: int) -> None:
        """Note the last segments, once they are enough; nobody comes back to a stream."""
        if self._store.takes_any_order and (len(done) - first) % _PROOF_LENGTH == 0:
            start = len(done) - _PROOF_LENGTH
            proof = manifest.encode_proof(done[start:])
            self._store.put(f'{self._path}/{names.proof(start)}', proof)

    def _records(
        self, image: ceph_image.Image, increment: model.Increment, done: _Done
    ) -> Generator[tuple[bytes, ...], None, None]:
        if not done.segments:
            yield (rbd_diff.encode_header(increment),)
        extents = _behind(done.position, image.extents(increment.from_snap))
        # Reads are under way when a write fails: they end before the image is closed.
        with contextlib.closing(reading.read_items(image, extents, self._bounds)) as read:
            items = self._meter.watch(read, increment.size)
            if increment.from_snap is None:
                items = differing.drop_zeros(items)
            yield from rbd_diff.encode_items(items)
        yield (rbd_diff.END,)

    def _resume(self, increment: model.Increment) -> _Done:
        """Return what a dead run has proven, taken over into our folder.

        What else is in our folder of a dead run goes.
        """
        there = {entry.name for entry in self._store.entries(self._left)}
        done = _Done()
        kept: list[str] = []
        while not done.is_complete and (proof := names.proof(len(done.segments))) in there:
            try:
                part = list(self._read_back(proof, increment, len(done.segments)))
            except errors.InvalidInput:
                break
            for segment, end, is_last in part:
                kept.append(segment.name)
                done.add(segment, end, is_last)
            kept.append(proof)
        if self._left != self._path:
            for name in kept:
                self._store.copy(f'{self._left}/{name}', f'{self._path}/{name}')
            return done
        for name in sorted(there.difference(kept)):
            if (
                names.parse_segment(name) is not None
                or names.is_proof(name)
                or names.is_part(name)
            ):
                self._store.delete(f'{self._path}/{name}')
        return done

    def _read_back(
        self, proof: str, increment: model.Increment, first: int
    ) -> Iterator[tuple[manifest.Segment, int, bool]]:
        """Yield the segments that a note tells of, each with the end of its last record.

        And whether the increment ends with it.

        :param first: the number of the first
        :raises InvalidInput: one is not what was written, or is of another increment
        """
        path = f'{self._left}/{proof}'
        content = self._store.get(path, sealed.MAX_SMALL_SIZE) or b''
        for number, segment in enumerate(manifest.decode_proof(content, path, first), first):
            part = self._read_segment(segment, increment, is_first=number == 0)
            end = max((item.offset + item.length for item in part), default=0)
            yield segment, end, part.is_last

    def _read_segment(
        self, segment: manifest.Segment, increment: model.Increment, is_first: bool
    ) -> rbd_diff.Part:
        path = f'{self._left}/{segment.name}'
        if names.is_compressed(segment.name) != (self._level is not None):
            raise errors.InvalidInput(f'{path}: was compressed in another way.')
        content = self._store.get(path, manifest.MAX_SEGMENT_SIZE)
        raw = segments.check(segment, content, self._left)
        reader = stream.Reader(segments.Chunks(iter([raw])), path, False)
        if is_first:
            header = rbd_diff.read_header(reader)
            if (header.from_snap, header.to_snap, header.size) != (
                increment.from_snap,
                increment.to_snap,
                increment.size,
            ):
                raise errors.InvalidInput(f'{path}: is of another increment.')
        return rbd_diff.Part(reader, increment.size)


def forget_proofs(store: archive_store.Store, path: str) -> None:
    """Remove the notes for a next run, once the increment is finished."""
    for entry in store.entries(path):
        if names.is_proof(entry.name) or entry.name == names.WRITER:
            store.delete(f'{path}/{entry.name}')


def _behind(position: int, extents: Iterator[model.Extent]) -> Iterator[model.Extent]:
    """Yield what lies behind *position*."""
    for extent in extents:
        end = extent.offset + extent.length
        start = max(extent.offset, position)
        if start < end:
            yield model.Extent(start, end - start, extent.exists)
