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

What a dead run left behind is used as far as it is whole: its segments, from
the first on, are read back and decoded, and the work goes on behind the last
record of them.  Extents go by in ascending order, so that nothing before that
record is missing.
"""

from collections.abc import Iterator

from osc_backup_port import errors, model
from osc_backup_port.archive import manifest, names, segments
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.formats import rbd_diff, stream
from osc_backup_port.transfer import differing, limits, metering, reading


class SegmentWriter:
    """Writes the segments of one increment into its folder.

    :ivar written: bytes that were put into the archive
    """

    def __init__(
        self,
        store: archive_store.Store,
        path: str,
        level: int | None,
        meter: metering.Meter,
        bounds: limits.Limits,
    ) -> None:
        self._store = store
        self._path = path
        self._level = level
        self._meter = meter
        self._bounds = bounds
        self.written = 0

    def write(self, image: ceph_image.Image, increment: model.Increment) -> list[manifest.Segment]:
        """Read from *image*, opened at the end of *increment*, and write segments.

        :param increment: tells where it starts; its items are not used
        """
        done, position, is_complete = self._resume(increment)
        if is_complete:
            return done
        records = self._records(image, increment, position, with_header=not done)
        size = manifest.segment_size(increment.size)
        in_order = not self._store.takes_any_order
        for segment in segments.pack(records, self._level, self._put, len(done), size, in_order):
            self.written += segment.size
            done.append(segment)
        return done

    def _put(self, packed: segments.Packed) -> None:
        self._store.put(f'{self._path}/{packed.segment.name}', packed.content)

    def _records(
        self, image: ceph_image.Image, increment: model.Increment, position: int, with_header: bool
    ) -> Iterator[tuple[bytes, ...]]:
        if with_header:
            yield (rbd_diff.encode_header(increment),)
        extents = _behind(position, image.extents(increment.from_snap))
        items = self._meter.watch(reading.read_items(image, extents, self._bounds), increment.size)
        if increment.from_snap is None:
            items = differing.drop_zeros(items)
        yield from rbd_diff.encode_items(items)
        yield (rbd_diff.END,)

    def _resume(self, increment: model.Increment) -> tuple[list[manifest.Segment], int, bool]:
        """Return the whole segments of a dead run, and remove the others.

        Also where their last record ends, and whether they are all there are.
        """
        found = {}
        for entry in self._store.entries(self._path):
            number = names.parse_segment(entry.name)
            if number is not None:
                found[number] = entry.name
            elif names.is_part(entry.name):
                self._store.delete(f'{self._path}/{entry.name}')
        done: list[manifest.Segment] = []
        position, is_complete = 0, False
        while not is_complete and len(done) in found:
            try:
                segment, end, is_complete = self._read_back(found[len(done)], len(done), increment)
            except errors.InvalidInput:
                break
            position = max(position, end)
            done.append(segment)
        for number, name in found.items():
            if number >= len(done):
                self._store.delete(f'{self._path}/{name}')
        return done, position, is_complete

    def _read_back(
        self, name: str, number: int, increment: model.Increment
    ) -> tuple[manifest.Segment, int, bool]:
        """Return a segment, where its last record ends, and whether it is the last.

        :raises InvalidInput: it is not whole, or is of another increment
        """
        path = f'{self._path}/{name}'
        content = self._store.get(path, manifest.MAX_SEGMENT_SIZE) or b''
        segment, raw = segments.describe(name, content, path)
        if names.is_compressed(name) != (self._level is not None):
            raise errors.InvalidInput(f'{path}: was compressed in another way.')
        if not raw:
            raise errors.InvalidInput(f'{path}: is empty.')
        reader = stream.Reader(segments.Chunks(iter([raw])), path, False)
        if number == 0:
            header = rbd_diff.read_header(reader)
            if (header.from_snap, header.to_snap, header.size) != (
                increment.from_snap,
                increment.to_snap,
                increment.size,
            ):
                raise errors.InvalidInput(f'{path}: is of another increment.')
        part = rbd_diff.Part(reader, increment.size)
        end = max((item.offset + item.length for item in part), default=0)
        return segment, end, part.is_last


def _behind(position: int, extents: Iterator[model.Extent]) -> Iterator[model.Extent]:
    """Yield what lies behind *position*."""
    for extent in extents:
        end = extent.offset + extent.length
        start = max(extent.offset, position)
        if start < end:
            yield model.Extent(start, end - start, extent.exists)
