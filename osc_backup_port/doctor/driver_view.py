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

"""What Cinder's Ceph driver makes of a record in a given pool.

Pure.  Followed line by line from ``cinder/backup/drivers/ceph.py``:
``_restore_volume``, ``_diff_restore_allowed``, ``_full_restore``,
``_get_backup_base_name`` and ``_try_delete_base_image``.
"""

import dataclasses
from collections.abc import Collection, Mapping

from osc_backup_port import record
from osc_backup_port.doctor import pool_scan
from osc_backup_port.driver import ceph as ceph_driver

Images = Mapping[str, pool_scan.Image]


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """Where a restore takes its bytes from.

    :param image: None: nowhere, it fails
    :param snapshot: None: from the image itself, whatever that is by now
    :param duplicates: several snapshots of the backup, upon which the driver
        gives up
    """

    image: str | None
    snapshot: str | None = None
    duplicates: tuple[str, ...] = ()


def base_name(backup: record.BackupRecord, parent: record.BackupRecord | None) -> str:
    """Return the image that the driver goes to first."""
    if backup.base_image:
        return backup.base_image
    if backup.parent_id:
        return (parent.base_image if parent else None) or ceph_driver.legacy_image(backup)
    return ceph_driver.own_image(backup)


def restore(
    backup: record.BackupRecord, parent: record.BackupRecord | None, images: Images
) -> Reading:
    """Return where a restore of *backup* takes its bytes from."""
    base, legacy = base_name(backup, parent), ceph_driver.legacy_image(backup)
    # Only here the parent does not count.
    first = images.get(backup.base_image or legacy)
    points = first.seen_by_cinder(backup.id) if first else []
    if first and len(points) > 1:
        return Reading(first.name, duplicates=tuple(points))
    point = points[0] if points else None
    if point and _has(images, base, point):
        return Reading(base, point)
    for name in (legacy, base) if backup.snapshot_id else (base, legacy):
        if name in images and (point is None or _has(images, name, point)):
            return Reading(name, point)
    return Reading(None)


def is_known(
    backup: record.BackupRecord,
    parent: record.BackupRecord | None,
    reading: Reading,
    unreadable: Collection[str],
) -> bool:
    """Tell whether images that could not be read leave no doubt of a reading."""
    looked_at = {base_name(backup, parent), backup.base_image, ceph_driver.legacy_image(backup)}
    return reading.snapshot is not None or looked_at.isdisjoint(unreadable)


def delete(
    backup: record.BackupRecord, parent: record.BackupRecord | None, images: Images
) -> str | None:
    """Return the image that a deletion of *backup* works on."""
    return next(
        (
            name
            for name in (base_name(backup, parent), ceph_driver.legacy_image(backup))
            if name in images
        ),
        None,
    )


def _has(images: Images, name: str, snapshot: str) -> bool:
    image = images.get(name)
    if image is None:
        return False
    return snapshot in image.odd or any(point.name == snapshot for point in image.snapshots)
