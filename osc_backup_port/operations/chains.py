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

import collections.abc
import dataclasses
import typing

from osc_backup_port import errors, model, record
from osc_backup_port.ceph import locating, naming
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.operations import side_by_side


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def get(self, backup_id: str) -> resources.Backup: ...

    def export_record(self, backup_id: str) -> record.BackupRecord: ...


@dataclasses.dataclass(frozen=True)
class Point:
    """One backup: a point in time of an image.

    :ivar record: rewritten, if the backup is taken out of its chain
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

    :ivar name: what the image is to be called where it goes
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


def find(
    cinder: Cinder,
    pool: ceph_pool.Pool,
    wanted: collections.abc.Sequence[str],
    single: bool = False,
) -> list[Chain]:
    """Find the chains of backups.

    :param wanted: ids of backups; those they descend from are added
    :param single: take each out of its chain, as a full backup by itself
    :raises PortError: a record or an image cannot be had
    """
    records = _records(cinder, wanted, with_ancestors=not single)
    groups: dict[str, list[tuple[record.BackupRecord, locating.Location]]] = {}
    for item in records.values():
        location = locating.locate(pool, item, records.get(item.parent_id or ''))
        key = item.id if single else location.image
        groups.setdefault(key, []).append((item, location))
    return [_chain(cinder, pool, group, single) for group in groups.values()]


def _records(
    cinder: Cinder, wanted: collections.abc.Sequence[str], with_ancestors: bool
) -> dict[str, record.BackupRecord]:
    found: dict[str, record.BackupRecord] = {}
    missing = list(dict.fromkeys(wanted))
    while missing:
        for item in side_by_side.each(cinder.export_record, missing):
            if isinstance(item, errors.PortError):
                raise item
            if not item.is_ceph:
                raise errors.InvalidInput(
                    f'Backup {item.id}: was made by {item.backup_service}, whose data does not '
                    'lie in Ceph.',
                    'Only its record can be moved: openstack volume backup metadata export',
                )
            found[item.id] = item
        parents = {item.parent_id for item in found.values() if item.parent_id}
        missing = sorted(parents - set(found)) if with_ancestors else []
    return found


def _chain(
    cinder: Cinder,
    pool: ceph_pool.Pool,
    group: collections.abc.Sequence[tuple[record.BackupRecord, locating.Location]],
    single: bool,
) -> Chain:
    source = group[0][1].image
    with pool.open(source) as image:
        layout, snapshots = image.layout(), image.snapshots()
    order = {snapshot.name: snapshot.id for snapshot in snapshots}
    points = sorted(
        (_point(item, location, single) for item, location in group),
        key=lambda point: point.order,
    )
    name = naming.own_image(points[0].record) if single else source
    unknown = [] if single else _unknown(cinder, snapshots, points)
    return Chain(name, source, layout, tuple(points), order, tuple(unknown))


def _point(item: record.BackupRecord, location: locating.Location, single: bool) -> Point:
    if single:
        item = standalone(item)
    if location.snapshot is None:
        return Point(item, naming.new_snapshot(item), True, 0)
    return Point(item, location.snapshot.name, False, location.snapshot.id)


def standalone(item: record.BackupRecord) -> record.BackupRecord:
    """Rewrite a record to that of a full backup that nothing depends on."""
    return item.with_changes(
        parent_id=None,
        service_metadata=f'{{"base": "{naming.own_image(item)}"}}',
        num_dependent_backups=0,
    )


def _unknown(
    cinder: Cinder,
    snapshots: collections.abc.Sequence[model.Snapshot],
    points: collections.abc.Sequence[Point],
) -> collections.abc.Iterator[str]:
    known = {point.record.id for point in points}
    for snapshot in snapshots:
        backup_id = naming.backup_of_snapshot(snapshot.name)
        if backup_id is None or backup_id in known:
            continue
        try:
            cinder.get(backup_id)
        except errors.NotFound:
            yield snapshot.name
