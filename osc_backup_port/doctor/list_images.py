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

"""What lies in a backup pool, as rows and as a tree."""

import collections
import collections.abc
import dataclasses
import datetime

from osc_backup_port import errors, units
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.doctor import pool_scan
from osc_backup_port.driver import ceph as ceph_driver

UNKNOWN = 'unknown'


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A backup in the pool: a snapshot, or an image without any.

    :param backup_id: None where nothing tells it
    :param size: of the volume, in bytes; None: not known
    :param used: bytes it takes more than the one before it; None: not known
    :param status: what Cinder says of it; ``unknown``: nothing
    :param is_first: whether it is the first one on its image
    """

    volume_id: str
    image: str
    snapshot: str | None
    backup_id: str | None
    created_at: str | None
    size: int | None
    used: int | None
    status: str
    name: str | None
    project_id: str | None
    has_metadata: bool
    is_first: bool
    is_readable: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """What is in a pool.

    :param problems: why images that are there could not be read; each has a row, too
    """

    rows: list[Row]
    problems: list[errors.PortError]


def run(
    pool: ceph_pool.Pool,
    backups: collections.abc.Sequence[resources.Backup],
    with_used: bool,
    volume_id: str | None = None,
) -> Listing:
    """Return what is in the pool, by volume and by age.

    :raises CephError: the cluster refused or was lost
    """
    scan = pool_scan.scan(pool, pool_scan.Options(used=with_used, objects=False))
    unreadable = {name: _ids(name) for name in scan.unreadable}
    mine = {name: ids for name, ids in unreadable.items() if volume_id in (None, ids[0])}
    found = rows(scan, backups, volume_id)
    found += [_unreadable_row(scan, name, *ids, backups) for name, ids in mine.items()]
    return Listing(found, [scan.unreadable[name] for name in mine])


def _ids(image: str) -> tuple[str, str | None]:
    """Return the ids that the name of an image tells, or of the temporary one of an import."""
    return ceph_driver.parse_image(ceph_driver.image_of_temporary(image) or image) or (
        UNKNOWN,
        None,
    )


def _unreadable_row(
    scan: pool_scan.Scan,
    name: str,
    volume_id: str,
    backup_id: str | None,
    backups: collections.abc.Sequence[resources.Backup],
) -> Row:
    image = pool_scan.Image(name, volume_id, backup_id, 0)
    known = {backup.id: backup for backup in backups}
    row = _row(scan, image, None, backup_id, known, True)
    return dataclasses.replace(row, size=None, is_readable=False)


def rows(
    scan: pool_scan.Scan,
    backups: collections.abc.Sequence[resources.Backup],
    volume_id: str | None = None,
) -> list[Row]:
    known = {backup.id: backup for backup in backups}
    heads = _heads(backups)
    found = []
    for image in sorted(scan.images.values(), key=_order):
        if volume_id not in (None, image.volume_id):
            continue
        for number, point in enumerate(image.snapshots):
            found.append(_row(scan, image, point, point.backup_id, known, number == 0))
        for name in image.odd:
            row = _row(scan, image, None, None, known, not image.snapshots)
            found.append(dataclasses.replace(row, snapshot=name, used=None))
        if not image.snapshots and not image.odd:
            backup_id = image.backup_id or heads.get(image.name)
            found.append(_row(scan, image, None, backup_id, known, True))
    return found


def _heads(backups: collections.abc.Sequence[resources.Backup]) -> dict[str, str]:
    """Return whose ``volume-V.backup.base`` is, where only one backup can have made it."""
    owners = collections.defaultdict(list)
    for backup in backups:
        if backup.snapshot_id and backup.status == 'available':
            owners[f'volume-{backup.volume_id}.backup.base'].append(backup.id)
    return {image: ids[0] for image, ids in owners.items() if len(ids) == 1}


def _order(image: pool_scan.Image) -> tuple[str, float, str]:
    first = min((point.time for point in image.snapshots), default=0.0)
    return image.volume_id, first, image.name


def _row(
    scan: pool_scan.Scan,
    image: pool_scan.Image,
    point: pool_scan.Snapshot | None,
    backup_id: str | None,
    known: dict[str, resources.Backup],
    is_first: bool,
) -> Row:
    backup = known.get(backup_id or '')
    created = _time(point.time) if point else (backup.created_at if backup else None)
    return Row(
        image.volume_id,
        image.name,
        point.name if point else None,
        backup_id,
        created[:19] if created else None,
        point.size if point else image.size,
        point.used if point else image.used_by_head,
        backup.status if backup else UNKNOWN,
        backup.name if backup else None,
        backup.project_id if backup else None,
        backup_id in scan.metadata,
        is_first,
    )


def _time(seconds: float) -> str | None:
    if not seconds:
        return None
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.strftime('%Y-%m-%dT%H:%M:%S')


def tree(found: list[Row]) -> list[str]:
    """Return lines that show volumes, their images, and the backups on these."""
    lines: list[str] = []
    volumes: dict[str, dict[str, list[Row]]] = {}
    for row in found:
        volumes.setdefault(row.volume_id, {}).setdefault(row.image, []).append(row)
    for volume_id, images in volumes.items():
        everything = [row for image in images.values() for row in image]
        lines.append(f'volume {volume_id}  {_count(len(everything))}{_used(everything)}')
        for place, (image, backups) in enumerate(images.items(), 1):
            is_last = place == len(images)
            lines.append(f'{"└" if is_last else "├"}── {image}')
            indent = '    ' if is_last else '│   '
            for number, row in enumerate(backups, 1):
                branch = '└── ' if number == len(backups) else '├── '
                lines.append(f'{indent}{branch}{_leaf(row)}')
    plural = '' if len(volumes) == 1 else 's'
    lines.append(f'{_count(len(found))} of {len(volumes)} volume{plural}{_used(found)}')
    return lines


def _leaf(row: Row) -> str:
    kind = '+' if row.snapshot and not row.is_first else ' '
    used = units.human_size(row.used) if row.used is not None else '-'
    words = [
        f'{row.backup_id or "backup of unknown id":36}',
        f'{row.created_at or "-":19}',
        f'{units.human_size(row.size) if row.size is not None else "-":>10}',
        f'{kind}{used:>10}',
        f'{row.status:10}',
        row.name or '',
        '' if row.is_readable else '(cannot be read)',
        '' if row.snapshot or not row.is_readable else '(no snapshot)',
        '' if row.has_metadata else '(no volume metadata)',
    ]
    return '  '.join(word for word in words if word).rstrip()


def _count(number: int) -> str:
    return '1 backup' if number == 1 else f'{number} backups'


def _used(found: list[Row]) -> str:
    known = [row.used for row in found if row.used is not None]
    return f', {units.human_size(sum(known))}' if known else ''
