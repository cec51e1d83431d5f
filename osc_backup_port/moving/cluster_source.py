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

"""The backups of a cloud whose driver is Ceph, as a source: chains as they lie in its pool."""

import collections
import collections.abc
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import typing

from osc_backup_port import errors, model, record, units
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import locating
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import endpoints, plan
from osc_backup_port.records import wanted_records
from osc_backup_port.transfer import limits, reading

#: Bytes of the image between two notes of how far the work is.
_PART = units.GIB
#: Chains that are read side by side.
_SIDE_BY_SIDE = 2


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def get(self, backup_id: str) -> resources.Backup: ...


class Source(endpoints.Source):
    """The backups of some records, in a pool.

    :param single: take each out of its chain, as a full backup by itself
    :ivar failures: of the backups that cannot be had
    """

    side_by_side = _SIDE_BY_SIDE

    def __init__(
        self,
        cinder: Cinder,
        pool: ceph_pool.Pool,
        records: wanted_records.Records,
        single: bool = False,
    ) -> None:
        self.place = f'pool {pool.name}'
        self._cinder = cinder
        self._pool = pool
        self._records = records
        self._single = single
        self._failed = dict(records.failures)
        self.failures: list[plan.Finding] = []

    def chains(self) -> list['Chain']:
        """Find the chains; what one of them lacks does not stop the others."""
        found = self._records.found
        locations = self._locate()
        groups: dict[tuple[str, str], list[_Located]] = {}
        for key, location in locations.items():
            if key not in self._failed:
                name = key if self._single else location.image
                group = groups.setdefault((name, found[key].volume_id), [])
                group.append(_Located(found[key], location))
        whole = (item for key, item in found.items() if key not in self._failed)
        children = collections.Counter(() if self._single else (item.parent_id for item in whole))
        chains = []
        for located in groups.values():
            try:
                chains.append(self._chain(located, children))
            except errors.PortError as error:
                self._failed.update((one.record.id, error) for one in located)
        self.failures = list(self._failed.items())
        return chains

    def _locate(self) -> dict[str, locating.Location]:
        found = self._records.found
        locations: dict[str, locating.Location] = {}
        images = functools.cache(self._pool.images)
        for item in found.values():
            try:
                parent = found.get(item.parent_id or '')
                locations[item.id] = locating.locate(self._pool, item, parent, images)
            except errors.PortError as error:
                self._failed[item.id] = error
        if not self._single:
            wanted_records.add_descendants(self._failed, found)
        return locations

    def _chain(
        self,
        located: collections.abc.Sequence['_Located'],
        children: collections.abc.Mapping[str | None, int],
    ) -> 'Chain':
        """Return the chain of backups that lie in one image and are of one volume.

        :param children: how many backups go along with each that are its increments
        """
        source, snapshots = located[0].location.image, located[0].location.chain
        in_order = sorted(located, key=lambda one: one.order)
        first = in_order[0].record
        name = None if self._single else ceph_driver.image_for(first.volume_id, source)
        name = name or ceph_driver.own_image(first)
        head = _head_layout(self._pool, in_order[0].location)
        points = []
        for one in in_order:
            item = one.record
            if self._single:
                item = item.with_changes(parent_id=None)
            item = item.with_changes(num_dependent_backups=children.get(item.id, 0))
            points.append(_point(ceph_driver.in_image(item, name), one.location, head))
        unknown = () if self._single else tuple(self._unknown(snapshots, points))
        return Chain(self._pool, name, source, tuple(points), snapshots, unknown, head)

    def _unknown(
        self,
        snapshots: collections.abc.Sequence[model.Snapshot],
        points: collections.abc.Sequence[plan.Point],
    ) -> collections.abc.Iterator[str]:
        """Yield the snapshots of backups that Cinder does not know any more."""
        known = {point.id for point in points}
        for snapshot in snapshots:
            backup_id = ceph_driver.backup_of_snapshot(snapshot.name)
            if backup_id is None or backup_id in known:
                continue
            try:
                self._cinder.get(backup_id)
            except errors.NotFound:
                yield snapshot.name


