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

"""What is in an archive, read from its documents, without its segments."""

import dataclasses
import hashlib
import logging
import shlex
from collections.abc import Iterator

from osc_backup_port import errors, model, record, spool
from osc_backup_port.archive import manifest, names, sealed
from osc_backup_port.archive import store as archive_store
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import record_file

LOG = logging.getLogger(__name__)

#: The largest record, and the largest volume metadata.  Both have some 2 KiB.
MAX_SMALL_FILE = model.MAX_VOLUME_METADATA


@dataclasses.dataclass(frozen=True, slots=True)
class Backup:
    """One backup in an archive: an increment and what belongs to it."""

    image: str
    increment: manifest.Increment
    record: record.BackupRecord
    _volume_metadata: spool.Spooled | None

    @property
    def volume_metadata(self) -> bytes | None:
        """The content of the ``.meta`` object; None where there was none."""
        return None if self._volume_metadata is None else self._volume_metadata.read()

    @property
    def id(self) -> str:
        return self.increment.backup_id

    @property
    def path(self) -> str:
        return f'{self.image}/{self.increment.folder}'


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """What cannot be used.

    :param image: empty: the rest of a stream
    :param backup_id: empty: the whole image
    :param folder: of the increment; empty where that is not known
    """

    image: str
    backup_id: str
    error: errors.InvalidInput
    folder: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """The backups that share an image, in the order in which they were added.

    :param backups: those that can be had, with all that they build on
    :param unfinished: those that a dead run left behind, or one is still writing, and those
        whose folder is gone: all that is to be written anew
    :param damaged: the others
    """

    name: str
    layout: model.ImageLayout
    backups: tuple[Backup, ...]
    unfinished: tuple[Damage, ...]
    damaged: tuple[Damage, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.backups or self.unfinished or self.damaged)


@dataclasses.dataclass(frozen=True, slots=True)
class Catalog:
    """All that is in an archive.

    :param lost: what is damaged besides single backups
    """

    archive: manifest.Archive
    images: tuple[Image, ...]
    lost: tuple[Damage, ...] = ()

    def damage(self) -> list[Damage]:
        """Return all that cannot be used."""
        found = [*self.lost]
        for image in self.images:
            found += [*image.damaged, *image.unfinished]
        return found

    def backups(self) -> Iterator[Backup]:
        for image in self.images:
            yield from image.backups

    def find(self, name_or_id: str) -> Backup:
        """Return the backup of that id or name.

        :raises NotFound: there is none
        :raises InvalidInput: several have that name, or it is damaged
        """
        found = [backup for backup in self.backups() if backup.id == name_or_id]
        found = found or [
            backup for backup in self.backups() if backup.record.display_name == name_or_id
        ]
        if not found:
            for damage in self.damage():
                if damage.backup_id == name_or_id:
                    raise damage.error
            raise errors.NotFound(
                f'There is no backup {name_or_id!r} in the archive, or it cannot be read.',
                'See what is there: openstack volume backup archive list <archive>',
            )
        if len({backup.id for backup in found}) > 1:
            raise errors.InvalidInput(
                f'{len(found)} backups in the archive have the name {name_or_id!r}: '
                f'{", ".join(backup.id for backup in found)}.',
                'Give one of these ids instead of the name.',
            )
        # The same backup may be there in its chain and, by --single, alone.
        return min(found, key=lambda backup: backup.increment.from_snap is not None)


def read(store: archive_store.Store) -> Catalog:
    """Read and check the documents of a whole archive; what is damaged is told.

    :raises NotFound: there is no archive
    :raises InvalidInput: none of it is to be trusted
    """
    archive = read_archive(store)
    images, lost = [], []
    for entry in store.entries(''):
        if not names.is_image(entry.name):
            continue
        try:
            image = read_image(store, entry.name)
        except errors.DamagedArchive as error:
            lost.append(Damage(entry.name, '', error))
            continue
        if image is None or image.is_empty:
            empty = has_no_increment(f'{store.name}/{entry.name}')
            lost.append(Damage(entry.name, '', empty))
        else:
            images.append(image)
    contents = Catalog(archive, tuple(images), tuple(lost))
    LOG.info(
        'Archive %s: %d images, %d backups; %d things are damaged or not finished.',
        store.name,
        len(images),
        len(list(contents.backups())),
        len(contents.damage()),
    )
    for damage in contents.damage():
        LOG.debug('Archive %s: %s', store.name, damage.error.in_one_line())
    return contents


