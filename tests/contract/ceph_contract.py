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

"""What the package relies on of Ceph: one suite, for the real thing and for the fake.

A class of tests derives from :class:`CephContract` and gives it a fixture
``ceph``.  Where a test fails on one of the two only, the fake is wrong, or
Ceph has changed.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.ceph import lease, pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.transfer import differing, limits, reading, writing

SIZE = 20 * units.MIB
LARGE = 72 * units.MIB
BOUNDS = limits.Limits(requests=8, request_size=units.MIB, window=12)


class Ceph(Protocol):
    """A pool that may be used, and the bindings to it.

    :ivar prefix: with which the names of all that a test makes begin
    """

    rados: Any
    rbd: Any
    prefix: str

    def connect(self) -> Any:
        """Return a context of the pool, of a client of its own, and its id."""

    def pool(self) -> pool.Pool:
        """Return the pool, as the package sees it, of a client of its own."""


class Bytes:
    """A small image as plain bytes, written to in step with the real one."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def apply(self, items: list[model.Item]) -> None:
        for item in items:
            content = item.data if isinstance(item, model.Data) else bytes(item.length)
            self.data[item.offset : item.offset + item.length] = content


def some_changes(source: random.Random, size: int, count: int = 12) -> list[model.Item]:
    """Return changes that fall into, onto and across objects, far and near."""
    edges = [0, 4095, 4096, 4 * units.MIB, 8 * units.MIB, 12 * units.MIB, size]
    found: list[model.Item] = []
    for _ in range(count):
        start = min(source.choice(edges) + source.choice([0, 1, 4096, 100_000]), size - 1)
        length = min(source.choice([1, 4096, 70_000, 3 * units.MIB, 8 * units.MIB]), size - start)
        if source.random() < 0.4:
            found.append(model.Zero(start, length))
        else:
            length = min(length, 3 * units.MIB)
            found.append(model.Data(start, source.randbytes(length)))
    return found


