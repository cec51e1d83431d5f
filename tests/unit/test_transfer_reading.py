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

"""Reads run ahead, arrive in order, and never more of them than allowed."""

import gc
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from osc_backup_port import errors, model
from osc_backup_port.transfer import aio, limits, reading
from tests.fakes import rbd

SIZE = 64 * 1024
BOUNDS = limits.Limits(requests=4, request_size=SIZE, window=6)

Answer = Callable[[rbd.Completion, bytes | None], None]


def content(offset: int, length: int) -> bytes:
    return bytes([1 + offset // SIZE % 250]) * length


class SlowImage:
    """Answers reads when :meth:`answer` is called; its count of both."""

    def __init__(self, automatic: bool = True) -> None:
        self.asked: list[int] = []
        self.answered: list[int] = []
        self.failing: dict[int, int] = {}
        self.short: set[int] = set()
        self.waiting: dict[int, tuple[int, Answer]] = {}
        self._automatic = automatic

    def aio_read(self, offset: int, length: int, oncomplete: Answer) -> None:
        self.asked.append(offset)
        self.waiting[offset] = (length, oncomplete)
        if self._automatic:
            threading.Timer(0.002 * (self.asked.index(offset) % 3), self.answer, [offset]).start()

    def answer(self, offset: int) -> None:
        length, oncomplete = self.waiting.pop(offset)
        self.answered.append(offset)
        if offset in self.failing:
            oncomplete(rbd.Completion(-self.failing[offset]), None)
            return
        data = content(offset, length)
        if offset in self.short:
            data = data[:-1]
        oncomplete(rbd.Completion(len(data)), data)


def extents(count: int) -> Iterator[model.Extent]:
    return iter([model.Extent(number * SIZE, SIZE, True) for number in range(count)])


def expected(count: int) -> list[model.Item]:
    return [model.Data(number * SIZE, content(number * SIZE, SIZE)) for number in range(count)]


def within_seconds(work: Callable[[], Any], seconds: float = 10) -> Any:
    """Return what *work* returns; a hanging one fails the test and nothing else."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, 'still running'
    return results[0]


def test_items_come_in_the_order_of_the_extents() -> None:
    image = SlowImage()

    items = list(reading.read_items(image, extents(40), BOUNDS))

    assert items == expected(40)
    assert image.answered != image.asked, 'nothing overtook anything: this proves nothing'


def test_no_more_than_the_allowed_requests_are_in_flight() -> None:
    image = SlowImage(automatic=False)
    found: list[model.Item] = []
    thread = threading.Thread(
        target=lambda: found.extend(reading.read_items(image, extents(20), BOUNDS)), daemon=True
    )
    thread.start()
    most = 0
    while len(image.answered) < 20:
        thread.join(0.005)
        most = max(most, len(image.waiting))
        # The last first, so that the window fills up too.
        for offset in list(image.waiting)[-1:]:
            image.answer(offset)
    thread.join(10)

    assert most == BOUNDS.requests
    assert found == expected(20)


def test_no_more_than_the_window_waits_behind_a_slow_read() -> None:
    held: list[int] = []

    class FirstIsSlow(SlowImage):
        def aio_read(self, offset: int, length: int, oncomplete: Answer) -> None:
            super().aio_read(offset, length, oncomplete)
            if offset:
                self.answer(offset)
            else:
                threading.Timer(0.1, self._answer_first).start()

        def _answer_first(self) -> None:
            held.append(len(self.asked))
            self.answer(0)

    image = FirstIsSlow(automatic=False)

    delivered = 0
    for _item in reading.read_items(image, extents(30), BOUNDS):
        delivered += 1
        assert len(image.asked) - delivered <= BOUNDS.window
    assert held == [BOUNDS.window]
    assert delivered == 30


def test_nothing_is_read_ahead_of_a_consumer_that_does_not_pull() -> None:
    image = SlowImage()
    items = reading.read_items(image, extents(100), BOUNDS)

    first = next(items)
    asked = len(image.asked)
    threading.Event().wait(0.05)

    assert first == expected(1)[0]
    assert len(image.asked) == asked <= BOUNDS.window
    items.close()  # type: ignore[attr-defined]


def test_large_extents_are_cut_where_objects_are() -> None:
    image = SlowImage()

    items = list(reading.read_items(image, [model.Extent(SIZE - 10, SIZE + 30, True)], BOUNDS))

    assert image.asked == [SIZE - 10, SIZE, 2 * SIZE]
    assert [(item.offset, item.length) for item in items] == [
        (SIZE - 10, 10),
        (SIZE, SIZE),
        (2 * SIZE, 20),
    ]


def test_holes_keep_their_place_and_are_not_read() -> None:
    image = SlowImage()
    mixed = [
        model.Extent(0, SIZE, True),
        model.Extent(SIZE, 10 * SIZE, False),
        model.Extent(11 * SIZE, SIZE, True),
    ]

    items = list(reading.read_items(image, mixed, BOUNDS))

    assert image.asked == [0, 11 * SIZE]
    assert items[1] == model.Zero(SIZE, 10 * SIZE)
    assert [item.offset for item in items] == [0, SIZE, 11 * SIZE]


@pytest.mark.parametrize('failing', [0, 3, 11])
def test_a_failed_read_is_told_in_its_place_and_the_rest_is_waited_for(failing: int) -> None:
    image = SlowImage()
    image.failing[failing * SIZE] = 5
    delivered: list[model.Item] = []

    with pytest.raises(errors.CephError, match=f'offset {failing * SIZE} failed: Input/output'):
        delivered.extend(reading.read_items(image, extents(12), BOUNDS))

    assert delivered == expected(failing)
    assert sorted(image.answered) == sorted(image.asked)


def test_a_short_read_is_an_error() -> None:
    image = SlowImage()
    image.short.add(2 * SIZE)

    with pytest.raises(errors.CephError, match=f'asked for {SIZE} bytes, got {SIZE - 1}'):
        list(reading.read_items(image, extents(5), BOUNDS))

    assert sorted(image.answered) == sorted(image.asked)


def test_closing_early_waits_for_what_is_in_flight() -> None:
    image = SlowImage()
    items = reading.read_items(image, extents(50), BOUNDS)
    next(items)

    items.close()  # type: ignore[attr-defined]

    assert sorted(image.answered) == sorted(image.asked)
    assert len(image.asked) < 50


def test_a_read_that_is_refused_at_once_lets_the_others_end() -> None:
    image = SlowImage()
    ask = image.aio_read

    def aio_read(offset: int, length: int, oncomplete: Answer) -> None:
        if offset == 2 * SIZE:
            raise errors.CephError('closed')
        ask(offset, length, oncomplete)

    image.aio_read = aio_read  # type: ignore[method-assign]

    with pytest.raises(errors.CephError, match='closed'):
        list(reading.read_items(image, extents(5), BOUNDS))

    assert sorted(image.answered) == sorted(image.asked) == [0, SIZE]


def test_what_has_come_back_is_not_held_any_more() -> None:
    """A queue that nobody empties would hold the bytes of a whole image."""
    in_flight = aio.InFlight()
    requests = [aio.Request(in_flight.queue, number, 1) for number in range(3)]
    for request in requests:
        in_flight.add(request)
    requests[2].read_done(rbd.Completion(1), b'x')
    requests[0].read_done(rbd.Completion(1), b'y')

    assert in_flight.take_finished() == [requests[0], requests[2]]
    assert in_flight.queue.empty()
    assert list(in_flight) == [requests[1]]


class InterruptedQueue(queue.SimpleQueue[Any]):
    """A signal arrives just when something was taken from the queue, for the first time."""

    is_interrupted = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        if not self.is_interrupted:
            self.is_interrupted = True
            raise errors.Interrupted('Stopped by SIGTERM.')
        return item


def test_a_signal_at_the_worst_moment_does_not_make_it_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, 'SimpleQueue', InterruptedQueue)
    image = SlowImage()

    ended = within_seconds(lambda: list(reading.read_items(image, extents(60), BOUNDS)))

    assert isinstance(ended, errors.Interrupted)
    assert sorted(image.answered) == sorted(image.asked)


def test_what_was_read_is_freed_without_the_cycle_collector() -> None:
    """A completion knows its callback, and so the request: that must not last."""

    class Piece(bytes):
        pass

    class KnowingCompletion(rbd.Completion):
        callback: Any = None

    held: list[weakref.ref[Any]] = []

    class Image(SlowImage):
        def aio_read(self, offset: int, length: int, oncomplete: Answer) -> None:
            completion, data = KnowingCompletion(length), Piece(b'x' * length)
            completion.callback = oncomplete
            held.append(weakref.ref(completion))
            oncomplete(completion, data)

    gc.collect()
    gc.disable()
    try:
        alive = [
            sum(reference() is not None for reference in held)
            for _item in reading.read_items(Image(), extents(30), BOUNDS)
        ]
    finally:
        gc.enable()

    assert max(alive) <= BOUNDS.window
    assert not any(reference() for reference in held)
