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

from osc_backup_port import errors, progress, record
from osc_backup_port.ceph import compare_images, heads, locating
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import chain_writer
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
    location = locating.locate(pools.backups, backup, None)
    if location.snapshot is None:
        raise errors.NotFound(
            f'Backup {backup.id}: image {pools.backups.name}/{location.image} has no snapshot of '
            'it, so nothing can be added to it.',
            'Make a full backup of the volume instead: openstack volume backup create '
            + backup.volume_id,
        )
    with pools.backups.lock(location.image):
        _check_newest(pools.backups, location.image, backup)
        volume = cinder.get_volume(backup.volume_id)
        if volume.status != 'available':
            raise errors.Conflict(
                f'Volume {volume.id}: is {volume.status}, expected available.',
                'Detach it, or wait until its restore is done: openstack volume show ' + volume.id,
            )
        image = f'volume-{volume.id}'
        state = _make(pools, location.image, image, location.snapshot.name, shown)
    return Result(state, volume.id, image, location.snapshot.name)


def _check_newest(pool: ceph_pool.Pool, name: str, backup: record.BackupRecord) -> None:
    """See that a backup is the newest on its image, and that HEAD is the same.

    :raises errors.Conflict: it is not
    """
    with pool.open(name) as image:
        chain_writer.wait_until_alone(image)
        newest = ceph_driver.newest(image.snapshots())
        newest_id = ceph_driver.backup_of_snapshot(newest.name) if newest else None
        if newest is None or newest_id != backup.id:
            raise errors.Conflict(
                f'Backup {backup.id}: is not the newest in image {pool.name}/{name}; that is '
                f'{newest_id}.',
                'Only the newest can be continued. Restore that one into the volume, and name '
                'it here.',
            )
        if heads.differs(image, newest):
            raise errors.Conflict(
                f'Image {pool.name}/{name}: has changed since its newest backup, {backup.id}; '
                'the next increment would be mixed with that.',
                'If no backup is being made of it: '
                f'{pool.commands.rbd("snap", "rollback", f"{name}@{newest.name}")}',
            )


def _make(pools: Pools, base: str, image: str, snapshot: str, shown: progress.Progress) -> str:
    """Make the snapshot on the volume, if the volume holds the bytes of the backup."""
    with pools.volumes.open(image, writable=True) as opened:
        there = {one.name for one in opened.snapshots()}
        if snapshot in there:
            _compare(pools, base, snapshot, image, snapshot, shown)
            return ALREADY_THERE
        # Cinder must never find it before it is proven, even if this run is killed.
        unproven = ceph_driver.temporary_snapshot(snapshot)
        if unproven in there:
            opened.remove_snapshot(unproven)
        opened.create_snapshot(unproven)
        try:
            _compare(pools, base, snapshot, image, unproven, shown)
            opened.rename_snapshot(unproven, snapshot)
        except BaseException:
            opened.remove_snapshot(unproven)
            raise
    return MADE


def _compare(
    pools: Pools, base: str, snapshot: str, image: str, on_volume: str, shown: progress.Progress
) -> None:
    with (
        pools.backups.open(base, snapshot) as original,
        pools.volumes.open(image, on_volume) as copy,
    ):
        shown.begin('Comparing', copy.size())
        difference = compare_images.compare(original, copy, limits.DEFAULT, shown)
    if difference is not None:
        backup_id = ceph_driver.backup_of_snapshot(snapshot)
        raise errors.Conflict(
            f'Image {pools.volumes.name}/{image}: is not as backup {backup_id} is; nothing was '
            'changed.',
            'Restore that backup into the volume and write nothing to it before this: '
            f'openstack volume backup restore {backup_id} <volume>',
        ) from difference
