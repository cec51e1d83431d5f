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

"""Make records of backups out of nothing but what lies in the pool.  Pure.

For the day on which Cinder's database is gone and nobody exported the records.
What a restore needs is all there: image names, snapshots, sizes, ``.meta`` objects.
"""

import dataclasses
import datetime
import json
import typing
import uuid
from collections.abc import Iterator

from osc_backup_port import record as record_module
from osc_backup_port import units
from osc_backup_port.doctor import pool_scan
from osc_backup_port.driver import ceph as ceph_driver

_DRIVER = 'cinder.backup.drivers.ceph.CephBackupDriver'
#: An id of a backup that nothing tells is made from the name of the image, so
#: that it is the same each time.
_NAMESPACE = uuid.UUID('6d6ff2c0-4a5e-5c38-9d1c-1e0a6b5f5a2e')


_FULL_COPY = (
    'it has no snapshot, so that a restore copies the whole image, which Cinder 22.0.0 to 28.0.0 '
    'does wrongly (Launchpad 2155612)'
)


@dataclasses.dataclass(frozen=True, slots=True)
class Rebuilt:
    """A record, and what had to be left open in it.

    :param image: where the backup lies
    :param notes: what is not known, or guessed
    """

    record: record_module.BackupRecord
    image: str
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped:
    """A backup of which no record can be made that restores right."""

    backup_id: str | None
    volume_id: str
    image: str
    reason: str


def rebuild(scan: pool_scan.Scan, volume_id: str | None = None) -> list[Rebuilt | Skipped]:
    """Return a record for every backup in the pool, parents first.

    :param volume_id: only those of this volume
    """
    found: list[Rebuilt | Skipped] = []
    for image in sorted(scan.images.values(), key=lambda image: image.name):
        if volume_id in (None, image.volume_id):
            found += _odd(scan, image)
            if image.snapshots:
                found += _chain(scan, image)
            elif not image.odd:
                found.append(_head(scan, image))
    return found + list(_unreadable(scan, volume_id))


def _odd(scan: pool_scan.Scan, image: pool_scan.Image) -> Iterator[Skipped]:
    for name in image.odd:
        reason = (
            f'its snapshot {name} has no time in seconds in its name. Rename it: '
            f'{scan.commands.rbd("snap", "rename", f"{image.name}@{name}")} '
            f'{image.name}@backup.<backup id>.snap.<seconds since 1970>'
        )
        yield Skipped(
            ceph_driver.backup_of_odd_snapshot(name), image.volume_id, image.name, reason
        )


def _unreadable(scan: pool_scan.Scan, volume_id: str | None) -> Iterator[Skipped]:
    for name, problem in scan.unreadable.items():
        parsed = ceph_driver.parse_image(name)
        if parsed and volume_id in (None, parsed[0]):
            reason = ' '.join(filter(None, [problem.problem, problem.hint]))
            yield Skipped(parsed[1], parsed[0], name, reason)


def _chain(scan: pool_scan.Scan, image: pool_scan.Image) -> Iterator[Rebuilt | Skipped]:
    good = []
    for point in _in_order(image):
        places = scan.places_of(point.backup_id)
        if len(places) == 1:
            good.append(point)
            continue
        names = ', '.join(f'{place.name}@{other.name}' for place, other in places)
        reason = f'{len(places)} snapshots are this backup: {names}. Remove the wrong one first.'
        yield Skipped(point.backup_id, image.volume_id, image.name, reason)
    for number, point in enumerate(good):
        yield _make(
            scan,
            image,
            point.backup_id,
            point.size,
            _time(point.time),
            [],
            # All backups on an image name it, in old layouts too: Cinder takes the
            # quick way then, and needs no parent to find the image.
            service_metadata=json.dumps({'base': image.name}),
            parent_id=good[number - 1].backup_id if number else None,
            num_dependent_backups=int(number + 1 < len(good)),
        )


def _in_order(image: pool_scan.Image) -> list[pool_scan.Snapshot]:
    """Return the snapshots, the full backup first, which the image is named after.

    An import may have made them in any order.
    """
    points = ceph_driver.by_age(image.snapshots)
    return sorted(points, key=lambda point: point.backup_id != image.backup_id)


