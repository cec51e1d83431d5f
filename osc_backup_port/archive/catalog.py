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
import shlex
from collections.abc import Iterator, Sequence

from osc_backup_port import errors, model, record, units
from osc_backup_port.archive import manifest, names, sealed
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import naming
from osc_backup_port.formats import record_file

#: The largest record, and the largest metadata of a volume.  Both have some 2 KiB.
MAX_SMALL_FILE = units.MIB


@dataclasses.dataclass(frozen=True, slots=True)
class Backup:
    """One backup in an archive: an increment and what belongs to it."""

    image: str
    increment: manifest.Increment
    record: record.BackupRecord
    volume_metadata: bytes | None

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
    """

    image: str
    backup_id: str
    error: errors.InvalidInput


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """The backups that share an image, in the order in which they were added.

    :param backups: those that can be had, with all that they build on
    :param unfinished: folders of increments that a dead run left behind
    :param damaged: the others
    """

    name: str
    layout: model.ImageLayout
    backups: tuple[Backup, ...]
    unfinished: tuple[str, ...]
    damaged: tuple[Damage, ...]


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
        return [*self.lost, *(one for image in self.images for one in image.damaged)]

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
    if archive is None:
        raise errors.NotFound(
            f'{store.name}: is not an archive: there is no {names.ARCHIVE}.',
            f'Make one: openstack volume backup archive create {shlex.quote(store.name)} <backup>',
        )
    images, lost = [], []
    for entry in store.entries(''):
        if not names.is_image(entry.name):
            continue
        try:
            image = read_image(store, entry.name)
        except errors.DamagedArchive as error:
            lost.append(Damage(entry.name, '', error))
        else:
            images += [image] if image else []
    return Catalog(archive, tuple(images), tuple(lost))


def read_archive(store: archive_store.Store) -> manifest.Archive | None:
    """Return the mark of an archive, None where there is none."""
    content = store.get(names.ARCHIVE, sealed.MAX_SMALL_SIZE)
    if content is None:
        return None
    return manifest.decode_archive(content, f'{store.name}/{names.ARCHIVE}')


def read_image(store: archive_store.Store, name: str) -> Image | None:
    """Return what an archive has of one image, None where it has nothing.

    :raises DamagedArchive: nothing of it can be used
    :raises InvalidInput: nothing of the whole archive is to be trusted
    """
    where = f'{store.name}/{name}'
    content = store.get(f'{name}/{names.IMAGE}', sealed.MAX_SMALL_SIZE)
    folders = sorted(
        parsed for entry in store.entries(name) if (parsed := names.parse_increment(entry.name))
    )
    if content is None:
        if not folders:
            return None
        raise sealed.damaged(f'{where}/{names.IMAGE}', 'is missing')
    layout = manifest.decode_image(content, f'{where}/{names.IMAGE}')
    backups, unfinished, damaged = [], [], []
    for number, backup_id in folders:
        path = f'{name}/{names.increment(number, backup_id)}'
        document = store.get(f'{path}/{names.INCREMENT}', sealed.MAX_SIZE)
        if document is None:
            unfinished.append(path)
            continue
        try:
            backups.append(_read_backup(store, name, path, document))
        except errors.DamagedArchive as error:
            damaged.append(Damage(name, backup_id, error))
    whole, dangling = connected(where, backups)
    return Image(name, layout, whole, tuple(unfinished), (*damaged, *dangling))


def _read_backup(store: archive_store.Store, image: str, path: str, document: bytes) -> Backup:
    increment = manifest.decode_increment(document, f'{store.name}/{path}/{names.INCREMENT}')
    if f'{image}/{increment.folder}' != path:
        raise sealed.forged(f'{store.name}/{path}', f'says that it is {increment.folder}')
    raw_record = store.get(f'{path}/{names.RECORD}', MAX_SMALL_FILE)
    metadata = store.get(f'{path}/{names.VOLUME_METADATA}', MAX_SMALL_FILE)
    return make_backup(f'{store.name}/{path}', image, increment, raw_record, metadata)


def make_backup(
    where: str,
    image: str,
    increment: manifest.Increment,
    raw_record: bytes | None,
    metadata: bytes | None,
) -> Backup:
    """Put together what belongs to one backup, after checking it.

    :param where: what to call its folder in an error
    :raises DamagedArchive: a file is missing, or not what was written
    """
    _check_hash(f'{where}/{names.RECORD}', raw_record, increment.record_sha256)
    _check_hash(f'{where}/{names.VOLUME_METADATA}', metadata, increment.volume_metadata_sha256)
    try:
        records = record_file.read_records(raw_record or b'', f'{where}/{names.RECORD}')
    except errors.InvalidInput as error:
        raise sealed.damaged(f'{where}/{names.RECORD}', error.in_one_line().rstrip('.')) from error
    if [found.id for found in records] != [increment.backup_id]:
        raise sealed.damaged(f'{where}/{names.RECORD}', 'is not the record of that backup')
    return Backup(image, increment, records[0], metadata)


def check_record(where: str, image: str, size: int, item: record.BackupRecord) -> None:
    """See that Cinder, going by the record, comes to this image and no other.

    A record that names the image of somebody else would restore, and delete,
    what is there.  Not a matter of reading an archive, but of importing from it.

    :param where: what to call the folder of the backup in an error
    :param size: bytes of the image
    :raises DamagedArchive: it would not
    """
    mine = f'volume-{item.volume_id}.backup.'
    if not item.is_ceph or not image.startswith(mine):
        raise sealed.damaged(f'{where}/{names.RECORD}', f'is of volume {item.volume_id}')
    base = item.base_image or image
    # Cinder falls back on that one.
    is_fallback = image == naming.legacy_image(item) and base.startswith(mine)
    if base != image and not is_fallback:
        raise sealed.damaged(f'{where}/{names.RECORD}', f'names image {item.base_image}')
    if not item.fits(size):
        raise sealed.damaged(
            f'{where}/{names.RECORD}',
            f'says {item.size} GiB, and the image has {size} bytes',
        )


def _check_hash(name: str, content: bytes | None, expected: str | None) -> None:
    found = None if content is None else hashlib.sha256(content).hexdigest()
    if found != expected:
        problem = 'is missing' if found is None else 'its content does not match its sha256'
        raise sealed.damaged(name, problem)


def connected(
    where: str, backups: Sequence[Backup]
) -> tuple[tuple[Backup, ...], tuple[Damage, ...]]:
    """Tell the backups that start from an earlier one, or from nothing, from the others.

    :param where: what to call their image in an error
    :raises ForgedArchive: one starts from itself or from a later one, or is there twice
    """
    _refuse_forged_order(where, backups)
    points: set[str] = set()
    whole, dangling = [], []
    for backup in backups:
        increment = backup.increment
        if increment.from_snap is None or increment.from_snap in points:
            points.add(increment.to_snap)
            whole.append(backup)
            continue
        error = sealed.damaged(
            f'{where}/{increment.folder}',
            f'starts from snapshot {increment.from_snap}, which no whole increment before it '
            'leads to',
        )
        dangling.append(Damage(backup.image, backup.id, error))
    return tuple(whole), tuple(dangling)


def _refuse_forged_order(where: str, backups: Sequence[Backup]) -> None:
    number_of: dict[str, int] = {}
    for number, backup in enumerate(backups):
        if number_of.setdefault(backup.id, number) != number:
            folder = f'{where}/{backup.increment.folder}'
            raise sealed.forged(folder, 'that backup is there twice')
    for number, backup in enumerate(backups):
        start = names.backup_of_snapshot(backup.increment.from_snap or '')
        if number_of.get(start or '', -1) >= number:
            raise sealed.forged(
                f'{where}/{backup.increment.folder}',
                f'starts from snapshot {backup.increment.from_snap}, which comes after it',
            )


def path_to(image: Image, backup: Backup) -> list[Backup]:
    """Return the increments that lead to a backup, the first one first."""
    by_point = {other.increment.to_snap: other for other in image.backups}
    way = [backup]
    while (start := way[-1].increment.from_snap) is not None:
        way.append(by_point[start])
    return way[::-1]
