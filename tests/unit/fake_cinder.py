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

"""Block Storage in memory: as much of it as the operations see.

It passes the contract of ``tests/cinder_contract.py``, which the real service passes too.
"""

import collections.abc
import copy
import dataclasses
import threading
import typing

from osc_backup_port import errors, record_rules
from osc_backup_port.cinder import resources
from osc_backup_port.record import BackupRecord
from tests.unit import records


@dataclasses.dataclass
class Row:
    """A row of the table ``backups``; a deleted one stays, as it does in Cinder."""

    shown: resources.Backup
    deleted: bool = False
    record: BackupRecord | None = None


class FakeCinder:
    """One cloud.

    :ivar calls: every call that changes something, in order
    :ivar slow: ids whose import stays ``creating``
    :ivar races: so many imports lose their record to another run
    :ivar quota: what there is room for; it is not taken account of here
    :ivar refuse: errors to raise, by the name of the method
    :ivar volumes: those that are there, by their ids
    :ivar projects: those that the caller has a role in, by name
    :ivar is_only_service: a single backup service is up
    """

    def __init__(self, *there: BackupRecord) -> None:
        self.rows: dict[str, Row] = {}
        self.calls: list[tuple[str, str]] = []
        self.slow: set[str] = set()
        self.refuse: dict[str, errors.PortError] = {}
        self.quota = resources.Room()
        self.project: resources.Project | None = None
        self.cloud = resources.Cloud()
        self.projects: dict[str, resources.Project] = {}
        self.is_only_service = True
        self.races = 0
        self.volumes: dict[str, resources.Volume] = {}
        self._lock = threading.Lock()
        for item in there:
            self.add(item)

    def add(self, item: BackupRecord, **shown: typing.Any) -> None:
        """Put a backup there, as its record describes it."""
        backup = resources.Backup(
            id=item.id,
            status='available',
            volume_id=item.volume_id,
            size=item.size,
            name=item.display_name,
            container=item.container,
            availability_zone='nova',
            created_at=item.created_at,
            project_id=self.project.id if self.project else None,
        )
        self.rows[item.id] = Row(dataclasses.replace(backup, **shown), record=item)

    def leave_placeholder(self, backup_id: str, status: str = 'error') -> None:
        """Leave what an import leaves that failed, or did not end."""
        shown = resources.Backup(
            backup_id, status, record_rules.NO_VOLUME, fail_reason='no such driver'
        )
        self.rows[backup_id] = Row(shown)

    def get(self, backup_id: str) -> resources.Backup:
        self._check('get')
        row = self.rows.get(backup_id)
        if row is None or row.deleted:
            raise errors.NotFound(f'no backup {backup_id}')
        return row.shown

    def find(self, name_or_id: str, all_projects: bool = False) -> resources.Backup:
        if record_rules.is_uuid(name_or_id):
            return self.get(name_or_id)
        found = [item for item in self.list() if item.name == name_or_id]
        if not found:
            raise errors.NotFound(f'no backup {name_or_id}')
        if len(found) > 1:
            raise errors.InvalidInput(f'{len(found)} backups {name_or_id}')
        return found[0]

    def find_volume(self, name_or_id: str) -> resources.Volume:
        if record_rules.is_uuid(name_or_id):
            return resources.Volume(name_or_id)
        raise errors.NotFound(f'no volume {name_or_id}')

    def get_volume(self, volume_id: str) -> resources.Volume:
        if volume_id not in self.volumes:
            raise errors.NotFound(f'no volume {volume_id}')
        return self.volumes[volume_id]

    def list(
        self, volume_id: str | None = None, all_projects: bool = False
    ) -> collections.abc.Sequence[resources.Backup]:
        self._check('list')
        if all_projects:
            self.check_admin()
        shown = [row.shown for row in self.rows.values() if not row.deleted]
        return [item for item in shown if volume_id in (None, item.volume_id)]

    def check_admin(self) -> None:
        self._check('check_admin')

    def check_project(self) -> None:
        self._check('check_project')

    def check_import(self) -> None:
        self._check('check_import')

    def driver(self) -> resources.Driver | None:
        self._check('driver')
        there = [row.record for row in self.rows.values() if row.record and not row.deleted]
        if not there:
            return None
        return resources.Driver(there[0].backup_service, there[0].container, self.is_only_service)

    def in_project(self, name_or_id: str, domain: str | None = None) -> 'FakeCinder':
        for project in self.projects.values():
            if name_or_id in (project.id, project.name):
                scoped = copy.copy(self)
                scoped.project = project
                return scoped
        raise errors.NotFound(f'no project {name_or_id}')

    def room(self) -> resources.Room:
        self._check('room')
        return self.quota

    def export_record(self, backup_id: str) -> BackupRecord:
        self._check('export_record')
        shown = self.get(backup_id)
        row = self.rows[backup_id]
        if shown.status != 'available' or row.record is None:
            raise errors.CinderError(f'{backup_id} is {shown.status}')
        return row.record

    def import_record(self, item: BackupRecord) -> str:
        self._check('import_record')
        with self._lock:
            old = self.rows.get(item.id)
            if old is not None and not old.deleted:
                raise errors.Conflict(f'{item.id} already exists')
            self.calls.append(('import', item.id))
            if self.races:
                # What Cinder does with two at the same moment: one gets an error,
                # and the record of both is gone.
                self.races -= 1
                self.add(item)
                self.rows[item.id].deleted = True
                if self.races % 2:
                    raise errors.OutcomeUnknown(f'duplicate entry {item.id}')
                return item.id
            if not item.backup_service.startswith('cinder.'):
                # A row that is taken up again keeps what it had.
                shown = old.shown if old else resources.Backup(item.id, 'error')
                self.rows[item.id] = Row(
                    dataclasses.replace(
                        shown,
                        status='error',
                        volume_id=record_rules.NO_VOLUME,
                        fail_reason='no such driver',
                    )
                )
            elif item.id in self.slow:
                self.leave_placeholder(item.id, 'creating')
            else:
                self.add(item, fail_reason=old.shown.fail_reason if old else None)
        return item.id

    def wait(self, backup_id: str, timeout: float) -> resources.Backup:
        self._check('wait')
        return self.get(backup_id)

    def delete(self, backup_id: str, timeout: float) -> None:
        self._check('delete')
        self.get(backup_id)
        self.calls.append(('delete', backup_id))
        self.rows[backup_id].deleted = True

    def _check(self, method: str) -> None:
        if method in self.refuse:
            raise self.refuse[method]


def make_chain(length: int = 3) -> list[BackupRecord]:
    """Return the records of a full backup and its increments, oldest first."""
    ids = [f'{number:08d}-0000-4000-8000-000000000000' for number in range(1, length + 1)]
    parents = [None, *ids]
    return [
        records.make_record(
            id=own, parent_id=parent, display_name=f'night-{own[7]}', created_at=None
        )
        for own, parent in zip(ids, parents, strict=False)
    ]
