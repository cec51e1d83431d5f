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

"""Extents of an image in, its bytes out: in order, several reads in flight."""

import collections
import contextlib
from collections.abc import Generator, Iterable, Iterator

from osc_backup_port import model
from osc_backup_port.transfer import aio, limits, zeros


def read_items(
    image: aio.AioSource,
    extents: Iterable[model.Extent],
    bounds: limits.Limits = limits.DEFAULT,
) -> Generator[model.Item, None, None]:
    """Yield what *extents* hold, in their order, zero blocks found.

    Reads run ahead of the consumer, as far as *bounds* allow; pulling is the
    back-pressure.  Closing the iterator waits for what is in flight.

    :raises CephError: a read failed or came back short
    """
    reader = _Reader(image, bounds)
    with contextlib.closing(reader):
        for extent in _split(extents, bounds.request_size):
            reader.submit(extent)
            while reader.is_full():
                yield from reader.next_items()
        while reader.has_more():
            yield from reader.next_items()


def _split(extents: Iterable[model.Extent], size: int) -> Iterator[model.Extent]:
    """Cut extents with data where multiples of *size* lie, as objects do."""
    for extent in extents:
        if not extent.exists:
            yield extent
            continue
        offset, end = extent.offset, extent.offset + extent.length
        while offset < end:
            cut = min(end, offset - offset % size + size)
            yield model.Extent(offset, cut - offset, True)
            offset = cut


class _Reader:
    """The reorder window: pieces wait here until it is their turn."""

    def __init__(self, image: aio.AioSource, bounds: limits.Limits) -> None:
        self._image = image
        self._bounds = bounds
        self._window: collections.deque[aio.Request | model.Zero] = collections.deque()
        self._in_flight = aio.InFlight()

    def submit(self, extent: model.Extent) -> None:
        if not extent.exists:
            self._window.append(model.Zero(extent.offset, extent.length))
            return
        request = aio.Request(self._in_flight.queue, extent.offset, extent.length)
        self._image.aio_read(request.offset, request.length, request.read_done)
        self._in_flight.add(request)
        self._window.append(request)

    def is_full(self) -> bool:
        return (
            len(self._in_flight) >= self._bounds.requests
            or len(self._window) >= self._bounds.window
        )

    def has_more(self) -> bool:
        return bool(self._window)

    def next_items(self) -> Iterator[model.Item]:
        """Wait for one read if the first piece needs it; yield what is ready."""
        if not self._is_ready():
            self._in_flight.wait()
        while self._window and self._is_ready():
            piece = self._window.popleft()
            if isinstance(piece, model.Zero):
                yield piece
            else:
                self._in_flight.take_finished()
                piece.check_read(self._image)
                yield from zeros.find_zeros(piece.offset, piece.data or b'')

    def _is_ready(self) -> bool:
        first = self._window[0]
        return isinstance(first, model.Zero) or first.is_finished

    def close(self) -> None:
        while self._in_flight:
            self._in_flight.wait()
