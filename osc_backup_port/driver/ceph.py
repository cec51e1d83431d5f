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

"""The names that Cinder's Ceph backup driver gives to what it stores.

V is the id of the volume, B the id of the backup.  Pure: no cluster is asked.
Source: the table in doc/source/reference/naming.rst, for every release.
"""

import calendar
import json
import re
import time
from collections.abc import Iterable
from typing import Protocol, TypeVar

from osc_backup_port import errors, record

_ID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
_END_OF_TIME = 1e11
#: What Cinder writes: the text of ``time.time()``.  These digits are enough until the year 5138.
_SNAPSHOT = re.compile(rf'backup\.({_ID})\.snap\.([0-9]{{1,11}}(?:\.[0-9]{{1,20}})?)')
#: What Cinder takes for the snapshot of a backup: ``backup_snapshot_name_pattern`` of its driver.
_LIKE_SNAPSHOT = re.compile(r'^backup\.([a-z0-9\-]+?)\.snap\.(.+)$')
_IMAGE = re.compile(rf'volume-({_ID})\.backup\.(?:({_ID})|base)')
_IMAGE_OF_VOLUME = re.compile(rf'volume-({_ID})\.backup\.[!-.0-?A-~]+')
_METADATA = re.compile(rf'backup\.({_ID})\.meta')
_LOCK = re.compile(r'osc-backup-port\.(.+)\.lock')
_PART = '.part'


def own_image(backup: record.BackupRecord) -> str:
    """``volume-V.backup.B``: the image of a full backup, since Rocky."""
    return f'volume-{backup.volume_id}.backup.{backup.id}'


def legacy_image(backup: record.BackupRecord) -> str:
    """``volume-V.backup.base``: shared by all backups of a volume, once."""
    return legacy_image_of(backup.volume_id)


def legacy_image_of(volume_id: str) -> str:
    """The same, where there is no record."""
    return f'volume-{volume_id}.backup.base'


def parse_image(name: str) -> tuple[str, str | None] | None:
    """Return the ids of volume and backup that an image is named after.

    The second is None for ``volume-V.backup.base``, which names no backup.

    :return: None for an image that is none of the driver's
    """
    match = _IMAGE.fullmatch(name)
    return (match[1], match[2]) if match else None


def volume_of_image(name: str) -> str | None:
    """Return the id of the volume whose backups an image holds, by its name.

    Wider than :func:`parse_image`: a record may name any image of its volume.
    """
    match = None if image_of_temporary(name) else _IMAGE_OF_VOLUME.fullmatch(name)
    return match[1] if match else None


def image_for(volume_id: str, image: str) -> str | None:
    """Return what an image is to be called that holds backups of a volume.

    Backups that were imported to be those of another volume (``--for-volume``) lie in an image
    of the volume that they were made of.

    :return: None for an image that is none of the driver's
    """
    if volume_of_image(image) == volume_id:
        return image
    parsed = parse_image(image)
    return f'volume-{volume_id}.backup.{parsed[1] or "base"}' if parsed else None


def refuse_foreign_image(item: record.BackupRecord, image: str | None) -> None:
    """See that the image that a record leads Cinder to is one of its own volume.

    A restore of the backup would give away what is in it, and a deletion could delete it.

    :param image: what the record, or its parent, names; None: nothing
    :raises InvalidRecord: it is the image of another volume
    """
    if image is None or volume_of_image(image) == item.volume_id:
        return
    raise errors.InvalidRecord(
        f'Backup {item.id}: its record names the image {image!r}, expected an image of its own '
        f'volume: volume-{item.volume_id}.backup.*',
        'Do not import it, unless you know why it is so: a restore would give away what is in '
        'that image, and a deletion could delete it. To import it all the same: '
        '--allow-foreign-image',
    )


def in_image(item: record.BackupRecord, image: str) -> record.BackupRecord:
    """Let a record name the image in which its snapshot lies.

    Cinder looks for the snapshot in the image that the record names, and nowhere else. Without
    it, it copies an image as a whole, as that is by then: for all but the newest backup, wrong
    bytes and no error.
    """
    if item.base_image == image or not item.is_ceph:
        return item
    known = json.loads(item.service_metadata or '{}')
    return item.with_changes(service_metadata=json.dumps({**known, 'base': image}))


