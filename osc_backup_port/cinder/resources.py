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

"""What the Block Storage service tells about backups and volumes.

Free of cinderclient, so that operations and their tests can use it.
"""

import dataclasses

from osc_backup_port import errors, record_rules


@dataclasses.dataclass(frozen=True)
class Cloud:
    """What messages call a cloud, where a command has to do with two.

    :ivar name: ``cloud dst``, ``region two``; None: it is the only one, and needs no name
    :ivar command: how a command for it begins
    """

    name: str | None = None
    command: str = 'openstack'

    def named(self, error: errors.PortError) -> errors.PortError:
        """Say in an error which cloud it is about; once, however often this is called."""
        if self.name and not error.problem.startswith(self._label):
            hint = error.hint and error.hint.replace('openstack ', f'{self.command} ')
            error.retell(f'{self._label}{error.problem}', hint)
        return error

    def note(self, text: str) -> str:
        """Say the same in a note."""
        return f'{self._label}{text}' if self.name else text

    @property
    def _label(self) -> str:
        name = self.name or ''
        return f'{name[:1].upper()}{name[1:]}: '


@dataclasses.dataclass(frozen=True)
class Backup:
    """One backup as ``GET /backups/{id}`` shows it.  Sizes are GiB."""

    id: str
    status: str
    volume_id: str | None = None
    size: int = 0
    name: str | None = None
    container: str | None = None
    availability_zone: str | None = None
    object_count: int = 0
    snapshot_id: str | None = None
    is_incremental: bool = False
    has_dependent_backups: bool = False
    created_at: str | None = None
    fail_reason: str | None = None
    # These two only for an admin, and not before microversions 3.18 and 3.64.
    project_id: str | None = None
    encryption_key_id: str | None = None

    @property
    def is_placeholder(self) -> bool:
        """Tell whether only an import that is not complete can look like this."""
        return self.volume_id == record_rules.NO_VOLUME and self.status != 'available'

    @property
    def is_empty_placeholder(self) -> bool:
        """Tell whether this row never held anything of a backup.

        Cinder made it for an import of an id that it did not know.  It has no
        driver, so its deletion touches nothing outside the database.  A row
        that was a backup once, was deleted, and was taken up again by an import
        keeps its driver, and with it the availability zone, container or size.
        Source: ``cinder/backup/api.py``, ``API._get_import_backup``, and
        ``cinder/backup/manager.py``, ``BackupManager.delete_backup``.
        """
        return self.is_placeholder and not any(
            (
                self.availability_zone,
                self.container,
                self.name,
                self.object_count,
                self.size,
                self.snapshot_id,
            )
        )


@dataclasses.dataclass(frozen=True)
class Volume:
    """As much of a volume as its backups have to do with; *size* is GiB."""

    id: str
    name: str | None = None
    size: int = 0
    status: str = ''
    project_id: str | None = None


@dataclasses.dataclass(frozen=True)
class Driver:
    """What the newest backup that is there tells of the driver of a cloud.

    :ivar name: its class, or its module
    :ivar container: where it put the backup; for Ceph the pool
    :ivar is_only: a single backup service is up, so there is no other driver
    """

    name: str
    container: str | None = None
    is_only: bool = True


@dataclasses.dataclass(frozen=True)
class Room:
    """What the quota of a project still has room for; None: no limit, or not known."""

    backups: int | None = None
    gigabytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Project:
    """One project, and who asks for it."""

    id: str
    name: str
    user_id: str

    @property
    def label(self) -> str:
        """What messages call it."""
        return f'{self.name} ({self.id})'

    @property
    def add_role(self) -> str:
        """The command that lets the caller import backups into it."""
        return f'openstack role add --project {self.id} --user {self.user_id} admin'
