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

"""Writes overtake each other, but never where they touch the same place."""

import queue
import random
import threading
from collections.abc import Callable, Iterator

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.transfer import limits, writing
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit.test_transfer_reading import InterruptedQueue, within_seconds

SIZE = units.MIB
PIECE = 16 * 1024
BOUNDS = limits.Limits(requests=4, request_size=PIECE, window=6)

Done = Callable[[rbd.Completion], None]


class WatchedImage(rbd.Image):
    """Notes what was submitted, and what was in flight at that time."""

    def __init__(self, cluster: fake_ceph.Cluster) -> None:
        ioctx = cluster.connect()
        rbd.RBD().create(ioctx, 'image', SIZE, order=18)
        super().__init__(ioctx, 'image')
        self.submitted: list[tuple[int, int]] = []
        self.in_flight: list[tuple[int, int]] = []
        self.most = 0
        self.flushed = 0
        self._mutex = threading.Lock()

    def aio_write(self, data: bytes, offset: int, oncomplete: Done) -> rbd.Completion:
        place = self._note(offset, len(data))
        return super().aio_write(data, offset, lambda done: self._done(place, done, oncomplete))

    def aio_write_zeroes(self, offset: int, length: int, oncomplete: Done) -> rbd.Completion:
        place = self._note(offset, length)
        return super().aio_write_zeroes(
            offset, length, lambda done: self._done(place, done, oncomplete)
        )

    def flush(self) -> None:
        assert not self.in_flight
        self.flushed += 1
        super().flush()

    def _note(self, offset: int, length: int) -> tuple[int, int]:
        place = (offset, offset + length)
        with self._mutex:
            for start, end in self.in_flight:
                assert end <= place[0] or place[1] <= start, 'two of one place in flight'
            self.in_flight.append(place)
            self.submitted.append(place)
            self.most = max(self.most, len(self.in_flight))
        return place

    def _done(self, place: tuple[int, int], done: rbd.Completion, oncomplete: Done) -> None:
        with self._mutex:
            self.in_flight.remove(place)
        oncomplete(done)


@pytest.fixture
def image(cluster: fake_ceph.Cluster) -> WatchedImage:
    return WatchedImage(cluster)


def pieces(count: int) -> Iterator[model.Item]:
    # Made one by one: nobody but the engine has a hold of their bytes.
    return (model.Data(at * PIECE, bytes([at + 1]) * PIECE) for at in range(count))


def random_items(source: random.Random, count: int) -> list[model.Item]:
    items: list[model.Item] = []
    for _ in range(count):
        start = source.randrange(SIZE)
        length = min(source.choice([1, 100, 4096, 50_000]), SIZE - start)
        if source.random() < 0.3:
            items.append(model.Zero(start, length))
        else:
            items.append(model.Data(start, source.randbytes(length)))
    return items


def applied(items: list[model.Item]) -> bytes:
    content = bytearray(SIZE)
    for item in items:
        data = item.data if isinstance(item, model.Data) else bytes(item.length)
        content[item.offset : item.offset + item.length] = data
    return bytes(content)


@pytest.mark.parametrize('seed', range(5))
def test_overlapping_items_end_as_if_written_one_by_one(image: WatchedImage, seed: int) -> None:
    items = random_items(random.Random(seed), 150)

    writing.write_items(image, items, BOUNDS)

    assert image.read(0, SIZE) == applied(items)
    assert image.flushed == 1


def test_writes_run_at_once_but_not_more_than_allowed(
    image: WatchedImage, cluster: fake_ceph.Cluster
) -> None:
    cluster.worker.held = True
    release = threading.Timer(0.1, cluster.worker.let_go)
    release.start()

    writing.write_items(image, pieces(30), BOUNDS)

    assert image.most == BOUNDS.requests
    assert image.read(0, 30 * PIECE) == applied(list(pieces(30)))[: 30 * PIECE]


def test_items_are_pulled_no_faster_than_they_are_written(
    image: WatchedImage, cluster: fake_ceph.Cluster
) -> None:
    cluster.worker.held = True
    pulled: list[int] = []

    def slow() -> Iterator[model.Item]:
        for item in pieces(30):
            pulled.append(item.offset)
            yield item

    thread = threading.Thread(target=writing.write_items, args=(image, slow(), BOUNDS))
    thread.start()
    thread.join(0.1)

    assert len(pulled) == BOUNDS.requests + 1
    cluster.worker.let_go()
    thread.join(10)
    assert len(pulled) == 30


def test_nothing_is_submitted_after_an_error(
    image: WatchedImage, cluster: fake_ceph.Cluster
) -> None:
    failed: list[int] = []

    def hook(what: str) -> int:
        if what.startswith('aio_write'):
            failed.append(len(image.submitted))
            # Of several that fail together, any may be told.
            return 28 if len(failed) <= 2 else 0
        return 0

    cluster.hook = hook

    with pytest.raises(errors.CephError, match='No space left on device'):
        writing.write_items(image, pieces(60), BOUNDS)

    assert image.in_flight == []
    assert image.flushed == 0
    assert len(image.submitted) <= failed[0] + BOUNDS.requests


def test_an_error_of_the_last_write_is_seen(
    image: WatchedImage, cluster: fake_ceph.Cluster
) -> None:
    cluster.hook = lambda what: 5 if what.startswith('aio_write') else 0

    with pytest.raises(errors.CephError, match='offset 0 failed: Input/output error'):
        writing.write_items(image, pieces(1), BOUNDS)


def test_an_error_of_the_source_goes_on_as_it_is(image: WatchedImage) -> None:
    def torn() -> Iterator[model.Item]:
        yield from pieces(5)
        raise errors.TruncatedStream('cut')

    with pytest.raises(errors.TruncatedStream, match='cut'):
        writing.write_items(image, torn(), BOUNDS)

    assert image.in_flight == []
    assert image.flushed == 0


def test_a_signal_at_the_worst_moment_does_not_make_it_wait_for_ever(
    image: WatchedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, 'SimpleQueue', InterruptedQueue)

    ended = within_seconds(lambda: writing.write_items(image, pieces(20), BOUNDS))

    assert isinstance(ended, errors.Interrupted)
    assert image.in_flight == []


def test_zeros_longer_than_one_operation_may_be_are_cut(
    image: WatchedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, '_LARGEST_ZERO', 100_000)

    writing.write_items(image, [model.Data(0, b'x' * SIZE), model.Zero(5, SIZE - 10)], BOUNDS)

    assert image.read(0, SIZE) == b'x' * 5 + bytes(SIZE - 10) + b'x' * 5
    assert max(end - start for start, end in image.submitted[1:]) == 100_000


def test_the_fake_notices_a_buffer_that_nobody_keeps() -> None:
    """What the other tests rely on: this is the mistake that they would catch."""
    cluster = fake_ceph.Cluster()
    image = WatchedImage(cluster)
    done = threading.Event()

    rbd.Image.aio_write(image, bytes([7]) * 1000, 0, lambda completion: done.set())

    assert done.wait(10)
    cluster.close()
    assert cluster.worker.lost_buffers == ['aio_write image']
    assert image.read(0, 1000) != bytes([7]) * 1000
