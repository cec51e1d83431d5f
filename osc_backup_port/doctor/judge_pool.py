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

"""Judge what lies in a pool by what Cinder knows.  Pure."""

from collections.abc import Iterator

from osc_backup_port import errors, units
from osc_backup_port.doctor import driver_view, known_backups, pool_scan
from osc_backup_port.doctor.findings import Finding
from osc_backup_port.driver import ceph as ceph_driver

_BACKUP = 'openstack volume backup'


class Judge:
    """Holds all that lies in a pool against what Cinder knows.

    :param readings: where the restore of each backup takes its bytes from
    """

    def __init__(
        self,
        known: list[known_backups.Known],
        scan: pool_scan.Scan,
        readings: dict[str, driver_view.Reading],
    ) -> None:
        self._scan = scan
        self._known = {one.id for one in known}
        self._readings = readings
        # Of these nobody can tell which image is theirs: all of their volume are.
        self._volumes = {one.backup.volume_id for one in known if one.id not in readings}

    def findings(self) -> Iterator[Finding]:
        for image in self._scan.images.values():
            yield from self._of_image(image)
        for name, problem in self._scan.unreadable.items():
            yield self._unreadable(name, problem)
        yield from self._orphans()
        for leftover in self._scan.leftovers:
            if not leftover.is_alive:
                yield self._partial(leftover)

    def _of_image(self, image: pool_scan.Image) -> Iterator[Finding]:
        yield from self._odd(image)
        yield from self._lost_maps(image)
        leaked = [point for point in image.snapshots if point.backup_id not in self._known]
        if len(leaked) == len(image.snapshots) and not self._is_read(image):
            yield self._leaked_image(image)
            return
        for point in leaked:
            yield self._leaked_snapshot(image, point)
        for point in image.snapshots:
            reading = self._readings.get(point.backup_id)
            # Where Cinder finds no snapshot of it, that is the finding.
            if reading and reading.snapshot and reading.image != image.name:
                yield self._stray(image, point, reading)
        newest = ceph_driver.newest(image.snapshots)
        if newest is not None and image.head_differs:
            yield self._drifted(image, newest)

    def _is_read(self, image: pool_scan.Image) -> bool:
        """Tell whether a restore may need the image itself, not its snapshots."""
        if image.backup_id in self._known or image.volume_id in self._volumes:
            return True
        return any(reading.image == image.name for reading in self._readings.values())

    def _leaked_image(self, image: pool_scan.Image) -> Finding:
        backups = [point.backup_id for point in image.snapshots]
        if not backups and image.backup_id:
            backups = [image.backup_id]
        held = f'holds {len(backups)} backups' if len(backups) != 1 else f'holds {backups[0]}'
        if not backups:
            held = 'holds a backup whose id it does not tell'
        return Finding(
            'leaked-image',
            f'image {image.name}',
            f'{held}; Cinder knows no backup in it. It takes {_size(image.used, image.size)}.',
            f'{_have_back(image)}. When no cloud needs it: {self._scan.commands.rbd()} snap purge '
            f'{image.name}; {self._scan.commands.rbd()} rm {image.name}',
            backups[0] if len(backups) == 1 else None,
            used=image.used,
        )

    def _leaked_snapshot(self, image: pool_scan.Image, point: pool_scan.Snapshot) -> Finding:
        return Finding(
            'leaked-snapshot',
            f'snapshot {image.name}@{point.name}',
            f'Cinder knows no backup {point.backup_id}, but others on this image. It takes '
            f'{_size(point.used, point.size)}.',
            f'{_have_back(image)}. When no cloud needs it: {self._scan.commands.rbd()} snap rm '
            f'{image.name}@{point.name}',
            point.backup_id,
            used=point.used,
        )

    def _stray(
        self, image: pool_scan.Image, point: pool_scan.Snapshot, reading: driver_view.Reading
    ) -> Finding:
        return Finding(
            'stray-snapshot',
            f'snapshot {image.name}@{point.name}',
            f'is of backup {point.backup_id}, for which Cinder looks at {reading.image}.',
            'When that backup restores right from there: '
            f'{self._scan.commands.rbd()} snap rm {image.name}@{point.name}',
            point.backup_id,
            used=point.used,
        )

    def _drifted(self, image: pool_scan.Image, newest: pool_scan.Snapshot) -> Finding:
        return Finding(
            'head-drifted',
            f'image {image.name}',
            f'is not as its newest snapshot {newest.name}.',
            'While no backup of it is being made: '
            f'{self._scan.commands.rbd()} snap rollback {image.name}@{newest.name}',
        )

    def _odd(self, image: pool_scan.Image) -> Iterator[Finding]:
        rbd = self._scan.commands.rbd
        for name in image.odd:
            place = f'{image.name}@{name}'
            backup_id = ceph_driver.backup_of_odd_snapshot(name)
            yield Finding(
                'odd-snapshot',
                f'snapshot {place}',
                f'expected backup.<backup id>.snap.<seconds since 1970>; Cinder takes it for '
                f'backup {backup_id} all the same.',
                f'If it is that backup: {rbd("snap", "rename", place)} '
                f'{image.name}@backup.{backup_id}.snap.<seconds>, and the same on the volume, '
                f'if it has that snapshot, too. If nobody needs it: {rbd("snap", "rm", place)}',
                backup_id,
            )

    def _lost_maps(self, image: pool_scan.Image) -> Iterator[Finding]:
        lost = [f'snapshot {image.name}@{one.name}' for one in image.snapshots if one.has_lost_map]
        for target in lost + [f'image {image.name}'] * image.has_lost_map:
            yield Finding(
                'lost-object-map',
                target,
                'its object map is lost, damaged or marked as invalid.',
                self._scan.commands.rbd('object-map', 'rebuild', target.partition(' ')[2]),
            )

    def _unreadable(self, name: str, problem: errors.PortError) -> Finding:
        backup_id = (ceph_driver.parse_image(name) or ('', None))[1]
        text = problem.problem.replace('\n', ' ')
        hint = problem.hint or self._scan.commands.rbd('info', name)
        return Finding('unreadable-image', f'image {name}', text, hint, backup_id)

    def _orphans(self) -> Iterator[Finding]:
        """Find volume metadata that is certain to be nobody's: all of the pool has to be known."""
        if self._scan.unreadable:
            return
        for backup_id, content in self._scan.metadata.items():
            if backup_id in self._known or has_data(self._scan, backup_id, content):
                continue
            name = ceph_driver.metadata_object(backup_id)
            yield Finding(
                'orphan-metadata',
                f'object {name}',
                'Cinder knows no such backup, and no image or snapshot of it is in the pool.',
                f'{_BACKUP} image check --fix orphan-metadata --keep <directory>',
                backup_id,
            )

    def _partial(self, leftover: pool_scan.Leftover) -> Finding:
        part, lock = (
            ceph_driver.temporary_image(leftover.image),
            ceph_driver.lock_object(leftover.image),
        )
        target = f'image {part}' if leftover.has_part else f'object {lock}'
        there = [part] * leftover.has_part + [lock] * leftover.has_lock
        size = f' of {units.human_size(leftover.part_size)}' if leftover.has_part else ''
        return Finding(
            'partial-import',
            target,
            f'an import into {leftover.image}{size} did not end, and none is running; it left '
            f'{" and ".join(there)}.',
            f'Run the import again, or take it away: {_BACKUP} image check --fix partial-import',
        )


