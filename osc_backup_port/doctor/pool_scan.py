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

import contextlib
import dataclasses
import logging
import typing
from collections.abc import Mapping

from osc_backup_port import documents, errors, model
from osc_backup_port.ceph import commands as ceph_commands
from osc_backup_port.ceph import heads
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.records import side_by_side

LOG = logging.getLogger(__name__)

#: Seconds since the last sign of life after which a run of ours is dead: the
#: living give one every five, and clocks differ.
_DEAD_AFTER = 120


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What to look at beyond names, which are cheap.

    :param used: how much each snapshot takes; one small read for each
    :param heads: whether the image itself is as its newest snapshot; asks for
        every object of every image
    :param objects: volume metadata and locks that no image points to; the cluster
        lists every object of the pool for that
    """

    used: bool = False
    heads: bool = False
    objects: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is a backup.  Sizes are bytes.

    :param used: what it takes more than the snapshot before it
    :param has_lost_map: whether its object map is lost, or cannot be trusted
    """

    id: int
    name: str
    backup_id: str
    size: int
    used: int | None = None
    has_lost_map: bool = False

    @property
    def time(self) -> float:
        """When the backup was made, in seconds since 1970."""
        return ceph_driver.time_of_snapshot(self.name)


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image that has a name of the driver's.

    :param backup_id: the backup it is named after; None for the shared
        ``volume-V.backup.base``
    :param snapshots: those of backups, in the order in which they were made
    :param used_by_head: what the image takes more than its last snapshot
    :param head_differs: whether it is not as its newest backup; None: not
        looked at, or it has none
    :param odd: snapshots that Cinder takes for backups, and whose names are none it gives
    :param has_lost_map: whether the object map of the image as it is now is lost
    """

    name: str
    volume_id: str
    backup_id: str | None
    size: int
    snapshots: tuple[Snapshot, ...] = ()
    used_by_head: int | None = None
    head_differs: bool | None = None
    odd: tuple[str, ...] = ()
    has_lost_map: bool = False

    @property
    def used(self) -> int | None:
        """What all of it takes."""
        parts = [*(snapshot.used for snapshot in self.snapshots), self.used_by_head]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def of_backup(self, backup_id: str) -> list[Snapshot]:
        """Return the snapshots of a backup: one, if all is well."""
        return [snapshot for snapshot in self.snapshots if snapshot.backup_id == backup_id]

    def seen_by_cinder(self, backup_id: str) -> list[str]:
        """Return the names of all that Cinder takes for the snapshot of a backup."""
        odd = [name for name in self.odd if ceph_driver.backup_of_odd_snapshot(name) == backup_id]
        return [snapshot.name for snapshot in self.of_backup(backup_id)] + odd


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

    :param unreadable: images that are there and could not be looked at, and why
    :param metadata: of the volume, by the id of the backup
    :param others: the images that have none of the driver's names
    :param trash: the images in the trash of RBD
    :param is_complete: whether all objects were listed
    :param shell: commands that reach this cluster
    """

    pool: str
    images: Mapping[str, Image]
    metadata: Mapping[str, VolumeMetadata] = dataclasses.field(default_factory=dict)
    leftovers: tuple[Leftover, ...] = ()
    others: tuple[str, ...] = ()
    is_complete: bool = True
    unreadable: Mapping[str, errors.PortError] = dataclasses.field(default_factory=dict)
    trash: tuple[ceph_pool.Trashed, ...] = ()
    shell: ceph_commands.Commands | None = None

    @property
    def commands(self) -> ceph_commands.Commands:
        """Commands of Ceph, as an operator types them for this pool."""
        return self.shell or ceph_commands.Commands(pool=self.pool)

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
    ours = [name for name in names if ceph_driver.parse_image(name)]
    looked_at = dict(zip(ours, _each(lambda name: _look(pool, name, options), ours), strict=True))
    found = {name: one.image for name, one in looked_at.items() if one.image}
    unreadable = {name: one.problem for name, one in looked_at.items() if one.problem}
    backups = {snapshot.backup_id for image in found.values() for snapshot in image.snapshots}
    backups |= {image.backup_id for image in found.values() if image.backup_id}
    locked = {name for name in ours if pool.object_age(ceph_driver.lock_object(name)) is not None}
    if options.objects:
        backups |= set(filter(None, map(ceph_driver.backup_of_metadata, pool.objects('backup.'))))
        locked |= set(
            filter(None, map(ceph_driver.image_of_lock, pool.objects('osc-backup-port.')))
        )
    LOG.info(
        'Pool %s: %d images, %d of them of backups, %d cannot be read; %d backups, %d locks.',
        pool.name,
        len(names),
        len(ours),
        len(unreadable),
        len(backups),
        len(locked),
    )
    metadata = _each(lambda backup: (backup, read_metadata(pool, backup)), sorted(backups))
    leftovers = _leftovers(pool, names, locked, unreadable)
    return Scan(
        pool.name,
        found,
        {backup: content for backup, content in metadata if content is not None},
        tuple(leftovers),
        tuple(sorted(set(names) - set(ours))),
        options.objects,
        unreadable,
        tuple(pool.trash()),
        pool.commands,
    )