def read_archive(store: archive_store.Store) -> manifest.Archive:
    """Return the mark of an archive.

    :raises NotFound: there is none
    """
    content = store.get(names.ARCHIVE, sealed.MAX_SMALL_SIZE)
    if content is None:
        raise errors.NotFound(
            f'{store.name}: is not an archive: there is no {names.ARCHIVE}.',
            f'Make one: openstack volume backup archive create {shlex.quote(store.name)} <backup>',
        )
    return manifest.decode_archive(content, f'{store.name}/{names.ARCHIVE}')


def read_image(store: archive_store.Store, name: str) -> Image | None:
    """Return what an archive has of one image, None where it has nothing.

    :raises DamagedArchive: nothing of it can be used
    :raises InvalidInput: nothing of the whole archive is to be trusted
    """
    where = f'{store.name}/{name}'
    content = store.get(f'{name}/{names.IMAGE}', sealed.MAX_SMALL_SIZE)
    entries = store.entries(name)
    folders = sorted(parsed for entry in entries if (parsed := names.parse_increment(entry.name)))
    if content is None:
        if not folders:
            return None
        raise sealed.damaged(f'{where}/{names.IMAGE}', 'is missing')
    layout = manifest.decode_image(content, f'{where}/{names.IMAGE}')
    chain = Chain(where)
    unfinished, damaged = [], []
    for number, backup_id in folders:
        folder = names.increment(number, backup_id)
        path = f'{name}/{folder}'
        document = store.get(f'{path}/{names.INCREMENT}', sealed.MAX_SIZE)
        if document is None:
            unfinished.append(Damage(name, backup_id, not_finished(f'{where}/{folder}'), folder))
            continue
        raw_record = store.get(f'{path}/{names.RECORD}', MAX_SMALL_FILE)
        metadata = store.get(f'{path}/{names.VOLUME_METADATA}', MAX_SMALL_FILE)
        try:
            chain.add(make_backup(where, name, folder, document, raw_record, metadata))
        except errors.DamagedArchive as error:
            damaged.append(Damage(name, backup_id, error, folder))
    there = {backup_id for _number, backup_id in folders}
    for entry in entries:
        committed = names.parse_commit(entry.name)
        if committed and committed not in there:
            unfinished.append(Damage(name, committed, _lost(f'{where}/{entry.name}')))
    return Image(name, layout, tuple(chain.backups), tuple(unfinished), tuple(damaged))


def make_backup(
    where: str,
    image: str,
    folder: str,
    document: bytes,
    raw_record: bytes | None,
    metadata: bytes | None,
) -> Backup:
    """Put together what belongs to one backup, after checking it.

    :param where: what to call the folder of the image in an error
    :param document: the content of ``increment.json``
    :raises DamagedArchive: a file is missing, or not what was written
    :raises ForgedArchive: it is not what a writer writes
    """
    where = f'{where}/{folder}'
    increment = manifest.decode_increment(document, f'{where}/{names.INCREMENT}')
    if increment.folder != folder:
        raise sealed.forged(where, f'says that it is {increment.folder}')
    _check_hash(f'{where}/{names.RECORD}', raw_record, increment.record_sha256)
    _check_hash(f'{where}/{names.VOLUME_METADATA}', metadata, increment.volume_metadata_sha256)
    item = read_record(where, increment.backup_id, raw_record)
    check_record(where, image, increment.size, item)
    spooled = None if metadata is None else spool.Spooled(metadata)
    return Backup(image, increment, item, spooled)


def read_record(where: str, backup_id: str, content: bytes | None) -> record.BackupRecord:
    """Return the record of a backup.

    :param where: what to call the folder of the backup in an error
    :raises DamagedArchive: it is missing, or is none, or of another backup
    """
    where = f'{where}/{names.RECORD}'
    if content is None:
        raise sealed.damaged(where, 'is missing')
    try:
        item = record_file.read_own(content, where)
    except errors.InvalidInput as error:
        raise sealed.damaged(where, error.in_one_line().rstrip('.')) from error
    if item.id != backup_id:
        raise sealed.damaged(where, 'is not the record of that backup')
    return item


