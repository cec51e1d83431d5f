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

"""Requests to an image, and who may be asked.

The two protocols are the part of ``rbd.Image`` that the engine uses, so that
a real image is handed in as it is.
"""

import contextlib
import os
import queue
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from osc_backup_port import errors


class AioCompletion(Protocol):
    def get_return_value(self) -> int: ...


@runtime_checkable
class Explaining(Protocol):
    """An image that knows why a request to it fails."""

    def explain(self, what: str, code: int) -> errors.CephError: ...


class AioSource(Protocol):
    """An image that can be read."""

    def aio_read(
        self,
        offset: int,
        length: int,
        oncomplete: Callable[[AioCompletion, bytes | None], None],
    ) -> Any: ...


class AioSink(Protocol):
    """An image that can be written."""

    def aio_write(
        self, data: bytes, offset: int, oncomplete: Callable[[AioCompletion], None]
    ) -> Any: ...

    def aio_write_zeroes(
        self, offset: int, length: int, oncomplete: Callable[[AioCompletion], None]
    ) -> Any: ...

    def flush(self) -> None: ...


Queue = queue.SimpleQueue['Request']


class Request:
    """One operation under way.

    It owns its buffer until :meth:`check` was called, because librbd does not
    copy what it is given.  The callbacks run in a thread of librbd, where an
    exception would be lost: they only put the request into its queue.
    """

    __slots__ = ('completion', 'data', 'length', 'offset', 'queue', 'value')

    def __init__(self, done: Queue, offset: int, length: int, data: bytes | None = None) -> None:
        self.queue = done
        self.offset = offset
        self.length = length
        self.data = data
        self.completion: AioCompletion | None = None
        self.value: int | None = None

    @property
    def is_finished(self) -> bool:
        return self.completion is not None or self.value is not None

    def settle(self) -> None:
        """Take the result out of the completion, and let go of that.

        It knows this request, and the bytes that were read: as long as they
        know each other, only the cycle collector would free either, and that
        comes when hundreds of MiB have gathered.
        """
        if self.completion is not None:
            self.value = self.completion.get_return_value()
            self.completion = None

    def read_done(self, completion: AioCompletion, data: bytes | None) -> None:
        self.completion = completion
        self.data = data
        self.queue.put(self)

    def write_done(self, completion: AioCompletion) -> None:
        self.completion = completion
        self.queue.put(self)

    def overlaps(self, offset: int, length: int) -> bool:
        return offset < self.offset + self.length and self.offset < offset + length

    def check_read(self, image: AioSource) -> None:
        """Raise ``CephError`` unless all of the bytes asked for have come from *image*."""
        found = self._return_value('read', image)
        if self.data is None or found != self.length or len(self.data) != self.length:
            raise errors.CephError(
                f'Read at offset {self.offset}: asked for {self.length} bytes, got {found}.'
            )

    def check_written(self, image: AioSink) -> None:
        """Raise ``CephError`` unless the write to *image* was carried out."""
        self._return_value('write', image)

    def _return_value(self, verb: str, image: object) -> int:
        self.settle()
        value = self.value
        if value is None:
            raise errors.CephError(f'The {verb} at offset {self.offset} was not completed.')
        if value < 0:
            what = f'the {verb} of {self.length} bytes at offset {self.offset}'
            if isinstance(image, Explaining):
                raise image.explain(what, -value)
            raise errors.CephError(
                f'{what} failed: {os.strerror(-value)}.',
                'Look at the health of the cluster: ceph status',
            )
        return value


class InFlight:
    """The requests that are under way.

    Whether one has come back is told by the request itself.  The queue only
    wakes: a signal may end our work just when something was taken out of it,
    and nothing must wait for ever then for what was lost.
    """

    def __init__(self) -> None:
        self.queue: Queue = queue.SimpleQueue()
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def add(self, request: Request) -> None:
        self._requests.append(request)

    def take_finished(self) -> list[Request]:
        """Return those that have come back, and forget them."""
        # First the queue, then the requests: what comes in between is seen.
        with contextlib.suppress(queue.Empty):
            while True:
                self.queue.get_nowait()
        finished = [request for request in self._requests if request.is_finished]
        if finished:
            self._requests = [request for request in self._requests if request not in finished]
        for request in finished:
            request.settle()
        return finished

    def wait(self) -> list[Request]:
        """Wait until one has come back, if any is under way; as above."""
        finished = self.take_finished()
        while self._requests and not finished:
            self.queue.get()
            finished = self.take_finished()
        return finished
