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

"""Items in, an image out: several writes in flight, never two of one place."""

from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model, units
from osc_backup_port.transfer import aio, limits

#: librbd counts the length of one operation in 32 bits here and there.
_LARGEST_ZERO = units.GIB


def write_items(
    image: aio.AioSink,
    items: Iterable[model.Item],
    bounds: limits.Limits = limits.DEFAULT,
) -> None:
    """Write *items* to *image* and flush it.

    Items are pulled no faster than they can be written.  Two that touch the
    same place are written one after the other, in their order.  The first
    error wins: nothing more is submitted, what is in flight is waited for.

    :raises CephError: a write failed
    """
    writer = _Writer(image, bounds)
    try:
        for item in items:
            for piece in _pieces(item):
                writer.submit(piece)
        writer.drain()
    except BaseException:
        # A signal may have ended the draining, too.
        writer.drain()
        raise
    if writer.error is not None:
        raise writer.error
    image.flush()


def _pieces(item: model.Item) -> Iterator[model.Item]:
    if isinstance(item, model.Data) or item.length <= _LARGEST_ZERO:
        yield item
        return
    end = item.offset + item.length
    for offset in range(item.offset, end, _LARGEST_ZERO):
        yield model.Zero(offset, min(_LARGEST_ZERO, end - offset))


class _Writer:
    def __init__(self, image: aio.AioSink, bounds: limits.Limits) -> None:
        self._image = image
        self._bounds = bounds
        self._in_flight = aio.InFlight()
        self.error: errors.CephError | None = None

    def submit(self, item: model.Item) -> None:
        while len(self._in_flight) >= self._bounds.requests or self._is_busy(item):
            self._reap()
        if self.error is not None:
            raise self.error
        if isinstance(item, model.Data):
            request = aio.Request(self._in_flight.queue, item.offset, item.length, item.data)
            self._image.aio_write(item.data, item.offset, request.write_done)
        else:
            request = aio.Request(self._in_flight.queue, item.offset, item.length)
            self._image.aio_write_zeroes(item.offset, item.length, request.write_done)
        self._in_flight.add(request)

    def _is_busy(self, item: model.Item) -> bool:
        return any(request.overlaps(item.offset, item.length) for request in self._in_flight)

    def _reap(self) -> None:
        for request in self._in_flight.wait():
            try:
                request.check_written(self._image)
            except errors.CephError as error:
                self.error = self.error or error

    def drain(self) -> None:
        while self._in_flight:
            self._reap()