def _head(scan: pool_scan.Scan, image: pool_scan.Image) -> Rebuilt | Skipped:
    """Make the record of an image that has no snapshots: it is one backup, as a whole.

    Under the name of its own backup Cinder finds it by itself, and made its own
    record without naming it.
    """
    notes = [_FULL_COPY]
    backup_id = image.backup_id
    base = None
    if backup_id is None:
        base = json.dumps({'base': image.name})
        backup_id, note = _guess_id(scan, image)
        notes.append(note)
    elif scan.places_of(backup_id):
        reason = 'the snapshot of this backup is on another image. Remove the wrong one first.'
        return Skipped(backup_id, image.volume_id, image.name, reason)
    return _make(scan, image, backup_id, image.size, None, notes, service_metadata=base)


def _guess_id(scan: pool_scan.Scan, image: pool_scan.Image) -> tuple[str, str]:
    """Return the id of the backup in ``volume-V.backup.base``, and how sure that is."""
    own = {other.backup_id for other in scan.images.values() if not other.snapshots}
    fitting = [
        backup_id
        for backup_id, content in scan.metadata.items()
        if content.volume_id == image.volume_id
        and backup_id not in own
        and not scan.places_of(backup_id)
    ]
    if len(fitting) == 1:
        return fitting[0], 'its id is that of the only volume metadata here without an image'
    made = str(uuid.uuid5(_NAMESPACE, image.name))
    found = f'; it may be one of {", ".join(fitting)}' if fitting else ''
    return made, f'its id is not known, so it got a new one{found}'


def _make(
    scan: pool_scan.Scan,
    image: pool_scan.Image,
    backup_id: str,
    size: int,
    created_at: str | None,
    notes: list[str],
    **fields: typing.Any,
) -> Rebuilt:
    volume = scan.metadata.get(backup_id) or pool_scan.VolumeMetadata({})
    notes = [*notes, *_notes(volume)]
    if created_at is None:
        created_at, note = _guess_time(volume)
        notes.append(note)
    name = volume.text('display_name')
    origin = f'Record rebuilt from pool {scan.pool}'
    values = {
        **_EMPTY,
        'id': backup_id,
        'user_id': volume.text('user_id'),
        'project_id': volume.text('project_id'),
        'volume_id': image.volume_id,
        'container': scan.pool,
        'size': -(-size // units.GIB),
        'display_description': (f'{origin}; volume {name}' if name else origin)[:255],
        'data_timestamp': created_at,
        'created_at': created_at,
        'updated_at': created_at,
        **fields,
    }
    url = record_module.BackupRecord.encode(values)
    source = f'Backup {backup_id}, rebuilt from image {image.name}'
    made = record_module.BackupRecord.decode(_DRIVER, url, source)
    return Rebuilt(made, image.name, tuple(notes))


#: Every field that Cinder 29 exports; older releases take what they know of it.
_EMPTY: dict[str, typing.Any] = {
    'driver_info': {},
    'id': None,
    'user_id': None,
    'project_id': None,
    'volume_id': None,
    'host': None,
    'availability_zone': None,
    'container': None,
    'parent_id': None,
    'status': 'available',
    'fail_reason': None,
    'size': None,
    'display_name': None,
    'display_description': None,
    'service_metadata': None,
    'service': _DRIVER,
    'object_count': 0,
    'temp_volume_id': None,
    'temp_snapshot_id': None,
    'num_dependent_backups': 0,
    'snapshot_id': None,
    'data_timestamp': None,
    'restore_volume_id': None,
    'metadata': {},
    'encryption_key_id': None,
    'created_at': None,
    'updated_at': None,
    'deleted_at': None,
    'deleted': False,
}


def _notes(volume: pool_scan.VolumeMetadata) -> Iterator[str]:
    yield 'the name of the backup is not known'
    if not volume.values:
        yield 'there is no volume metadata: its project, name and properties are not known'
    key = volume.text('encryption_key_id')
    if key:
        # In the record it would be the backup's own, which Cinder destroys together
        # with the backup; but it is the volume's. Without one in the record a
        # restore takes it from the volume metadata.
        yield (
            f'the volume is encrypted with the key {key}; the copy of it that the backup had is '
            'not known, and a restore takes the one in the volume metadata'
        )


def _guess_time(volume: pool_scan.VolumeMetadata) -> tuple[str, str]:
    """Return a time for a backup that has no snapshot to tell it."""
    for name in ('updated_at', 'created_at'):
        text = volume.text(name)
        if text:
            return f'{text[:19]}Z', 'it was made at that time or later'
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    return _time(now) or '', 'when it was made is not known'


def _time(seconds: float) -> str | None:
    if not seconds:
        return None
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.strftime('%Y-%m-%dT%H:%M:%SZ')
