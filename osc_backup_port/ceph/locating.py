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

"""Which image and which snapshot belong to a backup, whatever made it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from osc_backup_port import errors, model, record
from osc_backup_port.ceph import commands, pool
from osc_backup_port.driver import ceph as ceph_driver


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of a backup are.

    :param snapshot: None where the image holds nothing but this backup
    :param chain: the snapshots of all backups on the image, in the order in which they were made
    """

    image: str
    snapshot: model.Snapshot | None
    chain: tuple[model.Snapshot, ...]


def locate(
    where: pool.Pool,
    backup: record.BackupRecord,
    parent: record.BackupRecord | None,
    images: Callable[[], list[str]] | None = None,
) -> Location:
    """Find the image and the snapshot of *backup* in a pool.

    A snapshot of this backup decides, also in another image of its volume than those in which
    Cinder would look: a chain that was moved by hand need not lie where its records say.
    Without one, an image counts only
    where the driver makes backups without snapshots, and only if it has none
    of another backup: the HEAD of a chain is the newest backup, not this one.

    :param parent: the record of its parent, where it has one that is known
    :param images: returns the names of all images in the pool, if the caller keeps them
    :raises NotFound: it is not there, or what is there cannot be trusted
    :raises Conflict: more than one place fits
    """
    found = _snapshots(where, candidates(backup, parent))
    matches = _with_snapshot(found, backup)
    if not matches:
        others = [
            name
            for name in (images or where.images)()
            if name not in found
            and (ceph_driver.parse_image(name) or [None])[0] == backup.volume_id
        ]
        matches = _with_snapshot(_snapshots(where, others), backup)
    there = {name: snapshots for name, snapshots in found.items() if snapshots is not None}
    if not matches:
        matches = [
            Location(name, None, ())
            for name, snapshots in there.items()
            if _is_whole_image(backup, name, snapshots)
        ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise _ambiguous(where, backup, matches)
    raise _missing(where, backup, there, list(found))


def _with_snapshot(
    found: Mapping[str, list[model.Snapshot] | None], backup: record.BackupRecord
) -> list[Location]:
    """Return every place with a snapshot of the backup."""
    return [
        Location(name, snapshot, tuple(_of_backups(snapshots or [])))
        for name, snapshots in found.items()
        for snapshot in snapshots or ()
        if ceph_driver.backup_of_snapshot(snapshot.name) == backup.id
    ]


def candidates(backup: record.BackupRecord, parent: record.BackupRecord | None) -> list[str]:
    """Return the names under which Cinder may have stored *backup*, best first."""
    names = [
        backup.base_image,
        parent.base_image if parent else None,
        ceph_driver.own_image(backup),
        ceph_driver.legacy_image(backup),
    ]
    return list(dict.fromkeys(name for name in names if name))


def _snapshots(where: pool.Pool, names: Sequence[str]) -> dict[str, list[model.Snapshot] | None]:
    """Return the snapshots of images that Cinder takes for backups; None: no such image."""
    return {
        name: None if found is None else _of_cinder(found)
        for name, found in where.snapshots_of(names).items()
    }


def _of_cinder(found: list[model.Snapshot]) -> list[model.Snapshot]:
    odd = [one for one in found if ceph_driver.backup_of_odd_snapshot(one.name)]
    return [*_of_backups(found), *odd]


def _of_backups(snapshots: list[model.Snapshot]) -> list[model.Snapshot]:
    return [one for one in snapshots if ceph_driver.backup_of_snapshot(one.name)]


def _is_whole_image(
    backup: record.BackupRecord, name: str, snapshots: list[model.Snapshot]
) -> bool:
    """Tell whether an image without snapshots is one that the driver makes.

    Backups of Cinder's snapshots, and of volumes that are not in Ceph, are.
    """
    if snapshots or backup.base_image:
        return False
    if backup.snapshot_id:
        return name in (ceph_driver.own_image(backup), ceph_driver.legacy_image(backup))
    return name == ceph_driver.own_image(backup) and backup.parent_id is None


def _ambiguous(
    where: pool.Pool, backup: record.BackupRecord, matches: list[Location]
) -> errors.Conflict:
    places = ', '.join(
        f'{match.image}@{match.snapshot.name}' if match.snapshot else match.image
        for match in matches
    )
    return errors.Conflict(
        f'Backup {backup.id}: more than one place in pool {where.name} fits: {places}.',
        f'Find out which is right ({where.commands.rbd("snap", "ls", matches[0].image)}, and the '
        f'others), and rename the other: {where.commands.rbd("rename", "<image>", "<new name>")}',
    )


def _missing(
    where: pool.Pool,
    backup: record.BackupRecord,
    there: dict[str, list[model.Snapshot]],
    looked_for: list[str],
) -> errors.NotFound:
    if not there:
        trashed = [one for one in where.trash() if one.name in looked_for]
        if trashed:
            return errors.NotFound(
                f'Backup {backup.id}: its image is in the trash of pool {where.name}: '
                f'{trashed[0].name}.',
                f'Have it back: {restore_command(where.commands, trashed[0])}',
            )
        return errors.NotFound(
            f'Backup {backup.id}: its image is not in pool {where.name}; looked for '
            f'{", ".join(looked_for)}.',
            f'See what is there: {where.commands.rbd("ls")} | grep {backup.volume_id}. '
            'Is it another pool? --ceph-pool <pool>',
        )
    found = '; '.join(
        f'{name} with {", ".join(snapshot.name for snapshot in snapshots) or "no snapshot"}'
        for name, snapshots in there.items()
    )
    return errors.NotFound(
        f'Backup {backup.id}: no snapshot backup.{backup.id}.snap.* in pool {where.name}; '
        f'found {found}.',
        _rename_odd(where, backup, there)
        or 'The bytes of this backup are lost there, or were imported without snapshots: the '
        'image itself is the newest backup of a chain, which need not be this one, and is not '
        'taken.',
    )


def restore_command(shell: commands.Commands, trashed: pool.Trashed) -> str:
    """Return the command that brings an image back from the trash."""
    return shell.rbd('trash', 'restore', trashed.id)


def _rename_odd(
    where: pool.Pool, backup: record.BackupRecord, there: dict[str, list[model.Snapshot]]
) -> str | None:
    """Return what to do if a snapshot has nearly the name of that of this backup."""
    for name, snapshots in there.items():
        for snapshot in snapshots:
            if ceph_driver.backup_of_odd_snapshot(snapshot.name) == backup.id:
                old, new = f'{name}@{snapshot.name}', f'{name}@{ceph_driver.new_snapshot(backup)}'
                return (
                    f'Is it {snapshot.name}? Then give it a name with a time in seconds since '
                    f'1970: {where.commands.rbd("snap", "rename", old, new)}'
                )
    return None
