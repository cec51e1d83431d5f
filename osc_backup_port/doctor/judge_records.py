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

"""Judge the records of backups by what lies in their pool.  Pure."""

import collections
import shlex
from collections.abc import Iterator

from osc_backup_port import errors, record, units
from osc_backup_port.ceph import locating
from osc_backup_port.doctor import driver_view, judge_counters, known_backups, pool_scan
from osc_backup_port.doctor.findings import WARNING, Finding
from osc_backup_port.driver import ceph as ceph_driver

_BACKUP = 'openstack volume backup'
_IMPORT = f'{_BACKUP} import-image {{}} --file <file>'


class Judge:
    """Holds all records against one scan.

    :ivar readings: where the restore of each backup takes its bytes from
    """

    def __init__(self, known: list[known_backups.Known], scan: pool_scan.Scan) -> None:
        self._scan = scan
        self._known = {one.id: one for one in known}
        self.readings = {
            one.id: reading
            for one in known
            if one.record and (reading := self._read(one.record)) is not None
        }
        self._readers = collections.Counter(
            reading.image for reading in self.readings.values() if not reading.snapshot
        )

    def findings(self) -> Iterator[Finding]:
        for one in self._known.values():
            if one.problem is not None:
                yield _unreadable(one.id, one.problem)
            elif one.record is None:
                yield from self._dangerous_deletion(one)
            elif one.record.is_ceph and one.is_settled:
                yield from self._of(one.record)
        yield from judge_counters.findings(list(self._known.values()))

    def _is_here(self, backup: record.BackupRecord) -> bool:
        return backup.is_ceph and backup.container == self._scan.pool

    def _read(self, backup: record.BackupRecord) -> driver_view.Reading | None:
        """Return where a restore takes its bytes from; None: not here, or nobody can tell."""
        if not self._is_here(backup):
            return None
        parent = self._parent(backup)
        reading = driver_view.restore(backup, parent, self._scan.images)
        is_known = driver_view.is_known(backup, parent, reading, self._scan.unreadable)
        return reading if is_known else None

    def _parent(self, backup: record.BackupRecord) -> record.BackupRecord | None:
        parent = self._known.get(backup.parent_id or '')
        return parent.record if parent else None

    def _of(self, backup: record.BackupRecord) -> Iterator[Finding]:
        if not self._is_here(backup):
            yield self._elsewhere(backup)
            return
        if not backup.base_image and backup.parent_id and backup.parent_id not in self._known:
            yield _missing_parent(backup)
            return
        reading = self.readings.get(backup.id)
        if reading is None:
            return  # The image that could not be read is the finding.
        if reading.duplicates:
            yield self._duplicates(backup, reading)
        elif reading.image is None:
            yield self._missing_image(backup)
        elif reading.snapshot is None:
            yield from self._without_snapshot(backup, self._scan.images[reading.image])
        else:
            yield from self._size(backup, self._scan.images[reading.image])
        if reading.image and backup.id not in self._scan.metadata:
            yield self._missing_metadata(backup)

    def _without_snapshot(
        self, backup: record.BackupRecord, image: pool_scan.Image
    ) -> Iterator[Finding]:
        """Judge a backup that a restore takes from the image as it is now."""
        readers = self._readers[image.name]
        wanted = driver_view.base_name(backup, self._parent(backup))
        # Backups of volume snapshots, and of volumes that are not in Ceph, have none.
        has_lost_it = backup.base_image or (
            not backup.snapshot_id and (backup.parent_id or image.name != wanted)
        )
        if backup.base_image and image.name != backup.base_image:
            yield self._fallen_back(backup, image)
        elif image.of_backup(backup.id):
            yield from self._overlooked(backup, image)
        elif image.snapshots:
            yield self._missing_snapshot(backup, image)
        elif has_lost_it:
            yield self._head_only(backup, image, readers)
        elif readers > 1:
            yield self._shared(backup, image)
        else:
            yield from self._size(backup, image)

    def _missing_image(self, backup: record.BackupRecord) -> Finding:
        wanted = driver_view.base_name(backup, self._parent(backup))
        where, mend = self._to_have_back(backup, wanted)
        found = f'no image {wanted} in pool {self._scan.pool}{where}.'
        return Finding('missing-image', f'backup {backup.id}', found, mend, backup.id)

    def _to_have_back(self, backup: record.BackupRecord, wanted: str) -> tuple[str, str]:
        """Return where the data of a backup lies whose image is missing, and what to do."""
        places = [image.name for image, _ in self._scan.places_of(backup.id)]
        trashed = [one for one in self._scan.trash if one.name == wanted]
        if trashed:
            back = locating.restore_command(self._scan.commands, trashed[0])
            return '; it is in the trash', f'Have it back: {back}'
        if places:
            rename = self._scan.commands.rbd('rename', places[0], wanted)
            return (
                f'; its snapshot is on {", ".join(places)}',
                f'Give the image its name: {rename}',
            )
        return '', f'Import its data: {_IMPORT.format(backup.id)}'

    def _missing_snapshot(self, backup: record.BackupRecord, image: pool_scan.Image) -> Finding:
        return Finding(
            'missing-snapshot',
            f'backup {backup.id}',
            f'image {image.name} has {len(image.snapshots)} snapshots of other backups, and no '
            f'backup.{backup.id}.snap.*.',
            f'Add its data to the chain: {_IMPORT.format(backup.id)}. Do not delete it before: '
            'that could take the image.',
            backup.id,
        )

    def _overlooked(
        self, backup: record.BackupRecord, image: pool_scan.Image
    ) -> Iterator[Finding]:
        """Judge a backup whose snapshot Cinder does not look at.

        So it is with a record that names no image: the image is copied as it is
        now, which is right where it holds nothing else.
        """
        if len(image.snapshots) == 1:
            yield from self._size(backup, image)
            return
        pool, directory = self._scan.commands.rbd(), '<directory>'
        yield Finding(
            'missing-snapshot',
            f'backup {backup.id}',
            f'the record names no image, so that Cinder looks for the snapshot on '
            f'{ceph_driver.legacy_image(backup)}; it is on {image.name}, with others.',
            f'Give it a record that names the image: {_BACKUP} metadata rebuild --volume '
            f'{backup.volume_id} --directory {directory}; {pool} rename {image.name} '
            f'{image.name}.aside; {_BACKUP} delete {backup.id}; {pool} rename {image.name}.aside '
            f'{image.name}; {_BACKUP} metadata import {directory}/{backup.id}.json',
            backup.id,
        )

    def _head_only(
        self, backup: record.BackupRecord, image: pool_scan.Image, readers: int
    ) -> Finding:
        alone = readers == 1 and not backup.parent_id and not backup.num_dependent_backups
        others = '' if readers == 1 else f', and {readers} backups are restored from it'
        aside = f'{self._scan.commands.rbd()} rename {image.name} {image.name}.aside'
        mend = f'Set the image aside and import the data anew, with snapshots: {aside}; '
        if alone:
            point = f'{image.name}@{ceph_driver.new_snapshot(backup)}'
            sure = f'{self._scan.commands.rbd()} snap create {point}'
            mend = f'If it is sure to hold this backup: {sure}. Else: {mend[0].lower()}{mend[1:]}'
        return Finding(
            'head-only',
            f'backup {backup.id}',
            f'image {image.name} has no snapshot of a backup{others}; expected '
            f'backup.{backup.id}.snap.<time> on it.',
            mend + _IMPORT.format(backup.id),
            backup.id,
            # One image for one backup at least holds the right bytes, most likely.
            WARNING if alone else '',
        )

    def _fallen_back(self, backup: record.BackupRecord, image: pool_scan.Image) -> Finding:
        where, mend = self._to_have_back(backup, backup.base_image or '')
        return Finding(
            'base-collision',
            f'backup {backup.id}',
            f'its image {backup.base_image} is missing{where}; Cinder takes {image.name} instead, '
            'as it is now, and looks for no snapshot on it.',
            f'{mend}. Do not delete it before.',
            backup.id,
        )

    def _shared(self, backup: record.BackupRecord, image: pool_scan.Image) -> Finding:
        others = sorted(
            other
            for other, reading in self.readings.items()
            if reading.image == image.name and other != backup.id
        )
        return Finding(
            'base-collision',
            f'backup {backup.id}',
            f'it and {", ".join(others)} are restored from the same image {image.name} without '
            'snapshots; at most one of them was written to it.',
            'Restore it and compare with what you know of each. Before you delete the others: '
            f'{self._scan.commands.rbd()} rename {image.name} {image.name}.aside, and back after '
            'it.',
            backup.id,
        )

    def _dangerous_deletion(self, one: known_backups.Known) -> Iterator[Finding]:
        """A failed backup whose deletion takes the image of another one.

        So it is with the second backup of a volume snapshot of one volume.
        """
        backup = one.backup
        if not backup.status.startswith('error') or backup.container != self._scan.pool:
            return
        own = f'volume-{backup.volume_id}.backup.{backup.id}'
        legacy = self._scan.images.get(ceph_driver.legacy_image_of(backup.volume_id or ''))
        if own in self._scan.images or own in self._scan.unreadable:
            return
        if legacy is None or legacy.snapshots:
            return
        if self._scan.places_of(backup.id) or not self._readers[legacy.name]:
            return
        pool = self._scan.commands.rbd()
        yield Finding(
            'base-collision',
            f'backup {backup.id}',
            f'is in {backup.status} and has no image of its own; deleting it deletes '
            f'{legacy.name}, the image of another backup.',
            f'{pool} rename {legacy.name} {legacy.name}.aside; {_BACKUP} delete {backup.id}; when '
            f'it is gone: {pool} rename {legacy.name}.aside {legacy.name}',
            backup.id,
        )

    def _duplicates(self, backup: record.BackupRecord, reading: driver_view.Reading) -> Finding:
        rbd = self._scan.commands.rbd
        spare = ' or '.join(rbd('snap', 'rm', f'{reading.image}@{n}') for n in reading.duplicates)
        return Finding(
            'duplicate-snapshot',
            f'backup {backup.id}',
            f'image {reading.image} has {len(reading.duplicates)} snapshots of it, expected one: '
            f'{", ".join(reading.duplicates)}.',
            'Find out which is right (rbd export both and compare), and remove the other: '
            f'{spare}',
            backup.id,
        )

    def _elsewhere(self, backup: record.BackupRecord) -> Finding:
        own = ceph_driver.own_image(backup)
        is_here = self._scan.places_of(backup.id) or own in self._scan.images
        is_here = is_here or own in self._scan.unreadable
        if not is_here:
            return Finding(
                'other-container',
                f'backup {backup.id}',
                f'lies in the pool {backup.container!r}, not in {self._scan.pool}.',
                f'Check that pool too: {_BACKUP} image check --ceph-pool '
                f'{shlex.quote(backup.container or "")}',
                backup.id,
            )
        return Finding(
            'wrong-container',
            f'backup {backup.id}',
            f'the record names the pool {backup.container!r}, the data is in {self._scan.pool}.',
            f'{_BACKUP} metadata export {backup.id} --file {backup.id}.json; {_BACKUP} delete '
            f'{backup.id} (it finds no data, if there is no such pool here); {_BACKUP} metadata '
            f'import --ceph-pool {shlex.quote(self._scan.pool)} {backup.id}.json',
            backup.id,
        )

    def _size(self, backup: record.BackupRecord, image: pool_scan.Image) -> Iterator[Finding]:
        places = [
            (f'{image.name}@{point.name}', point.size) for point in image.of_backup(backup.id)
        ]
        for place, size in places[:1] or [(image.name, image.size)]:
            if not backup.fits(size):
                yield _size_mismatch(backup, place, size)

    def _missing_metadata(self, backup: record.BackupRecord) -> Finding:
        name = ceph_driver.metadata_object(backup.id)
        return Finding(
            'missing-metadata',
            f'backup {backup.id}',
            f'there is no volume metadata, object {name}, in pool {self._scan.pool}.',
            f'Where it was exported: {self._scan.commands.rados()} put {name} <file>',
            backup.id,
        )


def _missing_parent(backup: record.BackupRecord) -> Finding:
    return Finding(
        'missing-parent',
        f'backup {backup.id}',
        f'the record names no image, and its parent {backup.parent_id} is not in this cloud.',
        f'Import the record of the parent: {_BACKUP} metadata import <file>',
        backup.id,
    )


def _size_mismatch(backup: record.BackupRecord, place: str, size: int) -> Finding:
    return Finding(
        'size-mismatch',
        f'backup {backup.id}',
        f'{place} has {size} bytes ({units.human_size(size)}), the record says {backup.size} GiB.',
        'Compare with where the backup comes from, and import what is wrong anew: '
        f'{_BACKUP} metadata show --decode <file>',
        backup.id,
    )


def _unreadable(backup_id: str, problem: errors.PortError) -> Finding:
    code = 'invalid-record' if isinstance(problem, errors.InvalidRecord) else 'unchecked'
    hint = problem.hint or f'{_BACKUP} show {backup_id}'
    return Finding(code, f'backup {backup_id}', problem.in_one_line(), hint, backup_id)
