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

"""Seeing that what was written reads as what came in.

A stream from a pipe cannot be read twice.  So a checksum of each piece is kept
while it goes by, some hundred bytes for 4 MiB, and compared with what is read
back: one read of all that was written.
"""

import contextlib
import sys
import zlib
from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model, progress
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.transfer import limits, ranges, reading, zeros

_ZEROS = bytes(1 << 20)


class Witness:
    """Remembers the items of one increment.

    :param from_nothing: what no item names has to be zero
    """

    def __init__(self, from_nothing: bool) -> None:
        self._from_nothing = from_nothing
        #: Start, end and checksum; None for zeros, which count where data was before.
        self._notes: list[tuple[int, int, int | None]] = []
        self._has_replaced = False
        self._written = ranges.Ranges()
        self._zeros = ranges.Ranges()

    def watch(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        """Hand on all items, and remember them."""
        for item in items:
            start, end = item.offset, item.offset + item.length
            replaces = list(self._written.gaps(start, end)) != [(start, end)]
            self._has_replaced = self._has_replaced or replaces
            if isinstance(item, model.Data):
                self._notes.append((start, end, zlib.crc32(item.data)))
                self._written.add(start, end)
                self._zeros.remove(start, end)
            else:
                if replaces:
                    self._notes.append((start, end, None))
                self._written.remove(start, end)
                self._zeros.add(start, end)
            yield item

    def _data(self) -> list[tuple[int, int, int]]:
        """Return start, length and checksum of the data of which nothing was replaced.

        Items count in their order, as with ``rbd import-diff``: the last one of a place.  The
        checksum of an earlier one means nothing then.
        """
        later, found = ranges.Ranges(), []
        for start, end, crc in reversed(self._notes):
            if crc is not None and list(later.gaps(start, end)) == [(start, end)]:
                found.append((start, end - start, crc))
            if self._has_replaced:
                later.add(start, end)
        return found[::-1]

    def compare(
        self, image: ceph_image.Image, bounds: limits.Limits, shown: progress.Progress
    ) -> errors.InvalidInput | None:
        """Read everything back from *image*, opened at the end of the increment.

        :return: in what it differs from what came in
        """
        data = self._data()
        shown.begin('Reading back', sum(length for _start, length, _crc in data))
        extents = (model.Extent(start, length, True) for start, length, _crc in data)
        # Reads are under way when a difference is found: they end before the image is closed.
        with contextlib.closing(reading.read_items(image, extents, bounds)) as pieces:
            offset = _first_difference(data, pieces, shown)
        if offset is None:
            holes = self._expected_holes(image)
            with contextlib.closing(reading.read_items(image, holes, bounds)) as pieces:
                found = (piece.offset for piece in pieces if isinstance(piece, model.Data))
                offset = next(found, None)
        return None if offset is None else differs(f'Image {image.name}', offset)

    def compare_items(
        self, where: str, items: Iterable[model.Item], shown: progress.Progress
    ) -> errors.InvalidInput | None:
        """Compare with the items of the increment, as they were read back, in ascending order.

        :param where: what to call it in the error
        :return: in what they differ from what came in
        """
        data = sorted(self._data())
        shown.begin('Reading back', sum(length for _start, length, _crc in data))
        covered = ranges.Ranges()
        offset = _first_difference(data, _cut_as(data, _covering(covered, items)), shown)
        if offset is None and not self._from_nothing:
            # Where a zero is lost, what was there before comes back.
            lost = (low for start, end in self._zeros for low, _high in covered.gaps(start, end))
            offset = next(lost, None)
        return None if offset is None else differs(where, offset)

    def _expected_holes(self, image: ceph_image.Image) -> Iterator[model.Extent]:
        """Yield what has data, or may have, and should read as zeros."""
        for extent in image.extents():
            if not extent.exists:
                continue
            start, end = extent.offset, extent.offset + extent.length
            if self._from_nothing:
                gaps = self._written.gaps(start, end)
            else:
                gaps = self._zeros.overlaps(start, end)
            for low, high in gaps:
                yield model.Extent(low, high - low, True)


def _first_difference(
    data: list[tuple[int, int, int]], pieces: Iterator[model.Item], shown: progress.Progress
) -> int | None:
    """Return where *pieces*, cut where *data* are, do not have their checksums."""
    for start, length, expected in data:
        found, end = 0, start
        while end < start + length:
            piece = next(pieces, None)
            if piece is None or piece.offset != end:
                return end
            found = _crc(piece, found)
            end += piece.length
        if found != expected:
            return start
        shown.advance(length)
    # Data where none came in.
    left = next((piece for piece in pieces if isinstance(piece, model.Data)), None)
    return None if left is None else left.offset


def _cut_as(data: list[tuple[int, int, int]], items: Iterable[model.Item]) -> Iterator[model.Item]:
    """Cut items where ranges begin and end; outside of them zeros are left out."""
    ahead = iter(data)
    low, high = 0, 0
    for item in zeros.split_zeros(items):
        at, end = item.offset, item.offset + item.length
        while at < end:
            while high <= at:
                low, length, _checksum = next(ahead, (sys.maxsize, 1, 0))
                high = low + length
            is_inside = low <= at
            stop = min(end, high if is_inside else low)
            piece: model.Item = model.Zero(at, stop - at)
            if isinstance(item, model.Data):
                piece = model.Data(at, item.data[at - item.offset : stop - item.offset])
            if is_inside or (isinstance(piece, model.Data) and not zeros.is_zero(piece.data)):
                yield piece
            at = stop


def _covering(covered: ranges.Ranges, items: Iterable[model.Item]) -> Iterator[model.Item]:
    """Hand on all items, and note where they are."""
    for item in items:
        covered.add(item.offset, item.offset + item.length)
        yield item


def _crc(piece: model.Item, crc: int) -> int:
    if isinstance(piece, model.Data):
        return zlib.crc32(piece.data, crc)
    for at in range(0, piece.length, len(_ZEROS)):
        crc = zlib.crc32(_ZEROS[: piece.length - at], crc)
    return crc


def differs(where: str, offset: int) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{where}: does not read as what was written, at offset {offset}.',
        'What was written is removed. Look at the health of what it was written to, then try '
        'again.',
    )
