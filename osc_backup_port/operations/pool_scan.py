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

"""What lies in a backup pool, seen once and put down as plain data.

Whatever is judged later, and whatever a record is made of, comes out of this:
no cluster is needed to tell what a pool like that means.
"""

import dataclasses
import json
import typing
from collections.abc import Mapping

from osc_backup_port import errors, model
from osc_backup_port.ceph import naming
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.operations import heads, side_by_side

#: Seconds since the last sign of life after which a run of ours is dead: the
#: living give one every five, and clocks differ.
_DEAD_AFTER = 120


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What to look at beyond names, which are cheap.

    :param used: how much each snapshot takes; one small read for each
    :param heads: whether the image itself is as its newest snapshot; asks for
        every object of every image
    :param objects: metadata and locks that no image points to; the cluster
        lists every object of the pool for that
    """

    used: bool = False
    heads: bool = False
    objects: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is a backup.  Sizes are bytes.

    :param used: what it takes more than the snapshot before it
    """

    id: int
    name: str
    backup_id: str
    size: int
    used: int | None = None

    @property
    def time(self) -> float:
        """When the backup was made, in seconds since 1970."""
        return naming.time_of_snapshot(self.name)


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image that has a name of the driver's.

    :param backup_id: the backup it is named after; None for the shared
        ``volume-V.backup.base``
    :param snapshots: those of backups, in the order in which they were made
    :param used_by_head: what the image takes more than its last snapshot
    :param head_differs: whether it is not as its newest backup; None: not
        looked at, or it has none
    """

    name: str
    volume_id: str
    backup_id: str | None
    size: int
    snapshots: tuple[Snapshot, ...] = ()
    used_by_head: int | None = None
    head_differs: bool | None = None

    @property
    def used(self) -> int | None:
        """What all of it takes."""
        parts = [*(snapshot.used for snapshot in self.snapshots), self.used_by_head]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def of_backup(self, backup_id: str) -> list[Snapshot]:
        """Return the snapshots of a backup: one, if all is well."""
        return [snapshot for snapshot in self.snapshots if snapshot.backup_id == backup_id]


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeMetadata:
    """What the ``.meta`` object of a backup tells about its volume.

    :param values: ``volume-base-metadata``; empty where the object cannot be read
    """

    values: Mapping[str, typing.Any]

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        return value if isinstance(value, str) and value else None

    @property
    def volume_id(self) -> str | None:
        return self.text('id')


@dataclasses.dataclass(frozen=True, slots=True)
class Leftover:
    """What an import of ours keeps in the pool while it runs.

    :param image: what the image is called, or will be
    :param has_part: whether the temporary image is there
    :param has_lock: whether the object of the lock is there
    :param is_alive: whether the import seems to be running
    """

    image: str
    has_part: bool
    has_lock: bool
    is_alive: bool
    part_size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Scan:
    """A pool at one moment.

    :param metadata: by the id of the backup
    :param others: how many images have none of the driver's names
    :param is_complete: whether all objects were listed
    """

    pool: str
    images: Mapping[str, Image]
    metadata: Mapping[str, VolumeMetadata] = dataclasses.field(default_factory=dict)
    leftovers: tuple[Leftover, ...] = ()
    others: int = 0
    is_complete: bool = True

    def places_of(self, backup_id: str) -> list[tuple[Image, Snapshot]]:
        """Return every snapshot of a backup, whatever the name of its image."""
        return [
            (image, snapshot)
            for image in self.images.values()
            for snapshot in image.of_backup(backup_id)
        ]

    def images_of(self, volume_id: str | None) -> list[Image]:
        return [image for image in self.images.values() if image.volume_id == volume_id]


def scan(pool: ceph_pool.Pool, options: Options) -> Scan:
    """Look at the whole pool; change nothing.

    :raises CephError: the cluster refused or was lost
    """
    names = pool.images()
    ours = [name for name in names if naming.parse_image(name)]
    images = _each(lambda name: _image(pool, name, options), ours)
    found = {image.name: image for image in images if image}
    backups = {snapshot.backup_id for image in found.values() for snapshot in image.snapshots}
    backups |= {image.backup_id for image in found.values() if image.backup_id}
    locked = {name for name in ours if pool.object_age(naming.lock_object(name)) is not None}
    if options.objects:
        backups |= set(filter(None, map(naming.backup_of_metadata, pool.objects('backup.'))))
        locked |= set(filter(None, map(naming.image_of_lock, pool.objects('osc-backup-port.'))))
    metadata = _each(lambda backup: (backup, read_metadata(pool, backup)), sorted(backups))
    return Scan(
        pool.name,
        found,
        {backup: content for backup, content in metadata if content is not None},
        tuple(_leftovers(pool, names, locked)),
        len(names) - len(ours),
        options.objects,
    )


def read_metadata(pool: ceph_pool.Pool, backup_id: str) -> VolumeMetadata | None:
    """Return what is in the ``.meta`` object of a backup, None where there is none."""
    content = pool.read_object(naming.metadata_object(backup_id))
    if content is None:
        return None
    try:
        values = json.loads(content)['volume-base-metadata']
    except (ValueError, KeyError, TypeError):
        values = None
    return VolumeMetadata(values if isinstance(values, dict) else {})


T = typing.TypeVar('T')
A = typing.TypeVar('A')


def _each(function: typing.Callable[[A], T], items: list[A]) -> list[T]:
    """Call *function* for all; the first error is raised."""
    results = []
    for result in side_by_side.each(function, items):
        if isinstance(result, errors.PortError):
            raise result
        results.append(result)
    return results


def _image(pool: ceph_pool.Pool, name: str, options: Options) -> Image | None:
    """Look at one image; None where it has gone since the list was made."""
    parsed = naming.parse_image(name)
    if parsed is None:
        return None
    try:
        with pool.open(name) as opened:
            size = opened.size()
            points = [
                point for point in opened.snapshots() if naming.backup_of_snapshot(point.name)
            ]
            used = opened.used(points[-1].name if points else None) if options.used else None
            differs = None
            if options.heads and points:
                differs = heads.drifted_from(opened) is not None
        snapshots = [
            _snapshot(pool, name, points, number, options) for number in range(len(points))
        ]
    except errors.NotFound:
        return None
    return Image(name, *parsed, size, tuple(snapshots), used, differs)


def _snapshot(
    pool: ceph_pool.Pool, image: str, points: list[model.Snapshot], number: int, options: Options
) -> Snapshot:
    point = points[number]
    used = None
    if options.used:
        with pool.open(image, snapshot=point.name) as opened:
            used = opened.used(points[number - 1].name if number else None)
    backup_id = naming.backup_of_snapshot(point.name) or ''
    return Snapshot(point.id, point.name, backup_id, point.size, used)


def _leftovers(pool: ceph_pool.Pool, names: list[str], locked: set[str]) -> list[Leftover]:
    parts = set()
    for name in names:
        image = naming.image_of_temporary(name)
        if image and (naming.parse_image(image) or image in locked):
            parts.add(image)
    found = []
    for image in sorted(parts | locked):
        age = pool.object_age(naming.lock_object(image))
        writers, size = _part(pool, naming.temporary_image(image)) if image in parts else ([], 0)
        is_alive = bool(writers) or (age is not None and age < _DEAD_AFTER)
        if image in parts or age is not None:
            found.append(Leftover(image, image in parts, age is not None, is_alive, size))
    return found


def _part(pool: ceph_pool.Pool, name: str) -> tuple[list[str], int]:
    """Return who writes a temporary image, and how large it is."""
    try:
        with pool.open(name) as opened:
            return opened.other_writers(), opened.size()
    except errors.NotFound:
        return [], 0