class OneBackup(endpoints.Source):
    """One backup in a pool, of which nothing but its own record is known.

    :param parent: the record of its parent, needed where its own names no image
    :param with_chain: with all points of its image up to it
    """

    def __init__(
        self,
        pool: ceph_pool.Pool,
        backup: record.BackupRecord,
        parent: record.BackupRecord | None,
        with_chain: bool = False,
        from_backup: str | None = None,
    ) -> None:
        self.place = f'pool {pool.name}'
        self.failures: list[plan.Finding] = []
        self._pool = pool
        self._backup = backup
        self._parent = parent
        self._with_chain = with_chain
        self._from_backup = from_backup

    def chains(self) -> list['Chain']:
        """Find it.

        :raises NotFound: the bytes of the backup are not in the pool
        :raises Conflict: they are in more than one place
        :raises InvalidInput: no increment leads there from the other backup
        """
        place = locating.locate(self._pool, self._backup, self._parent)
        if self._from_backup:
            _check_base(place, self._backup.id, self._from_backup)
        last = place.snapshot
        head = _head_layout(self._pool, place)
        points = [_point(self._backup, place, head)]
        if self._with_chain and last is not None:
            points[:0] = [
                plan.Point(ceph_driver.backup_of_snapshot(one.name) or '', one.name, one.size)
                for one in place.chain
                if one.id < last.id
            ]
        name = place.image
        return [Chain(self._pool, name, name, tuple(points), place.chain, (), head)]


def _check_base(place: locating.Location, backup_id: str, from_backup: str) -> None:
    """:raises InvalidInput: no increment leads from one backup to the other"""
    for snapshot in place.chain:
        if ceph_driver.backup_of_snapshot(snapshot.name) == from_backup:
            if place.snapshot is None or snapshot.id >= place.snapshot.id:
                raise errors.InvalidInput(
                    f'Backup {from_backup} is not older than backup {backup_id}, so that no '
                    'increment leads from it.',
                    'Exchange the two, or leave --from-backup out.',
                )
            return
    there = ', '.join(snapshot.name for snapshot in place.chain) or 'none'
    raise errors.InvalidInput(
        f'Backup {from_backup} has no snapshot on image {place.image}, which holds backup '
        f'{backup_id}; there: {there}.',
        'Take a backup of the same chain, or leave --from-backup out.',
    )


class _Located(typing.NamedTuple):
    record: record.BackupRecord
    location: locating.Location

    @property
    def order(self) -> int:
        return self.location.snapshot.id if self.location.snapshot else 0


def _head_layout(pool: ceph_pool.Pool, location: locating.Location) -> model.ImageLayout | None:
    """Return the layout of an image that holds one backup and has no snapshot of it."""
    if location.snapshot is not None:
        return None
    with pool.open(location.image) as image:
        return image.layout()


def _point(
    item: record.BackupRecord, location: locating.Location, head: model.ImageLayout | None
) -> plan.Point:
    where, size = f'Backup {item.id}', head.size if head else 0
    if location.snapshot is None:
        return plan.Point(item.id, ceph_driver.new_snapshot(item), size, item, where, True)
    return plan.Point(item.id, location.snapshot.name, location.snapshot.size, item, where)


