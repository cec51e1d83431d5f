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

"""Where an image has data, and what changed since a snapshot.

From the beginning of time the object map of that point answers, where there is one that
can be trusted: one small read, however large the image and however many snapshots came
before.  (librbd 16 reads the maps of all of them, one after the other.)  Between snapshots
its answer cannot be trusted: whole objects were wrongly reported, and left out, by
several releases of librbd.  So there each object is asked for its own snapshots,
but only those that the object maps of the two points know of: an object that is at neither
of them has not changed.
"""

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from osc_backup_port import model, units
from osc_backup_port.ceph import headers

#: Extents are asked for in windows of this size, so that the first data flows
#: before a large image was looked through.
_WINDOW = 64 * units.GIB
#: The same where each object has to be asked for its snapshots, so that windows
#: lie side by side: librbd lets go of the interpreter while it asks.
_PRECISE_WINDOW = 256 * units.MIB
_SIDE_BY_SIDE = 8
#: Objects that are not there are asked too, where that saves a window.
_SMALL_GAP = 16 * units.MIB


class Surveyed(Protocol):
    """The image at another point in time."""

    def extents(self) -> Iterator[model.Extent]: ...

    def has_object_map(self) -> bool: ...


OpenAt = Callable[[str], contextlib.AbstractContextManager[Surveyed]]


class Survey:
    """Looks through one open image.

    :param translated: turns errors of librbd into ours
    :param open_at: opens the same image at one of its snapshots
    :param header: asks without librbd
    :param snapshot: at which the image is open; None: as it is now
    """

    def __init__(
        self,
        opened: Any,
        rbd: Any,
        translated: Callable[[], contextlib.AbstractContextManager[None]],
        open_at: OpenAt,
        header: headers.Headers,
        snapshot: str | None,
    ) -> None:
        self._image = opened
        self._rbd = rbd
        self._translated = translated
        self._open_at = open_at
        self._headers = header
        self._snapshot = snapshot
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    def end_threads(self) -> None:
        """Wait for what threads still ask the image; before it is closed."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def has_object_map(self) -> bool:
        """Tell whether there is one, of this point in time, that can be trusted."""
        return self._should_have_map() and not self._is_map_invalid()

    def has_invalid_object_map(self) -> bool:
        """Tell whether there should be one that cannot be trusted."""
        return self._should_have_map() and self._is_map_invalid()

    def _should_have_map(self) -> bool:
        wanted = self._rbd.RBD_FEATURE_OBJECT_MAP | self._rbd.RBD_FEATURE_FAST_DIFF
        with self._translated():
            return bool(self._image.features() & wanted == wanted)

    def _is_map_invalid(self) -> bool:
        invalid = self._rbd.RBD_FLAG_OBJECT_MAP_INVALID | self._rbd.RBD_FLAG_FAST_DIFF_INVALID
        with self._translated():
            return bool(self._image.flags() & invalid)

    def extents(self, from_snapshot: str | None) -> Iterator[model.Extent]:
        """Yield where the image has data, or what changed since a snapshot."""
        known = self._where_objects_are(from_snapshot) if self.has_object_map() else None
        size = self._size()
        if known is not None and from_snapshot is None:
            yield from (model.Extent(start, end - start, True) for start, end in known)
            return
        whole_object = from_snapshot is None and self.has_object_map()
        where: Iterable[tuple[int, int]] = [(0, size)]
        if known is not None:
            where = _or_some(_join(known), size)
        elif from_snapshot is not None and self.has_object_map():
            where = self._where_librbd_finds_objects(from_snapshot) or where
        for found in self._windows(where, from_snapshot, whole_object):
            yield from found

    def used(self, from_snapshot: str | None) -> int | None:
        """Return the bytes of whole objects; None without a map to trust."""
        if not self.has_object_map():
            return None
        known = self._where_objects_are(None) if from_snapshot is None else None
        if known is not None:
            return sum(end - start for start, end in known)
        where = [(0, self._size())]
        return sum(
            extent.length
            for found in self._windows(where, from_snapshot, True)
            for extent in found
            if extent.exists
        )

    def _where_objects_are(self, from_snapshot: str | None) -> Iterator[tuple[int, int]] | None:
        """Return where there are objects, at this point or at a snapshot; None: not known.

        Where objects are no pieces of the image, one behind the other, only librbd knows.
        """
        with self._translated():
            points = [
                headers.HEAD if name is None else int(self._image.snap_get_id(name))
                for name in dict.fromkeys((self._snapshot, from_snapshot or self._snapshot))
            ]
            if self._image.stripe_count() > 1 or self._image.overlap():
                return None
            unit, size = 1 << self._image.stat()['order'], int(self._image.size())
            maps = None
            with contextlib.suppress(headers.OddAnswer):
                maps = self._headers.object_maps(self._image.id(), points, size // unit + 1)
        if maps is None or maps[0].count * unit < size:
            return None
        for more in maps[1:]:
            maps[0].add(more)
        places = ((start * unit, min(end * unit, size)) for start, end in maps[0].runs())
        return (place for place in places if place[0] < place[1])

    def _where_librbd_finds_objects(self, from_snapshot: str) -> list[tuple[int, int]] | None:
        """Return the same, as librbd tells it, which opens the image once more."""
        with self._open_at(from_snapshot) as before:
            if not before.has_object_map():
                return None
            extents = [*self.extents(None), *before.extents()]
        size = self._size()
        used = (
            (extent.offset, min(extent.offset + extent.length, size))
            for extent in sorted(extents)
            if extent.exists and extent.offset < size
        )
        return list(_or_some(_join(used), size))

    def _windows(
        self, where: Iterable[tuple[int, int]], from_snapshot: str | None, whole_object: bool
    ) -> Iterator[list[model.Extent]]:
        """Yield the extents of each window in order, several of them asked for at once."""
        window = _WINDOW if whole_object else _PRECISE_WINDOW
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(_SIDE_BY_SIDE)
        ahead: collections.deque[concurrent.futures.Future[list[model.Extent]]]
        ahead = collections.deque()
        try:
            for start, end in where:
                for offset in range(start, end, window):
                    length = min(window, end - offset)
                    asked = (offset, length, from_snapshot, whole_object)
                    ahead.append(self._threads.submit(self._ask, *asked))
                    if len(ahead) > 2 * _SIDE_BY_SIDE:
                        yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _ask(
        self, offset: int, length: int, from_snapshot: str | None, whole_object: bool
    ) -> list[model.Extent]:
        found: list[model.Extent] = []

        def add(at: int, count: int, exists: bool) -> None:
            found.append(model.Extent(at, count, exists))

        with self._translated():
            self._image.diff_iterate(
                offset, length, from_snapshot, add, include_parent=True, whole_object=whole_object
            )
        # Objects go by in order, which is not the order of offsets in an image
        # with striping of its own.
        return sorted(found)

    def _size(self) -> int:
        with self._translated():
            return int(self._image.size())


def _join(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ascending ranges, those joined that lie close to each other."""
    joined: tuple[int, int] | None = None
    for start, end in ranges:
        if joined is not None and start <= joined[1] + _SMALL_GAP:
            joined = (joined[0], max(joined[1], end))
            continue
        if joined is not None:
            yield joined
        joined = (start, end)
    if joined is not None:
        yield joined


def _or_some(ranges: Iterator[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges; of nothing a bit, so that what cannot be answered is told."""
    first = next(ranges, (0, min(size, units.MIB)))
    yield first
    yield from ranges