def target_image(backup: record.BackupRecord, parent: record.BackupRecord | None) -> str:
    """Return the name of the image in which Cinder looks for *backup*.

    Records of old layouts name no image.  The driver then takes the one that
    all backups of the volume share, unless it is a full backup that nothing
    depends on, which it also finds under a name of its own.
    """
    named = backup.base_image or (parent.base_image if parent else None)
    if named:
        return named
    shares = backup.parent_id or backup.snapshot_id or backup.num_dependent_backups
    return legacy_image(backup) if shares else own_image(backup)


def metadata_object(backup_id: str) -> str:
    """The RADOS object with the volume metadata of a backup."""
    return f'backup.{backup_id}.meta'


def backup_of_metadata(name: str) -> str | None:
    """Return the id of the backup that an object is the volume metadata of."""
    match = _METADATA.fullmatch(name)
    return match[1] if match else None


def backup_of_snapshot(name: str | None) -> str | None:
    """Return the id of the backup that a snapshot is, None for another one.

    Only ``backup.<id>.snap.<seconds since 1970>`` is the snapshot of a backup.
    """
    match = _SNAPSHOT.fullmatch(name or '')
    return match[1] if match else None


def time_of_snapshot(name: str) -> float:
    """Return when the snapshot of a backup was made, in seconds since 1970."""
    match = _SNAPSHOT.fullmatch(name)
    if match is None:
        raise ValueError(f'{name!r} is not the snapshot of a backup')
    return float(match[2])


def backup_of_odd_snapshot(name: str) -> str | None:
    """Return the backup whose snapshot Cinder takes this one for, though its name is wrong.

    :return: None for the snapshot of a backup, and for what Cinder passes over, too
    """
    match = _LIKE_SNAPSHOT.match(name)
    return match[1] if match and backup_of_snapshot(name) is None else None


class _Snapshot(Protocol):
    @property
    def id(self) -> int: ...

    @property
    def name(self) -> str: ...


T = TypeVar('T', bound=_Snapshot)


def by_age(snapshots: Iterable[T]) -> list[T]:
    """Return the snapshots of backups among those of an image, the oldest backup first.

    The time in the name decides, because Cinder goes by the time of a backup when it chooses
    what an incremental backup starts from.  The ids of snapshots tell another order where
    backups were imported out of order.
    """
    backups = (one for one in snapshots if backup_of_snapshot(one.name))
    return sorted(backups, key=lambda one: (time_of_snapshot(one.name), one.id))


def newest(snapshots: Iterable[T]) -> T | None:
    """Return the newest backup on an image: the one that HEAD has to equal.

    Cinder writes the next increment on top of HEAD, as the difference to this one.
    """
    return next(reversed(by_age(snapshots)), None)


def new_snapshot(backup: record.BackupRecord) -> str:
    """Return a name for the snapshot of a backup that brought none.

    The time in it is the one at which the backup was made, so that the order
    of a chain is the same by name and by age.
    """
    return f'backup.{backup.id}.snap.{_seconds(backup.created_at):.2f}'


def _seconds(created_at: str | None) -> float:
    try:
        parsed = time.strptime((created_at or '')[:19], '%Y-%m-%dT%H:%M:%S')
    except ValueError:
        return time.time()
    seconds = float(calendar.timegm(parsed))
    return seconds if 0 <= seconds < _END_OF_TIME else time.time()


def temporary_image(name: str) -> str:
    """The name under which an image is written until it is complete.

    Short, because librbd's names have at most 96 bytes.
    """
    return f'{name}{_PART}'


def temporary_snapshot(name: str) -> str:
    """The name of a snapshot until it is proven; Cinder takes it for no backup's."""
    return f'osc-backup-port.{name}'


def image_of_temporary(name: str) -> str | None:
    """Return what a temporary image will be called; None for another image."""
    return name.removesuffix(_PART) if name.endswith(_PART) else None


def lock_object(image: str) -> str:
    """The RADOS object whose lock keeps two runs of ours from one image."""
    return f'osc-backup-port.{image}.lock'


def image_of_lock(name: str) -> str | None:
    """Return the image that a lock object is for; None for another object."""
    match = _LOCK.fullmatch(name)
    return match[1] if match else None