def _far_apart(source: random.Random) -> tuple[int, list[model.Item]]:
    """Return a size and changes of a large image, with much nothing between them."""
    size = source.choice([LARGE, LARGE, LARGE // 2 + 4096])
    places = [32 * units.MIB * source.randrange(3) for _ in range(3)]
    found: list[model.Item] = []
    for place in sorted(place for place in places if place + 8 * units.MIB <= size):
        if source.random() < 0.4:
            found.append(model.Zero(place, source.choice([4096, 4 * units.MIB, 6 * units.MIB])))
        else:
            found.append(model.Data(place + source.choice([0, 777]), source.randbytes(100_000)))
    return size, found


def read_all(image: Any, size: int) -> bytes:
    content = Bytes(size)
    content.apply(list(reading.read_items(image, image.extents(), BOUNDS)))
    return bytes(content.data)


def _damage_map(ceph: Ceph, name: str, snapshot: str | None, damage: str) -> None:
    ioctx, _client_id = ceph.connect()
    with ceph.rbd.Image(ioctx, name, read_only=True) as image:
        ids = {one['name']: one['id'] for one in image.list_snaps()}
        key = f'rbd_object_map.{image.id()}'
    if snapshot is not None:
        key += f'.{ids[snapshot]:016x}'
    if damage == 'removed':
        ioctx.remove_object(key)
    else:
        ioctx.write_full(key, b'' if damage == 'empty' else bytes(range(64)))


class CephContract:
    """The tests."""

    def test_a_pool_has_room(self, ceph: Ceph) -> None:
        free = ceph.pool().free()
        assert free is not None
        assert free > 1 << 20

    def test_an_image_is_created_as_cinder_does_and_found_again(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'

        assert not where.has_image(name)
        where.create(name, model.ImageLayout(SIZE))

        assert where.has_image(name)
        assert name in where.images()
        with where.open(name) as image:
            assert image.size() == SIZE
            assert image.layout() == model.ImageLayout(SIZE, 22, 1 | 4 | 8 | 16, 4 * units.MIB, 1)
            assert image.snapshots() == []
            assert list(image.extents()) == []

    def test_an_object_has_an_age_that_its_lock_keeps_low(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}object'
        assert where.object_age(name) is None
        where.write_object(name, b'x')
        age = where.object_age(name)
        assert age is not None
        assert -5 < age < 5
        where.remove_object(name)
        with where.lock(f'{ceph.prefix}locked'):
            lock = ceph_driver.lock_object(f'{ceph.prefix}locked')
            assert where.object_age(lock) is not None
        assert where.object_age(lock) is None

    def test_used_counts_whole_objects_since_a_snapshot(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}used'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            assert image.used() == 0
            writing.write_items(image, iter([model.Data(0, b'x' * 4096)]), BOUNDS)
            image.create_snapshot('one')
            writing.write_items(image, iter([model.Data(8 * units.MIB, b'x' * 4096)]), BOUNDS)
            assert image.used('one') == 4 * units.MIB
            assert image.used() == 8 * units.MIB
        with where.open(name, snapshot='one') as image:
            assert image.used() == 4 * units.MIB

    def test_order_and_striping_are_kept(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}striped'
        layout = model.ImageLayout(SIZE, 20, stripe_unit=65536, stripe_count=4)

        where.create(name, layout)

        with where.open(name) as image:
            found = image.layout()
        assert (found.order, found.stripe_unit, found.stripe_count) == (20, 65536, 4)

    def test_creating_what_is_there_is_a_conflict(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))

        with pytest.raises(errors.Conflict, match='is there already'):
            where.create(name, model.ImageLayout(SIZE))

    def test_renaming_moves_all_and_replaces_nothing(self, ceph: Ceph) -> None:
        where, one, two = ceph.pool(), f'{ceph.prefix}one', f'{ceph.prefix}two'
        where.create(one, model.ImageLayout(SIZE))
        where.create(two, model.ImageLayout(SIZE + 4096))
        with where.open(one, writable=True) as image:
            image.create_snapshot('s')

        with pytest.raises(errors.Conflict, match='is there already'):
            where.rename(one, two)
        where.rename(one, f'{ceph.prefix}three')

        with pytest.raises(errors.NotFound):
            where.rename(one, f'{ceph.prefix}four')
        assert not where.has_image(one)
        with where.open(f'{ceph.prefix}three') as image:
            assert [snapshot.name for snapshot in image.snapshots()] == ['s']

    def test_what_is_not_there_cannot_be_opened(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))

        with pytest.raises(errors.NotFound), where.open(f'{name}x'):
            pass
        with pytest.raises(errors.NotFound), where.open(name, 'no-such-snapshot'):
            pass

    def test_removing_takes_the_snapshots_along_and_may_be_repeated(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            image.create_snapshot('s')

        where.remove(name)
        where.remove(name)

        assert not where.has_image(name)

    def test_an_image_with_snapshots_is_not_removed_by_the_bindings(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            image.create_snapshot('s')
        ioctx, _client_id = ceph.connect()

        with pytest.raises(ceph.rbd.Error):
            ceph.rbd.RBD().remove(ioctx, name)

        assert where.has_image(name)

    def test_an_image_that_is_open_to_write_is_not_removed(
        self, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        monkeypatch.setattr(pool, '_WATCH_TIMEOUT', 0)
        where.create(name, model.ImageLayout(SIZE))

        with (
            ceph.pool().open(name, writable=True),
            pytest.raises(errors.Conflict, match='in use by another client'),
        ):
            where.remove(name)

        assert where.has_image(name)

    def test_writers_are_seen_by_others_and_readers_are_not(self, ceph: Ceph) -> None:
        one, two, name = ceph.pool(), ceph.pool(), f'{ceph.prefix}image'
        one.create(name, model.ImageLayout(SIZE))

        with one.open(name, writable=True) as image, two.open(name) as reader:
            assert image.other_writers() == []
            assert len(reader.other_writers()) == 1
        with one.open(name) as reader, two.open(name):
            assert reader.other_writers() == []

    def test_a_snapshot_gets_another_name(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            image.create_snapshot('one')
            image.create_snapshot('two')
            with where.open(name, 'one'):
                pass
            image.rename_snapshot('one', 'three')
            with pytest.raises(errors.Conflict):
                image.rename_snapshot('two', 'three')
            assert [snapshot.name for snapshot in image.snapshots()] == ['three', 'two']

    @pytest.mark.parametrize('features', [1, 1 | 4 | 8 | 16])
    def test_snapshots_are_known_without_opening(self, ceph: Ceph, features: int) -> None:
        where, one, two = ceph.pool(), f'{ceph.prefix}one', f'{ceph.prefix}two'
        assert where.snapshots(one) is None
        where.create(one, model.ImageLayout(SIZE, features=features))
        where.create(two, model.ImageLayout(SIZE))
        assert where.snapshots(one) == []
        with where.open(one, writable=True) as image:
            for number in range(20):
                image.create_snapshot(f'ä{number}')
            image.resize(SIZE + 4096)
            image.create_snapshot('a')
            image.remove_snapshot('ä3')
            written = image.snapshots()
        with where.open(one) as image:
            expected = image.snapshots()

        found = where.snapshots_of([two, one, f'{one}x'])

        assert len(expected) == 20
        assert expected[-1][1:] == ('a', SIZE + 4096)
        assert written == expected
        assert found == {two: [], one: expected, f'{one}x': None}

    def test_notes_are_known_without_opening(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        assert where.note(name, 'key') is None
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            image.set_note('key', None)
            image.set_note('key', 'one')
            image.set_note('key', 'töö')
            image.set_note('other', 'x')
            image.set_note('other', None)
            assert (image.note('key'), image.note('other')) == ('töö', None)

        assert where.note(name, 'key') == 'töö'
        assert where.note(name, 'other') is None
        with where.open(name) as image:
            assert image.note('key') == 'töö'
            with pytest.raises(errors.CephError):
                image.set_note('key', None)

    @pytest.mark.parametrize('features', [1, 1 | 4 | 8 | 16, 1 | 4 | 64])
    def test_an_image_may_rest_while_it_is_renamed(self, ceph: Ceph, features: int) -> None:
        where, other = ceph.pool(), ceph.pool()
        part, name = f'{ceph.prefix}part', f'{ceph.prefix}image'
        where.create(part, model.ImageLayout(SIZE, features=features))
        with where.lock(name):
            with where.open(part, writable=True) as image:
                writing.write_items(image, [model.Data(0, b'one')], BOUNDS)
                image.create_snapshot('one')
            where.rename(part, name)
            with where.open(name, writable=True) as image:
                writing.write_items(image, [model.Data(0, b'two')], BOUNDS)
                image.create_snapshot('two')
                image.set_note('key', 'x')
            with where.open(name, 'one') as image:
                assert image.read(0, 3) == b'one'

        assert not other.has_image(part)
        with other.open(name) as image:
            assert image.other_writers() == []
            assert image.read(0, 3) == b'two'
        assert [one.name for one in other.snapshots(name) or ()] == ['one', 'two']
        where.remove(name)

    def test_an_image_that_rests_is_removed(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.lock(name):
            with where.open(name, writable=True) as image:
                writing.write_items(image, [model.Data(0, b'x')], BOUNDS)
                image.create_snapshot('one')
            where.remove(name)
            assert not where.has_image(name)

    def test_snapshots_keep_what_was_and_list_in_the_order_of_their_making(
        self, ceph: Ceph
    ) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(0, b'old')], BOUNDS)
            image.create_snapshot('z')
            writing.write_items(image, [model.Data(0, b'new')], BOUNDS)
            image.resize(SIZE + 4096)
            image.create_snapshot('a')
            with pytest.raises(errors.Conflict):
                image.create_snapshot('a')

            found = image.snapshots()

        assert [(snapshot.name, snapshot.size) for snapshot in found] == [
            ('z', SIZE),
            ('a', SIZE + 4096),
        ]
        assert found[0].id < found[1].id
        for snapshot, content in (('z', b'old'), ('a', b'new')):
            with where.open(name, snapshot) as image:
                assert image.read(0, 3) == content
        with where.open(name, 'z') as image:
            assert image.size() == SIZE

    def test_a_removed_snapshot_is_gone(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            image.create_snapshot('s')
            image.remove_snapshot('s')

            assert image.snapshots() == []
            with pytest.raises(errors.NotFound):
                image.remove_snapshot('s')
            with pytest.raises(errors.NotFound):
                image.roll_back('s')

    def test_rolling_back_brings_content_and_size_back(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        source, content = random.Random(1), Bytes(SIZE)
        changes = some_changes(source, SIZE)
        content.apply(changes)
        with where.open(name, writable=True) as image:
            writing.write_items(image, changes, BOUNDS)
            image.create_snapshot('s')
            image.resize(2 * SIZE)
            writing.write_items(image, some_changes(source, 2 * SIZE), BOUNDS)

            image.roll_back('s')

            assert image.size() == SIZE
            assert read_all(image, SIZE) == content.data

    def test_rolling_back_waits_for_writes_that_nobody_waited_for(self, ceph: Ceph) -> None:
        """Else they would come after it, where a signal has cut the waiting short."""
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        data = b'x' * units.MIB
        with where.open(name, writable=True) as image:
            image.create_snapshot('s')
            for at in range(0, SIZE, units.MIB):
                image.aio_write(data, at, lambda completion: None)

            image.roll_back('s')

            assert read_all(image, SIZE) == bytes(SIZE)

    def test_what_was_cut_off_is_zero_when_it_comes_back(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(0, b'x' * SIZE)], BOUNDS)
            image.resize(5000)
            image.resize(SIZE)

            assert read_all(image, SIZE) == b'x' * 5000 + bytes(SIZE - 5000)

    @pytest.mark.parametrize('seed', range(4))
    def test_extents_lead_from_any_snapshot_to_any_later_point(
        self, ceph: Ceph, seed: int
    ) -> None:
        """What lies outside of the extents did not change; what is no data there is zero."""
        where, name, source = ceph.pool(), f'{ceph.prefix}image', random.Random(seed)
        where.create(name, model.ImageLayout(SIZE))
        content = Bytes(SIZE)
        points: list[tuple[str | None, bytes]] = [(None, bytes(SIZE))]
        with where.open(name, writable=True) as image:
            for number in range(3):
                changes = some_changes(source, SIZE, 5)
                writing.write_items(image, changes, BOUNDS)
                content.apply(changes)
                image.create_snapshot(f's{number}')
                points.append((f's{number}', bytes(content.data)))

        for at, (start, before) in enumerate(points):
            for end, after in points[at + 1 :]:
                with where.open(name, end) as image:
                    extents = list(image.extents(start))
                    moved = list(reading.read_items(image, iter(extents), BOUNDS))
                copy = Bytes(SIZE)
                copy.data[:] = before
                copy.apply(moved)
                assert bytes(copy.data) == after, (start, end)
                assert extents == sorted(extents)
                assert sum(extent.length for extent in extents) <= SIZE

    def test_extents_without_an_object_map_are_right_too(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE, features=1))
        content, changes = Bytes(SIZE), some_changes(random.Random(7), SIZE)
        content.apply(changes)
        with where.open(name, writable=True) as image:
            writing.write_items(image, changes, BOUNDS)

            assert read_all(image, SIZE) == content.data

    def test_an_object_that_went_is_part_of_the_increment(self, ceph: Ceph) -> None:
        where, name, far = ceph.pool(), f'{ceph.prefix}image', 64 * units.MIB
        where.create(name, model.ImageLayout(LARGE))
        with where.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(0, b'x'), model.Data(far, b'x')], BOUNDS)
            image.create_snapshot('one')
            writing.write_items(image, [model.Zero(far, 4 * units.MIB)], BOUNDS)
            image.create_snapshot('two')

        with where.open(name, 'two') as image:
            assert [extent.offset for extent in image.extents('one')] == [far]
            assert [extent.offset for extent in image.extents()] == [0]

    @pytest.mark.parametrize('seed', range(2))
    def test_the_object_map_changes_nothing(self, ceph: Ceph, seed: int) -> None:
        """With it and without: the same bytes, from nothing and from every snapshot.

        Objects lie far apart, come, change, go, and come again; the image shrinks
        and grows.
        """
        where, source = ceph.pool(), random.Random(seed)
        names = {f'{ceph.prefix}with': None, f'{ceph.prefix}without': 1}
        script = [_far_apart(source) for _ in range(3)]
        for name, features in names.items():
            where.create(name, model.ImageLayout(LARGE, features=features))
            with where.open(name, writable=True) as image:
                assert image.has_object_map() is (features is None)
                for number, (size, changes) in enumerate(script):
                    image.resize(size)
                    writing.write_items(image, changes, BOUNDS)
                    image.create_snapshot(f's{number}')

        points: list[bytes] = []
        for number, (size, changes) in enumerate(script):
            content = Bytes(size)
            before = points[-1][:size] if points else b''
            content.data[: len(before)] = before
            content.apply(changes)
            points.append(bytes(content.data))
            for start in range(-1, number):
                for name in names:
                    assert self._arrives(where, name, start, number, points) == points[-1], (
                        name,
                        start,
                        number,
                    )

    def _arrives(
        self, where: pool.Pool, name: str, start: int, end: int, points: list[bytes]
    ) -> bytes:
        """Return what somebody has who is at *start* and gets the increment to *end*."""
        copy = Bytes(len(points[end]))
        there = points[start][: len(copy.data)] if start >= 0 else b''
        copy.data[: len(there)] = there
        with where.open(name, f's{end}') as image:
            extents = image.extents(f's{start}' if start >= 0 else None)
            copy.apply(list(reading.read_items(image, extents, BOUNDS)))
        return bytes(copy.data)

    @pytest.mark.parametrize('damage', ['removed', 'garbled', 'empty'])
    @pytest.mark.parametrize('point', ['one', 'two', None])
    def test_a_lost_object_map_changes_no_byte(
        self, ceph: Ceph, point: str | None, damage: str
    ) -> None:
        """Of a snapshot, or of the image as it is now; it is seen, and done without."""
        where, name, source = ceph.pool(), f'{ceph.prefix}image', random.Random(11)
        where.create(name, model.ImageLayout(SIZE))
        content = Bytes(SIZE)
        contents: dict[str | None, bytes] = {}
        with where.open(name, writable=True) as image:
            for snapshot in ('one', 'two', None):
                changes = some_changes(source, SIZE, 5)
                writing.write_items(image, changes, BOUNDS)
                content.apply(changes)
                contents[snapshot] = bytes(content.data)
                if snapshot:
                    image.create_snapshot(snapshot)
        _damage_map(ceph, name, point, damage)

        for snapshot, expected in contents.items():
            with where.open(name, snapshot) as image:
                assert image.size() == SIZE
                # Of the image as it is now librbd does not know before it writes.
                if snapshot is None:
                    lost = where.has_lost_object_map(image)
                else:
                    lost = image.has_invalid_object_map()
                assert lost == (snapshot == point), snapshot
                assert read_all(image, SIZE) == expected
        for start, end in (('one', 'two'), ('two', None), ('one', None)):
            copy = Bytes(SIZE)
            copy.data[:] = contents[start]
            with where.open(name, end) as image:
                copy.apply(list(reading.read_items(image, image.extents(start), BOUNDS)))
            assert bytes(copy.data) == contents[end], (start, end)

    def test_an_image_without_the_feature_has_no_object_map_to_lose(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE, features=1))
        with where.open(name) as image:
            assert not where.has_lost_object_map(image)

    def test_an_image_without_header_is_there_and_cannot_be_opened(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name) as image:
            header = f'rbd_header.{image.id()}'
        ioctx, _client_id = ceph.connect()
        ioctx.remove_object(header)
        try:
            with (
                pytest.raises(errors.CephError, match='is there, but cannot be opened'),
                where.open(name),
            ):
                pass
            with pytest.raises(errors.DamagedImage, match='is there, but cannot be opened'):
                where.snapshots(name)
            assert name in where.images()
        finally:
            ceph.rbd.RBD().remove(ioctx, name)

    def test_an_image_in_the_trash_can_be_had_back(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        ioctx, _client_id = ceph.connect()
        ceph.rbd.RBD().trash_move(ioctx, name, 0)

        assert not where.has_image(name)
        assert name not in where.images()
        [trashed] = [one for one in where.trash() if one.name == name]

        ceph.rbd.RBD().trash_restore(ioctx, trashed.id, name)
        assert where.has_image(name)
        assert trashed not in where.trash()

    def test_what_is_removed_while_it_is_read_is_told(self, ceph: Ceph) -> None:
        where, other, name = ceph.pool(), ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(0, b'one')], BOUNDS)
            image.create_snapshot('one')

        def read_while(snapshot: str | None, remove: Callable[[], None]) -> None:
            with where.open(name, snapshot) as image:
                image.read(0, 3)
                remove()

        def remove_snapshot() -> None:
            with other.open(name, writable=True) as image:
                image.remove_snapshot('one')

        with pytest.raises(errors.NotFound, match='@one: was removed while it was read'):
            read_while('one', remove_snapshot)
        with pytest.raises(errors.NotFound, match='image: was removed while it was read'):
            read_while(None, lambda: other.remove(name))

    def test_no_increment_leads_backwards(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            image.create_snapshot('one')
            image.create_snapshot('two')

        with where.open(name, 'one') as image, pytest.raises(errors.CephError):
            list(image.extents('two'))

    def test_zeros_that_cover_an_object_give_it_back(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(0, b'x' * 8 * units.MIB)], BOUNDS)
            writing.write_items(image, [model.Zero(0, 8 * units.MIB)], BOUNDS)

            assert list(image.extents()) == []

    def test_a_full_copy_becomes_what_is_different(self, ceph: Ceph) -> None:
        where, name, source = ceph.pool(), f'{ceph.prefix}image', random.Random(3)
        where.create(name, model.ImageLayout(SIZE))
        first, second = some_changes(source, SIZE), some_changes(source, SIZE, 3)
        content = Bytes(SIZE)
        with where.open(name, writable=True) as image:
            writing.write_items(image, first, BOUNDS)
            content.apply(first)
            content.apply(second)
            whole: list[model.Item] = [
                model.Data(at, bytes(content.data[at : at + units.MIB]))
                for at in range(0, SIZE, units.MIB)
            ]

            writing.write_items(image, differing.differing_items(whole, image), BOUNDS)

            assert read_all(image, SIZE) == content.data
            assert list(differing.differing_items(whole, image)) == []

    def test_a_write_outside_of_the_image_fails(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        for item in (model.Data(SIZE, b'x'), model.Zero(SIZE, 1)):
            with (
                where.open(name, writable=True) as image,
                pytest.raises(errors.CephError, match='Invalid argument'),
            ):
                writing.write_items(image, [item], BOUNDS)

    def test_a_write_over_the_end_is_cut_without_a_word(self, ceph: Ceph) -> None:
        """Why the codecs check the bounds themselves."""
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(SIZE - 2, b'xyz')], BOUNDS)

            assert image.size() == SIZE
            assert image.read(SIZE - 2, 2) == b'xy'

    def test_a_read_over_the_end_is_short_and_told(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        uneven = limits.Limits(request_size=3 * units.MIB)
        with (
            where.open(name) as image,
            pytest.raises(errors.CephError, match='asked for 8 bytes, got 4'),
        ):
            list(reading.read_items(image, [model.Extent(SIZE - 4, 8, True)], uneven))

    def test_what_is_open_to_read_cannot_be_changed(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        with where.open(name) as image:
            with pytest.raises(errors.CephError):
                image.create_snapshot('s')
            with pytest.raises(errors.CephError):
                writing.write_items(image, [model.Data(0, b'x')], BOUNDS)

    def test_objects_by_name(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}object'

        assert where.read_object(name) is None
        where.write_object(name, b'long content')
        where.write_object(name, b'short')

        assert where.read_object(name) == b'short'
        assert where.objects(ceph.prefix) == [name]
        where.remove_object(name)
        where.remove_object(name)
        assert where.read_object(name) is None

    def test_an_object_is_whole_or_refused(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}object'
        largest = b'x' * model.MAX_VOLUME_METADATA
        where.write_object(name, largest)
        assert where.read_object(name) == largest
        with pytest.raises(errors.InvalidInput, match=name):
            where.write_object(name, largest + b'x')
        assert where.read_object(name) == largest

        ioctx, _client_id = ceph.connect()
        ioctx.write_full(name, largest + b'x')
        with pytest.raises(errors.InvalidInput, match=name):
            where.read_object(name)

    def test_a_lock_keeps_others_out_and_leaves_nothing(
        self, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, '_PATIENCE', 0)
        one, two, name = ceph.pool(), ceph.pool(), f'{ceph.prefix}image'

        with one.lock(name) as held:
            held.check()
            for other in (one, two):
                with pytest.raises(errors.Conflict, match='another import'), other.lock(name):
                    pass
            assert [f'osc-backup-port.{name}.lock'] == one.objects(f'osc-backup-port.{name}')

        assert one.objects(f'osc-backup-port.{name}') == []
        with two.lock(name):
            pass

    def test_a_lock_is_renewed_while_its_owner_lives(
        self, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, 'DURATION', 1)
        monkeypatch.setattr(lease, '_PATIENCE', 2)
        one, two, name = ceph.pool(), ceph.pool(), f'{ceph.prefix}image'

        with one.lock(name) as held:
            with pytest.raises(errors.Conflict), two.lock(name):
                pass
            held.check()

    def test_a_lock_of_the_dead_expires(self, ceph: Ceph, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease, 'DURATION', 1)
        monkeypatch.setattr(lease, '_PATIENCE', 5)
        ioctx, _client_id = ceph.connect()
        name = f'{ceph.prefix}image'
        lock = f'osc-backup-port.{name}.lock'
        ioctx.lock_exclusive(lock, 'osc_backup_port', 'dead', 'd', 1, 1)
        started = time.monotonic()

        with ceph.pool().lock(name):
            waited = time.monotonic() - started
            with pytest.raises(ceph.rados.ObjectBusy):
                ioctx.lock_exclusive(lock, 'osc_backup_port', 'dead', 'd', 1, 1)

        assert 0.2 < waited < 4

    @pytest.mark.parametrize('features', [1, 1 | 4 | 8 | 16, 1 | 4 | 64])
    def test_who_takes_a_lock_over_shuts_the_holder_out(
        self, ceph: Ceph, features: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On images with and without exclusive-lock, object-map and journaling."""
        monkeypatch.setattr(lease, 'DURATION', 1)
        monkeypatch.setattr(lease, '_PATIENCE', 5)
        old, new, name = ceph.pool(), ceph.pool(), f'{ceph.prefix}image'
        new.create(name, model.ImageLayout(SIZE, features=features))
        with old.lock(name) as lost, old.open(name, writable=True) as image:
            writing.write_items(image, [model.Data(0, b'old')], BOUNDS)
            stop(lost)

            with new.lock(name) as held:
                held.check()
                with pytest.raises(errors.Conflict, match='expired'):
                    lost.check()
                with new.open(name, writable=True) as mine:
                    writing.write_items(mine, [model.Data(0, b'new')], BOUNDS)
                    mine.create_snapshot('s')
                with pytest.raises(errors.CephError, match='another run took over'):
                    writing.write_items(image, [model.Data(0, b'bad')], BOUNDS)
                with pytest.raises(errors.CephError, match='another run took over'):
                    image.create_snapshot('bad')
                with pytest.raises(errors.CephError, match='another run took over'):
                    old.rename(name, f'{name}.bad')
                held.check()
        for snapshot in (None, 's'):
            with new.open(name, snapshot) as image:
                assert image.read(0, 3) == b'new'
        assert new.objects(f'osc-backup-port.{name}') == []

    def test_a_lock_that_went_is_lost_and_not_taken_again(
        self, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, 'DURATION', 3)
        where, name = ceph.pool(), f'{ceph.prefix}image'
        with where.lock(name) as held:
            ceph.connect()[0].remove_object(ceph_driver.lock_object(name))
            deadline = time.monotonic() + 2
            while not held.is_lost and time.monotonic() < deadline:
                time.sleep(0.1)
            with pytest.raises(errors.Conflict, match='another run may have taken over'):
                held.check()

        assert where.objects(f'osc-backup-port.{name}') == []

    def test_a_lock_that_was_released_shuts_nobody_out(self, ceph: Ceph) -> None:
        one, two, name = ceph.pool(), ceph.pool(), f'{ceph.prefix}image'
        for where in (one, two, one):
            with where.lock(name):
                where.write_object(f'{ceph.prefix}object', b'x')

    def test_completions_come_from_another_thread(self, ceph: Ceph) -> None:
        where, name = ceph.pool(), f'{ceph.prefix}image'
        where.create(name, model.ImageLayout(SIZE))
        threads: list[int] = []
        done = threading.Event()

        def note(completion: Any, data: bytes | None) -> None:
            threads.append(threading.get_ident())
            done.set()

        with where.open(name) as image:
            image.aio_read(0, 10, note)
            assert done.wait(10)

        assert threads != [threading.get_ident()]


def stop(held: lease.Lease) -> None:
    """Let a holder do what one does that was stopped: nothing."""
    held._stop.set()
    held._keeper.join()


def remove_all(where: pool.Pool, prefix: str) -> None:
    """Take away what the tests of one prefix have left."""
    for image in where.images():
        if image.startswith(prefix):
            where.remove(image)
    for name in where.objects(f'osc-backup-port.{prefix}') + where.objects(prefix):
        where.remove_object(name)