def has_data(scan: pool_scan.Scan, backup_id: str, content: pool_scan.VolumeMetadata) -> bool:
    """Tell whether there may be an image that a ``.meta`` object belongs to.

    An image without snapshots does not tell whose it is, so each of the same
    volume counts; and an import of ours may be about to end.
    """
    if scan.places_of(backup_id):
        return True
    if any(backup_id in leftover.image for leftover in scan.leftovers):
        return True
    # Set aside under another name, or thrown away: it can come back.
    names = [*scan.others, *(one.name for one in scan.trash)]
    if any(backup_id in name or (content.volume_id or '.backup.') in name for name in names):
        return True
    if any(image.seen_by_cinder(backup_id) for image in scan.images.values()):
        return True
    if content.volume_id is None:
        # Nobody can tell the volume: only a pool without such images is sure.
        return any(not image.snapshots for image in scan.images.values())
    return any(
        not image.snapshots and image.backup_id in (None, backup_id)
        for image in scan.images_of(content.volume_id)
    ) or any(content.volume_id in leftover.image for leftover in scan.leftovers)


def _have_back(image: pool_scan.Image) -> str:
    return (
        f'To have it back: {_BACKUP} metadata rebuild --volume {image.volume_id} --directory '
        '<directory>'
    )


def _size(used: int | None, size: int) -> str:
    return units.human_size(used) if used is not None else f'at most {units.human_size(size)}'