def read_metadata(pool: ceph_pool.Pool, backup_id: str) -> VolumeMetadata | None:
    """Return what is in the ``.meta`` object of a backup, None where there is none."""
    try:
        content = pool.read_object(ceph_driver.metadata_object(backup_id))
        if content is None:
            return None
        values = documents.read_json(content)['volume-base-metadata']
    except (errors.InvalidInput, ValueError, KeyError, TypeError):
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """What came of looking at an image; nothing, if it has gone since the list was made."""

    image: Image | None = None
    problem: errors.PortError | None = None


def _look(pool: ceph_pool.Pool, name: str, options: Options) -> _Look:
    try:
        return _Look(_image(pool, name, options))
    except errors.NotFound:
        if name not in pool.images():
            return _Look()
        return _Look(problem=_without_id(pool, name))
    except errors.PortError as error:
        return _Look(problem=error)


def _without_id(pool: ceph_pool.Pool, name: str) -> errors.PortError:
    return errors.CephError(
        f'Pool {pool.name}, image {name}: is in the list of images, and cannot be opened: its '
        f'object rbd_id.{name} is missing.',
        f'See what the cluster says: {pool.commands.rbd("info", name)}',
    )


def _image(pool: ceph_pool.Pool, name: str, options: Options) -> Image:
    """Look at one image.

    :raises NotFound: it is not there
    :raises PortError: it cannot be read
    """
    with pool.open(name) as opened:
        size, snapshots = opened.size(), opened.snapshots()
        points = [point for point in snapshots if ceph_driver.backup_of_snapshot(point.name)]
        used, lost_map, differs = None, False, None
        if options.used:
            used = opened.used(points[-1].name if points else None)
            lost_map = pool.has_lost_object_map(opened)
        if options.heads and points:
            differs = heads.drifted_from(opened) is not None
    return Image(
        name,
        *(ceph_driver.parse_image(name) or (name, None)),
        size,
        tuple(_snapshot(pool, name, points, number, options) for number in range(len(points))),
        used,
        differs,
        tuple(one.name for one in snapshots if ceph_driver.backup_of_odd_snapshot(one.name)),
        lost_map,
    )


def _snapshot(
    pool: ceph_pool.Pool, image: str, points: list[model.Snapshot], number: int, options: Options
) -> Snapshot:
    point = points[number]
    used, lost_map = None, False
    if options.used:
        # It may have gone since, and so may the one before it.
        with contextlib.suppress(errors.NotFound), pool.open(image, point.name) as opened:
            lost_map = opened.has_invalid_object_map()
            used = opened.used(points[number - 1].name if number else None)
    backup_id = ceph_driver.backup_of_snapshot(point.name) or ''
    return Snapshot(point.id, point.name, backup_id, point.size, used, lost_map)


def _leftovers(
    pool: ceph_pool.Pool,
    names: list[str],
    locked: set[str],
    unreadable: dict[str, errors.PortError],
) -> list[Leftover]:
    """Return what imports keep in the pool; add the parts that cannot be read to *unreadable*."""
    parts = set()
    for name in names:
        image = ceph_driver.image_of_temporary(name)
        if image and (ceph_driver.parse_image(image) or image in locked):
            parts.add(image)
    found = []
    for image in sorted(parts | locked):
        age = pool.object_age(ceph_driver.lock_object(image))
        part, writers, size = ceph_driver.temporary_image(image), [], 0
        if image in parts:
            try:
                with pool.open(part) as opened:
                    writers, size = opened.other_writers(), opened.size()
            except errors.NotFound:
                pass
            except errors.PortError as error:
                unreadable[part] = error
                continue
        is_alive = bool(writers) or (age is not None and age < _DEAD_AFTER)
        if image in parts or age is not None:
            found.append(Leftover(image, image in parts, age is not None, is_alive, size))
    return found