@dataclasses.dataclass(frozen=True)
class Chain(endpoints.SourceChain):
    """The points of one image, the oldest first.  Each is whole by itself.

    :ivar name: what the image is to be called where it goes; their records name it
    :ivar image: what it is called in the pool
    :ivar snapshots: those of backups that are there
    :ivar unknown: those of backups that Cinder does not know any more
    :ivar head_layout: of an image that holds one backup and no snapshot
    """

    pool: ceph_pool.Pool
    name: str
    image: str
    points: tuple[plan.Point, ...]
    snapshots: tuple[model.Snapshot, ...]
    unknown: tuple[str, ...] = ()
    head_layout: model.ImageLayout | None = None

    def steps(self, present: endpoints.Present) -> list[plan.Step]:
        """Return a step for each point, which starts from the newest that will be there."""
        there = {
            snapshot.name
            for snapshot in self.snapshots
            if present.has_point(ceph_driver.backup_of_snapshot(snapshot.name), snapshot.name)
        }
        steps = []
        # By age, as they were made: ids grow.
        names = [snapshot.name for snapshot in sorted(self.snapshots)]
        at = {name: number for number, name in enumerate(names)}
        for point in self.points:
            # An image that holds nothing but this point has no snapshot to start from.
            before = names[: at[point.name]] if not point.is_head else []
            start = next((name for name in reversed(before) if name in there), None)
            is_there = point.id in present.names
            state = plan.State.PRESENT if is_there else plan.State.TO_DO
            steps.append(plan.Step(point, start, state=state))
            there.add(point.name)
        return steps

    def layout(self) -> model.ImageLayout:
        if self.head_layout is not None:
            return self.head_layout
        # It is opened there to be read, too, which is not asked for twice then.
        with self._open(self.points[0]) as image:
            return image.layout()

    @contextlib.contextmanager
    def read(self, step: plan.Step, bounds: limits.Limits) -> collections.abc.Iterator['_Reading']:
        with self._open(step.point) as image:
            yield _Reading(self, step, image, bounds)

    def volume_metadata(self, point: plan.Point) -> bytes | None:
        return self.pool.read_object(ceph_driver.metadata_object(point.id))

    def bytes_to_read(self, step: plan.Step) -> int:
        with self._open(step.point) as image:
            return sum(extent.length for extent in image.extents(step.start) if extent.exists)

    def bytes_to_write(self, step: plan.Step, exact: bool) -> int:
        return self.bytes_to_read(step) if exact else step.point.size

    def _open(self, point: plan.Point) -> contextlib.AbstractContextManager[ceph_image.Image]:
        return self.pool.open(self.image, None if point.is_head else point.name)


class _Reading(endpoints.Reading):
    """An increment of an image, which is open at its end."""

    seeks = True

    def __init__(
        self, chain: Chain, step: plan.Step, image: ceph_image.Image, bounds: limits.Limits
    ) -> None:
        point = step.point
        self.increment = model.Increment(step.start, point.name or None, point.size, iter(()))
        told = (chain.image, step.start, point.name, point.size)
        self.identity = hashlib.sha256(repr(told).encode()).hexdigest()
        self.image = self._opened = image
        self._bounds = bounds

    def parts(
        self, first: int, cut: bool
    ) -> collections.abc.Generator[endpoints.Part, None, None]:
        size = self.increment.size
        extents = _behind(first, self._opened.extents(self.increment.from_snap))
        groups: collections.abc.Iterable[tuple[int, collections.abc.Iterable[model.Extent]]] = [
            (size // _PART, extents)
        ]
        if cut:
            groups = itertools.groupby(_cut(extents), lambda extent: extent.offset // _PART)
        for number, some in groups:
            # Reads are under way when a write fails: they end before the image is closed.
            with contextlib.closing(reading.read_items(self._opened, some, self._bounds)) as items:
                yield endpoints.Part(items, (number + 1) * _PART)


def _behind(
    position: int, extents: collections.abc.Iterable[model.Extent]
) -> collections.abc.Iterator[model.Extent]:
    """Yield what lies behind *position*."""
    for extent in extents:
        end = extent.offset + extent.length
        start = max(extent.offset, position)
        if start < end:
            yield model.Extent(start, end - start, extent.exists)


def _cut(
    extents: collections.abc.Iterable[model.Extent],
) -> collections.abc.Iterator[model.Extent]:
    """Cut extents where one part of the image ends and the next begins."""
    for extent in extents:
        offset, end = extent.offset, extent.offset + extent.length
        while offset < end:
            stop = min(end, (offset // _PART + 1) * _PART)
            yield model.Extent(offset, stop - offset, extent.exists)
            offset = stop
