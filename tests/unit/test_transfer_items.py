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

"""What is done to the items on their way: against plain bytes, for any of them."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osc_backup_port import model, progress, units
from osc_backup_port.transfer import differing, metering, zeros
from osc_backup_port.transfer import ranges as range_sets

SIZE = 8 * zeros.BLOCK


def applied(items: list[model.Item], start: bytes = bytes(SIZE)) -> bytes:
    content = bytearray(start)
    for item in items:
        data = item.data if isinstance(item, model.Data) else bytes(item.length)
        content[item.offset : item.offset + item.length] = data
    return bytes(content)


@st.composite
def contents(draw: st.DrawFn, size: int = SIZE) -> bytes:
    """Bytes with long runs of zeros, and some that are not so long."""
    content = bytearray(size)
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, size - 1))
        length = draw(st.sampled_from([1, 5, 4096, zeros.BLOCK, 2 * zeros.BLOCK + 1]))
        fill = draw(st.integers(0, 2))
        content[start : start + length] = bytes([fill]) * min(length, size - start)
    return bytes(content)


@st.composite
def items_of_an_image(draw: st.DrawFn) -> list[model.Item]:
    """Items in any order, over each other too: a stream from elsewhere may be so."""
    places = [0, 1, zeros.BLOCK, 3 * zeros.BLOCK, SIZE - 1]
    found: list[model.Item] = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.sampled_from(places))
        length = min(draw(st.sampled_from([1, 4096, zeros.BLOCK, 150_000])), SIZE - start)
        if draw(st.booleans()):
            found.append(model.Zero(start, length))
        else:
            found.append(model.Data(start, bytes([draw(st.integers(0, 2))]) * length))
    return found


@given(data=contents(), offset=st.integers(0, 3 * zeros.BLOCK))
@settings(deadline=None)
def test_find_zeros_changes_nothing_and_leaves_no_zero_block(data: bytes, offset: int) -> None:
    items = list(zeros.find_zeros(offset, data))

    at = offset
    for item in items:
        assert item.offset == at
        assert item.length > 0
        at += item.length
    assert at == offset + len(data)
    moved = [item._replace(offset=item.offset - offset) for item in items]
    assert _same(applied(moved), data)
    for before, after in itertools.pairwise(items):
        assert type(before) is not type(after), 'two neighbours of one kind'
    for item in items:
        if isinstance(item, model.Data):
            first = -(-item.offset // zeros.BLOCK) * zeros.BLOCK
            for block in range(first, item.offset + item.length - zeros.BLOCK + 1, zeros.BLOCK):
                start = block - item.offset
                assert item.data[start : start + zeros.BLOCK].strip(b'\0')


def test_find_zeros_copies_nothing_where_all_is_data() -> None:
    data = b'x' * SIZE

    (item,) = zeros.find_zeros(0, data)

    assert isinstance(item, model.Data)
    assert item.data is data


@pytest.mark.parametrize('size', [1, 4 * units.MIB - 1, 4 * units.MIB, 9 * units.MIB])
def test_is_zero_looks_at_every_byte(size: int) -> None:
    assert zeros.is_zero(bytes(size))
    for at in (0, size // 2, size - 1):
        assert not zeros.is_zero(bytes(at) + b'x' + bytes(size - at - 1))


def test_is_zero_looks_at_a_part_only() -> None:
    data = b'xx' + bytes(10) + b'x'

    assert zeros.is_zero(data, 2, 12)
    assert not zeros.is_zero(data, 2)
    assert not zeros.is_zero(data, 1, 12)


@given(items=items_of_an_image())
@settings(deadline=None)
def test_split_zeros_changes_nothing(items: list[model.Item]) -> None:
    assert _same(applied(list(zeros.split_zeros(items))), applied(items))


@given(items=items_of_an_image())
@settings(deadline=None)
def test_drop_zeros_is_right_on_an_image_that_is_new(items: list[model.Item]) -> None:
    assert _same(applied(list(differing.drop_zeros(items))), applied(items))


def test_drop_zeros_leaves_data_alone_where_items_are_in_order() -> None:
    items: list[model.Item] = [
        model.Zero(0, 5),
        model.Data(5, b'x'),
        model.Zero(6, 100),
        model.Data(106, b'y'),
    ]

    assert list(differing.drop_zeros(items)) == [items[1], items[3]]


class Image:
    """What is there; *late* writes are seen by nobody until the end."""

    def __init__(self, content: bytes, late: bool) -> None:
        self.start = content
        self.written: list[model.Item] = []
        self._late = late

    def read(self, offset: int, length: int) -> bytes:
        return self._seen()[offset : offset + length]

    def extents(self) -> Iterator[model.Extent]:
        # Objects of three blocks, as an object map tells them.
        seen, size = self._seen(), 3 * zeros.BLOCK
        for at in range(0, SIZE, size):
            if seen[at : at + size].strip(b'\0'):
                yield model.Extent(at, min(size, SIZE - at), True)
            else:
                yield model.Extent(at, min(size, SIZE - at), False)

    def _seen(self) -> bytes:
        return self.start if self._late else applied(self.written, self.start)


@given(there=contents(), items=items_of_an_image(), late=st.booleans())
@settings(deadline=None, max_examples=400)
def test_differing_items_make_the_image_what_the_items_are(
    there: bytes, items: list[model.Item], late: bool
) -> None:
    """Also when writes are under way that a read does not see yet."""
    image = Image(there, late)

    for item in differing.differing_items(items, image):
        image.written.append(item)

    assert _same(applied(image.written, there), applied(items))


def test_what_was_there_before_two_writes_is_not_taken_for_their_result() -> None:
    image = Image(b'B' + bytes(SIZE - 1), late=True)
    items: list[model.Item] = [model.Data(0, b'A'), model.Zero(0, 1), model.Data(0, b'B')]

    image.written.extend(differing.differing_items(items, image))

    assert _same(applied(image.written, image.start), applied(items))


def _same(one: bytes, other: bytes) -> bool:
    """Compare without half a megabyte of explanation."""
    return one == other


def test_what_is_the_same_is_not_written() -> None:
    blocks = [bytes([number + 1]) * zeros.BLOCK for number in range(8)]
    there = b''.join(blocks)
    changed = there[: 3 * zeros.BLOCK] + b'new' + there[3 * zeros.BLOCK + 3 :]

    same = list(differing.differing_items([model.Data(0, there)], Image(there, False)))
    other = list(differing.differing_items([model.Data(0, changed)], Image(there, False)))

    assert same == []
    block = changed[3 * zeros.BLOCK : 4 * zeros.BLOCK]
    assert other == [model.Data(3 * zeros.BLOCK, block)]


def test_zeros_are_written_only_where_there_is_something() -> None:
    there = bytes(3 * zeros.BLOCK) + b'x' + bytes(SIZE - 3 * zeros.BLOCK - 1)

    items = list(differing.differing_items([model.Zero(0, SIZE)], Image(there, False)))

    assert items == [model.Zero(3 * zeros.BLOCK, 3 * zeros.BLOCK)]


@given(seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_ranges_are_a_set_of_numbers(seed: int) -> None:
    source = random.Random(seed)
    ranges, numbers = range_sets.Ranges(), set[int]()
    for _ in range(20):
        start = source.randrange(50)
        end = start + source.randrange(1, 12)
        if source.random() < 0.6:
            ranges.add(start, end)
            numbers |= set(range(start, end))
        else:
            ranges.remove(start, end)
            numbers -= set(range(start, end))

        low = source.randrange(50)
        high = low + source.randrange(30)
        missing = {at for first, last in ranges.gaps(low, high) for at in range(first, last)}
        assert missing == set(range(low, high)) - numbers
        stored = [*zip(ranges._starts, ranges._ends, strict=True)]
        assert stored == sorted(stored)
        assert all(first < last for first, last in stored)
        assert all(one[1] < two[0] for one, two in itertools.pairwise(stored))


class Shown(progress.Silent):
    def __init__(self) -> None:
        self.moved = self.skipped = 0

    def advance(self, moved: int, skipped: int = 0) -> None:
        self.moved += moved
        self.skipped += skipped


def test_the_meter_counts_what_moved_and_all_the_rest() -> None:
    shown = Shown()
    meter = metering.Meter(shown)
    items: list[model.Item] = [
        model.Data(10, b'x' * 5),
        model.Zero(20, 10),
        model.Data(30, b'y' * 7),
    ]

    assert list(meter.watch(items, 100)) == items

    assert (meter.moved, meter.skipped) == (12, 88)
    assert (shown.moved, shown.skipped) == (12, 88)


def test_the_meter_counts_a_piece_when_it_was_handed_on() -> None:
    meter = metering.Meter(progress.Silent())
    watched = meter.watch([model.Data(0, b'x' * 5), model.Data(5, b'y')], 10)

    next(watched)
    assert meter.moved == 0
    next(watched)
    assert (meter.moved, meter.skipped) == (5, 0)
