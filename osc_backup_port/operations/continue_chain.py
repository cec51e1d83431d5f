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

"""Let the next incremental backup of a restored volume continue an imported chain.

Cinder takes the newest backup with the volume's id as the parent, and what has changed on
the volume since the snapshot that is named as that backup's in the pool of the backups.
A restore into the very volume that a record names copies the bytes and leaves no such
snapshot (``cinder/backup/drivers/ceph.py``, ``_diff_restore_allowed``).  So it is made
here, and only where the volume proves to hold the very bytes of the backup.
"""

import dataclasses
import typing

from osc_backup_port import errors, model, progress, record
from osc_backup_port.ceph import locating, naming
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.operations import compare_images
from osc_backup_port.transfer import limits

MADE = 'can be continued'
ALREADY_THERE = 'could be continued already'


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def export_record(self, backup_id: str) -> record.BackupRecord: ...

    def get_volume(self, volume_id: str) -> resources.Volume: ...


@dataclasses.dataclass(frozen=True)
class Pools:
    """Where the backups lie, and where the volumes do."""

    backups: ceph_pool.Pool
    volumes: ceph_pool.Pool


@dataclasses.dataclass(frozen=True)
class Result:
    """What can be continued: the image of the volume, and the snapshot on it."""

    state: str
    volume_id: str
    image: str
    snapshot: str


def run(cinder: Cinder, pools: Pools, backup_id: str, shown: progress.Progress) -> Result:
    """Make the snapshot on the volume of a backup.

    :raises errors.NotFound: the volume, or the snapshot of the backup, is not there
    :raises errors.Conflict: the volume does not hold the bytes of the backup, or the backup
        is not the newest of its chain
    """
    backup = cinder.export_record(backup_id)
    base, snapshot = _newest_point(pools.backups, backup)
    volume = cinder.get_volume(backup.volume_id)
    if volume.status != 'available':
        raise errors.Conflict(
            f'Volume {volume.id}: is {volume.status}, expected available.',
            'Detach it, or wait until its restore is done: openstack volume show ' + volume.id,
        )
    image = f'volume-{volume.id}'
    state = ALREADY_THERE
    with pools.volumes.open(image, writable=True) as opened:
        if snapshot.name not in {one.name for one in opened.snapshots()}:
            opened.create_snapshot(snapshot.name)
            state = MADE
        try:
            _compare(pools, base, image, snapshot.name, shown)
        except BaseException:
            if state == MADE:
                opened.remove_snapshot(snapshot.name)
            raise
    return Result(state, volume.id, image, snapshot.name)


def _newest_point(pool: ceph_pool.Pool, backup: record.BackupRecord) -> tuple[str, model.Snapshot]:
    """Return the image and the snapshot of a backup that its image ends with."""
    location = locating.locate(pool, backup, None)
    if location.snapshot is None:
        raise errors.NotFound(
            f'Backup {backup.id}: image {pool.name}/{location.image} has no snapshot of it, so '
            'nothing can be added to it.',
            'Make a full backup of the volume instead: openstack volume backup create '
            + backup.volume_id,
        )
    with pool.open(location.image) as image:
        points = [one for one in image.snapshots() if naming.backup_of_snapshot(one.name)]
        newest = max(points, key=lambda one: one.id)
        if newest.id != location.snapshot.id:
            raise errors.Conflict(
                f'Backup {backup.id}: is not the newest in image {pool.name}/{location.image}; '
                f'that is {naming.backup_of_snapshot(newest.name)}.',
                'Only the newest can be continued. Restore that one into the volume, and name '
                'it here.',
            )
        if image.used(newest.name):
            raise errors.Conflict(
                f'Image {pool.name}/{location.image}: has changed since its newest backup, '
                f'{backup.id}; the next increment would be mixed with that.',
                'If no backup is being made of it: rbd snap rollback '
                f'{pool.name}/{location.image}@{newest.name}',
            )
    return location.image, location.snapshot


def _compare(pools: Pools, base: str, image: str, snapshot: str, shown: progress.Progress) -> None:
    with (
        pools.backups.open(base, snapshot) as original,
        pools.volumes.open(image, snapshot) as copy,
    ):
        shown.begin('Comparing', copy.size())
        try:
            compare_images.compare(original, copy, limits.DEFAULT, shown)
        except errors.InvalidInput as error:
            raise errors.Conflict(
                f'Image {pools.volumes.name}/{image}: is not as backup '
                f'{naming.backup_of_snapshot(snapshot)} is; nothing was changed.',
                'Restore that backup into the volume and write nothing to it before this: '
                f'openstack volume backup restore {naming.backup_of_snapshot(snapshot)} <volume>',
            ) from error
