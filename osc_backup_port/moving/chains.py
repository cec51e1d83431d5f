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

"""The chains that backups belong to, as they lie in the pool of their cloud."""

import collections
import collections.abc
import dataclasses
import functools
import typing

from osc_backup_port import errors, model, record
from osc_backup_port.ceph import locating
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.records import side_by_side


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def get(self, backup_id: str) -> resources.Backup: ...

    def export_record(self, backup_id: str) -> record.BackupRecord: ...


@dataclasses.dataclass(frozen=True)
class Point:
    """One backup: a point in time of an image.

    :ivar record: rewritten to name the image and to count what is in the chain
    :ivar snapshot: what the point is called, or is to be called
    :ivar is_head: the pool has no snapshot of it; the image holds nothing else
    :ivar order: grows along the chain
    """

    record: record.BackupRecord
    snapshot: str
    is_head: bool
    order: int

    @property
    def opened_at(self) -> str | None:
        """The snapshot to open the image at, to read this point."""
        return None if self.is_head else self.snapshot


@dataclasses.dataclass(frozen=True)
class Chain:
    """The points of one image, the oldest first.

    :ivar name: what the image is to be called where it goes; their records name it
    :ivar source: what it is called in the pool
    :ivar order: of every snapshot there, by its name
    :ivar unknown: snapshots of backups that Cinder does not know any more
    """

    name: str
    source: str
    layout: model.ImageLayout
    points: tuple[Point, ...]
    order: collections.abc.Mapping[str, int]
    unknown: tuple[str, ...]

    def newest_before(self, point: Point, there: collections.abc.Iterable[str]) -> str | None:
        """Return the newest of the points *there* that an increment can start from.

        It has to be older than *point*, and still a snapshot in the pool.
        """
        if point.is_head:
            return None
        before = [name for name in there if self.order.get(name, point.order) < point.order]
        return max(before, key=self.order.__getitem__, default=None)


def bytes_to_read(pool: ceph_pool.Pool, chain: Chain, point: Point, start: str | None) -> int:
    """Return how many bytes an increment is, at most: what its extents cover.

    :param start: the snapshot that it starts from; None: from nothing
    """
    with pool.open(chain.source, point.opened_at) as image:
        return sum(extent.length for extent in image.extents(start) if extent.exists)


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of backups and of those they descend from.

    :ivar failures: those that cannot be had, and those that descend from them
    """

    found: dict[str, record.BackupRecord]
    failures: dict[str, errors.PortError]


@dataclasses.dataclass(frozen=True)
class Found:
    """The chains of backups, and the backups whose data cannot be had."""

    chains: list[Chain]
    failures: dict[str, errors.PortError]


def read_records(
    cinder: Cinder, wanted: collections.abc.Sequence[str], single: bool = False
) -> Records:
    """Ask for the records of backups; one that fails does not stop the others.

    :param wanted: ids of backups; those they descend from are added
    :param single: do not add them
    :raises NotPermitted: the caller may not export records
    """
    records = Records({}, {})
    missing = list(dict.fromkeys(wanted))
    while missing:
        for key, item in zip(
            missing, side_by_side.each(cinder.export_record, missing), strict=True
        ):
            if isinstance(item, errors.PortError):
                records.failures[key] = item
            elif not item.is_ceph:
                records.failures[key] = errors.InvalidInput(
                    f'Backup {item.id}: was made by {item.backup_service}, whose data does not '
                    'lie in Ceph.',
                    'Only its record can be moved: openstack volume backup metadata export',
                )
            else:
                records.found[key] = item
        parents = {item.parent_id for item in records.found.values() if item.parent_id}
        seen = records.found.keys() | records.failures.keys()
        missing = [] if single else sorted(parents - seen)
    _add_descendants(records.failures, records.found)
    return records


def _add_descendants(
    failures: dict[str, errors.PortError], found: dict[str, record.BackupRecord]
) -> None:
    """Let the backups fail that descend from one that did."""
    while left_out := [
        item for item in found.values() if item.parent_id in failures and item.id not in failures
    ]:
        for item in left_out:
            failures[item.id] = errors.Conflict(
                f'Backup {item.id}: skipped: its parent {item.parent_id} is unavailable.',
                'To take it by itself, as a full backup: --single',
            )


def find(cinder: Cinder, pool: ceph_pool.Pool, records: Records, single: bool = False) -> Found:
    """Find the chains of backups in their pool; one that fails does not stop the others.

    :param single: take each out of its chain, as a full backup by itself
    """
    failures = dict(records.failures)
    locations: dict[str, locating.Location] = {}
    images = functools.cache(pool.images)
    for item in records.found.values():
        try:
            parent = records.found.get(item.parent_id or '')
            locations[item.id] = locating.locate(pool, item, parent, images)
        except errors.PortError as error:
            failures[item.id] = error
    if not single:
        _add_descendants(failures, records.found)
    groups: dict[tuple[str, str], list[tuple[record.BackupRecord, locating.Location]]] = {}
    for key, location in locations.items():
        if key not in failures:
            item = records.found[key]
            group_key = (key if single else location.image, item.volume_id)
            groups.setdefault(group_key, []).append((item, location))
    chains = []
    whole = (item for key, item in records.found.items() if key not in failures)
    children = collections.Counter(() if single else (item.parent_id for item in whole))
    for group in groups.values():
        try:
            chains.append(_chain(cinder, pool, group, children, single))
        except errors.PortError as error:
            failures.update((item.id, error) for item, _location in group)
    return Found(chains, failures)


def _chain(
    cinder: Cinder,
    pool: ceph_pool.Pool,
    group: collections.abc.Sequence[tuple[record.BackupRecord, locating.Location]],
    children: collections.abc.Mapping[str | None, int],
    single: bool,
) -> Chain:
    """Return the chain of backups that lie in one image and are of one volume.

    :param children: how many backups go along with each that are its increments
    """
    source = group[0][1].image
    with pool.open(source) as image:
        layout, snapshots = image.layout(), image.snapshots()
    order = {snapshot.name: snapshot.id for snapshot in snapshots}
    in_order = sorted(group, key=lambda one: one[1].snapshot.id if one[1].snapshot else 0)
    first = in_order[0][0]
    name = None if single else ceph_driver.image_for(first.volume_id, source)
    name = name or ceph_driver.own_image(first)
    points = []
    for item, location in in_order:
        if single:
            item = item.with_changes(parent_id=None)
        item = item.with_changes(num_dependent_backups=children.get(item.id, 0))
        points.append(_point(ceph_driver.in_image(item, name), location))
    unknown = [] if single else _unknown(cinder, snapshots, points)
    return Chain(name, source, layout, tuple(points), order, tuple(unknown))


def _point(item: record.BackupRecord, location: locating.Location) -> Point:
    if location.snapshot is None:
        return Point(item, ceph_driver.new_snapshot(item), True, 0)
    return Point(item, location.snapshot.name, False, location.snapshot.id)


def _unknown(
    cinder: Cinder,
    snapshots: collections.abc.Sequence[model.Snapshot],
    points: collections.abc.Sequence[Point],
) -> collections.abc.Iterator[str]:
    known = {point.record.id for point in points}
    for snapshot in snapshots:
        backup_id = ceph_driver.backup_of_snapshot(snapshot.name)
        if backup_id is None or backup_id in known:
            continue
        try:
            cinder.get(backup_id)
        except errors.NotFound:
            yield snapshot.name