def check_record(where: str, image: str, size: int, item: record.BackupRecord) -> None:
    """See that a record is one of a backup in this image.

    One that names the image of another volume would restore, and delete, what is there.
    Another image of its own volume does no harm: on import it gets the name of this one.

    :param where: what to call the folder of the backup in an error
    :param size: bytes of the image
    :raises DamagedArchive: it is not
    """
    where = f'{where}/{names.RECORD}'
    if not item.is_ceph or ceph_driver.volume_of_image(image) != item.volume_id:
        raise sealed.damaged(where, f'is of volume {item.volume_id}')
    if item.base_image and ceph_driver.volume_of_image(item.base_image) != item.volume_id:
        raise sealed.damaged(where, f'names image {item.base_image}')
    if not item.fits(size):
        raise sealed.damaged(where, f'says {item.size} GiB, and the image has {size} bytes')


def dangling(where: str, start: str | None) -> errors.DamagedArchive:
    """Return the error for an increment that starts from what is not there, or not whole."""
    return sealed.damaged(
        where, f'starts from snapshot {start}, which no whole increment before it leads to'
    )


def not_finished(where: str) -> errors.TruncatedStream:
    """Return the error for an increment whose writer gave up, or is still at work.

    :param where: what to call the folder of the backup
    """
    return errors.TruncatedStream(
        f'{where}: was not finished when it was written: there is no {names.INCREMENT}. What '
        'came before it is complete.',
        'Create the archive again for the rest. If its backup is gone: remove that folder.',
    )


def _lost(where: str) -> errors.TruncatedStream:
    return errors.TruncatedStream(
        f'{where}: the folder of that backup is gone. It was complete once.',
        'If the backup is still in its cloud, run archive create again. If you removed the folder '
        'on purpose, remove this object too.',
    )


def has_no_increment(where: str) -> errors.TruncatedStream:
    """Return the error for an image of which nothing is there but what it is like.

    :param where: what to call its folder
    """
    return errors.TruncatedStream(
        f'{where}: has no increment: the run that was to write it was stopped, or what it wrote '
        'is lost.',
        'Create the archive again. If there is no such backup any more: remove that folder.',
    )


def _check_hash(name: str, content: bytes | None, expected: str | None) -> None:
    found = None if content is None else hashlib.sha256(content).hexdigest()
    if found != expected:
        problem = 'is missing' if found is None else 'its content does not match its sha256'
        raise sealed.damaged(name, problem)


class Chain:
    """Backups of one image that build on each other, put together in their order.

    The same rules for a folder, where all are known, and a stream, where they go by.

    :param where: what to call the image in an error
    :ivar backups: those that start from an earlier one, or from nothing
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._seen: set[str] = set()
        self._awaited: set[str] = set()
        self._points: set[str] = set()
        self.backups: list[Backup] = []

    def add(self, backup: Backup) -> None:
        """Add the next one.

        :raises DamagedArchive: no whole increment before it leads to where it starts
        :raises ForgedArchive: it starts from itself or a later one did from it, or it is there
            twice
        """
        increment, start = backup.increment, backup.increment.from_snap
        folder = f'{self._where}/{increment.folder}'
        if backup.id in self._seen:
            raise sealed.forged(folder, 'that backup is there twice')
        self._seen.add(backup.id)
        if backup.id in self._awaited or ceph_driver.backup_of_snapshot(start) == backup.id:
            raise sealed.forged(
                folder, f'leads to {increment.to_snap}, which itself or one before it starts from'
            )
        if start is not None and start not in self._points:
            self._awaited.add(ceph_driver.backup_of_snapshot(start) or '')
            raise dangling(folder, start)
        self._points.add(increment.to_snap)
        self.backups.append(backup)


def path_to(image: Image, backup: Backup) -> list[Backup]:
    """Return the increments that lead to a backup, the first one first."""
    by_point = {other.increment.to_snap: other for other in image.backups}
    way = [backup]
    while (start := way[-1].increment.from_snap) is not None:
        way.append(by_point[start])
    return way[::-1]
