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

"""Backups and their records, through the Block Storage API."""

import collections.abc
import contextlib
import logging
import re
import time
import typing

from cinderclient import exceptions as cinder_exceptions
from keystoneauth1 import identity

from osc_backup_port import errors, record_rules
from osc_backup_port import record as record_module
from osc_backup_port.cinder import client as cinder_client
from osc_backup_port.cinder import faults, patience, projects, resources

LOG = logging.getLogger(__name__)

#: In base64, and no JSON.
_NO_RECORD = 'bm90aGluZw=='
# As no release calls a column of a backup.
_NO_FILTER = 'port_no_such_filter'
_ANY_DRIVER = 'cinder.backup.drivers.ceph.CephBackupDriver'

# What Cinder answers when the service that it asked has another driver than the backup.
_OTHER_DRIVER = re.compile(
    r'currently configured \[([^]]*)\].* create this backup \[([^]]*)\]', re.DOTALL
)
# With two services the right one is missed so often once in 4096 times.
_EXPORTS = 12
#: Seconds by which each pause between them is longer than the one before.
EXPORT_PAUSE = 0.05

_PROJECT_ID = 'os-backup-project-attr:project_id'
# An admin finds an id in any project, so look for it in all of them.
_LIST = 'openstack volume backup list --all-projects'

#: Seconds between two looks at a backup that is being imported or deleted: at
#: first, since most are done at once, and at most.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


class BackupService:
    """The backups of one cloud.

    Every method raises ``errors.CinderError`` when the service refuses, fails
    or does not answer, and ``errors.NotPermitted``, which is one, when the
    caller's role does not allow it.  It may be used by several threads at once.
    """

    def __init__(
        self,
        client: typing.Any,
        project: resources.Project | None = None,
        waits: patience.Patience | None = None,
        cloud: resources.Cloud | None = None,
    ) -> None:
        """Take what talks to the service.

        :param client: what ``cinder.client.connect`` returns
        :param project: the one that it is logged in to, where that is not the caller's
        :param waits: how long the cloud may be silent
        :param cloud: what messages call it
        """
        self._client = client
        self._client_manager: typing.Any = None
        self._patience = waits or patience.Patience()
        self.project = project
        self.cloud = cloud or resources.Cloud()

    @classmethod
    def from_client_manager(
        cls,
        client_manager: typing.Any,
        project: resources.Project | None = None,
        waits: patience.Patience | None = None,
        cloud: resources.Cloud | None = None,
    ) -> 'BackupService':
        """Return the service of a cloud.

        :param client_manager: the one that OSC hands to commands
        :param project: another one than that of the caller's token
        :param waits: how long the cloud may be silent
        :param cloud: what messages call it
        """
        cloud = cloud or resources.Cloud()
        waits = waits or patience.Patience()
        waits.attach(client_manager.session)
        with _named(cloud):
            auth = projects.Projects(client_manager).auth(project) if project else None
            service = cls(cinder_client.connect(client_manager, auth), project, waits, cloud)
        service._client_manager = client_manager
        return service

    def in_project(self, name_or_id: str, domain: str | None = None) -> 'BackupService':
        """Return this service with a token of another project.

        :param domain: name or id of the domain that the project is in
        :raises errors.NotFound: there is no such project
        :raises errors.NotPermitted: the caller may not log in there
        """
        with _named(self.cloud):
            project = projects.Projects(self._client_manager).find(name_or_id, domain)
        if project.id == self._client.client.get_project_id():
            return BackupService(self._client, project, self._patience, self.cloud)
        return BackupService.from_client_manager(
            self._client_manager, project, self._patience, self.cloud
        )

    def project_names(self) -> dict[str, str]:
        """Return the names of the projects that the caller may see, by their ids."""
        with _named(self.cloud):
            return projects.Projects(self._client_manager).names()

    def get(self, backup_id: str) -> resources.Backup:
        """Return the backup of that id, for an admin of any project.

        :raises errors.NotFound: no such backup, or not one of the caller's
        """
        with self._asking(f'show backup {backup_id}', 'backup:get', _LIST):
            backup = _backup(self._client.backups.get(backup_id))
        LOG.debug(
            '%s: backup %s is %s; volume %s, container %s.',
            self._called,
            backup_id,
            backup.status,
            backup.volume_id,
            backup.container,
        )
        return backup

    def find(self, name_or_id: str, all_projects: bool = False) -> resources.Backup:
        """Return the one backup of that id or name.

        An id is found in any project by an admin; a name only in the caller's
        own unless *all_projects*.

        :raises errors.NotFound: there is none
        :raises errors.InvalidInput: several have that name
        """
        if record_rules.is_uuid(name_or_id):
            try:
                return self.get(name_or_id)
            except errors.NotFound:
                pass  # a name may look like an id
        with self._asking(f'look for backup {name_or_id}', 'backup:get_all'):
            found = self._list({'name': name_or_id}, all_projects)
        # A filter may match more than the whole name (since 3.34, `name~`).
        found = [backup for backup in found if backup.name == name_or_id]
        if not found:
            raise errors.NotFound(
                f'There is no backup with the name or id {name_or_id!r}.',
                'See what is there: openstack volume backup list'
                + (' --all-projects' if all_projects else ''),
            )
        if len(found) > 1:
            raise errors.InvalidInput(
                f'{len(found)} backups have the name {name_or_id!r}:',
                'Give one of these ids instead of the name.',
                [f'  {b.id}  created {b.created_at}, {b.status}' for b in found],
            )
        return found[0]

    def list(
        self, volume_id: str | None = None, all_projects: bool = False
    ) -> collections.abc.Sequence[resources.Backup]:
        """Return the backups of the project, or of one volume, oldest first.

        :raises errors.NotPermitted: of all projects, and the caller is no admin; or of the
            project, and the token belongs to none
        """
        with self._asking('list the backups', 'backup:get_all'):
            return self._list({'volume_id': volume_id} if volume_id else {}, all_projects)

    def find_volume(self, name_or_id: str) -> resources.Volume:
        """Return a volume by id or name.

        An id is taken as it stands: backups outlive their volume.

        :raises errors.NotFound: no volume has that name
        :raises errors.InvalidInput: several have that name
        """
        if record_rules.is_uuid(name_or_id):
            return resources.Volume(name_or_id)
        with self._asking(f'look for volume {name_or_id}', 'volume:get_all'):
            found = self._client.volumes.list(search_opts={'name': name_or_id})
        if not found:
            raise errors.NotFound(
                f'There is no volume with the name {name_or_id!r}.',
                'Give its id; a volume that was deleted is found only by that. '
                'The backups show it: openstack volume backup list --long',
            )
        if len(found) > 1:
            ids = ', '.join(sorted(volume.id for volume in found))
            raise errors.InvalidInput(
                f'{len(found)} volumes have the name {name_or_id!r}: {ids}.',
                'Give one of these ids instead of the name.',
            )
        return resources.Volume(found[0].id, found[0].name)

    def get_volume(self, volume_id: str) -> resources.Volume:
        """Return a volume that is there.

        :raises errors.NotFound: no such volume, or not one of the caller's
        """
        missing = 'openstack volume list --all-projects'
        with self._asking(f'show volume {volume_id}', 'volume:get', missing):
            shown = self._client.volumes.get(volume_id).to_dict()
        return resources.Volume(
            shown['id'],
            shown.get('name'),
            shown.get('size') or 0,
            shown.get('status') or '',
            shown.get('os-vol-tenant-attr:tenant_id'),
        )

    def export_record(self, backup_id: str) -> record_module.BackupRecord:
        """Return the record of a backup, which must be ``available``.

        :raises errors.NotFound: no such backup
        :raises errors.InvalidRecord: the cloud gave a record that cannot be
            imported anywhere
        """
        action = f'export the record of backup {backup_id}'
        with self._asking(action, 'backup:export-import', _LIST):
            answer = self._export(backup_id)
            service, url = answer['backup_service'], answer['backup_url']
        return record_module.BackupRecord.decode(
            service, url, f'Backup {backup_id}: what Cinder exported'
        )

    def _export(self, backup_id: str) -> typing.Any:
        """Ask for a record until a backup service is asked that has its driver.

        Of several services Cinder takes one by chance.
        """
        made_by = configured = ''
        for tries in range(_EXPORTS):
            time.sleep(tries * EXPORT_PAUSE)
            try:
                return self._client.backups.export_record(backup_id)
            except cinder_exceptions.BadRequest as error:
                drivers = _OTHER_DRIVER.search(str(error.message))
                if drivers is None:
                    raise
                configured, made_by = drivers.groups()
                LOG.info(
                    '%s: export of the record of backup %s: a service with the driver %s was '
                    'asked, expected %s. Asking again.',
                    self._called,
                    backup_id,
                    configured,
                    made_by,
                )
        raise errors.CinderError(
            f'Cannot export the record of backup {backup_id}: it was made by {made_by}, and each '
            f'of {_EXPORTS} times a backup service was asked that has {configured}.',
            f'A backup service with the driver {made_by} has to be up: openstack volume service '
            'list --service cinder-backup',
        )

    def import_record(self, record: record_module.BackupRecord) -> str:
        """Ask for the import of a record; return the id of the new backup.

        The backup is ``creating`` then: see :meth:`wait`.

        :raises errors.Conflict: a backup of that id is there
        """
        action = f'import the record of backup {record.id}'
        with self._asking(action, 'backup:backup-import'):
            answer = self._client.backups.import_record(record.backup_service, record.backup_url)
            accepted = str(answer['id'])
        LOG.info('%s: accepted the record of backup %s for import.', self._called, accepted)
        return accepted

    def room(self) -> resources.Room:
        """Return what the quota of the project in use still has room for."""
        with self._asking('show the quota', 'volume_extension:quotas:show'):
            project_id = self._client.client.get_project_id()
            quota = self._client.quotas.get(project_id, usage=True).to_dict()
        room = resources.Room(_left(quota.get('backups')), _left(quota.get('backup_gigabytes')))
        LOG.debug(
            '%s: quota of project %s: room for %s backups and %s GiB (None: no limit).',
            self._called,
            project_id,
            room.backups,
            room.gigabytes,
        )
        return room

    def check_import(self) -> None:
        """Make sure that records can be imported; import none.

        Cinder is asked for the import of what is no record.  It looks at the caller's
        rights first, then for a backup service that is up, and then at that.
        Source: ``cinder/backup/api.py``, ``API.import_record``.

        :raises errors.NotPermitted: the caller may not
        :raises errors.CinderError: no backup service is up
        """
        with self._asking('import records', 'backup:backup-import'):
            try:
                with self._patience.repeating():
                    self._client.backups.import_record(_ANY_DRIVER, _NO_RECORD)
            except cinder_exceptions.BadRequest:
                return
            raise errors.CinderError('Cinder accepts what is no record.')

    def driver(self) -> resources.Driver | None:
        """Return the driver that made the newest backup, None where there is no backup.

        Nothing else tells which driver a backup service has.

        :raises errors.PortError: the caller may not look, or the record cannot be had
        """
        with self._asking('list the backup services', 'volume_extension:services:index'):
            services = self._client.services.list(binary='cinder-backup')
            query = {'all_tenants': 1, 'status': 'available'}
            newest = self._client.backups.list(search_opts=query, limit=1)
        if not newest:
            return None
        made = self.export_record(newest[0].id)
        up = [service for service in services if service.state == 'up']
        return resources.Driver(made.backup_service, made.container, len(up) == 1)

    def check_admin(self) -> None:
        """Make sure that the caller sees what belongs to all projects.

        Others are shown the backups of their own project without a word, whatever else they
        may do.  So Cinder is asked with a filter that there is not: it refuses it, since 3.31,
        or leaves it out, before that, for all but those whom it shows all projects.
        Source: ``cinder/api/common.py``, ``reject_invalid_filters``; ``cinder/backup/api.py``,
        ``API.get_all``.

        :raises errors.NotPermitted: the caller is no admin
        """
        query = {'all_tenants': 1, _NO_FILTER: 'x'}
        with self._asking('list the backups of all projects', 'backup:get_all'):
            try:
                if not self._client.backups.list(search_opts=query, limit=1):
                    return
            except cinder_exceptions.BadRequest:
                pass
        raise errors.NotPermitted(
            'Cannot list the backups of all projects: Cinder takes the caller for no admin, and '
            'shows only those of the own project.',
            'Use a user with the admin role (the rule is context_is_admin in the policy of '
            'Cinder). Without --all-projects the backups of the own project are meant.',
        )

    def check_project(self) -> None:
        """Make sure that the token is one of a project.

        :raises errors.NotPermitted: it is not; an imported backup would belong to none
        """
        client = self._client.client
        auth = client.auth or client.session.auth
        if not isinstance(auth, identity.BaseIdentityPlugin):
            return  # Without Keystone there is nothing to be known.
        with self._asking('log in'):
            access = auth.get_access(client.session)
        LOG.debug(
            '%s: logged in as user %s, project %s (%s), until %s.',
            self._called,
            access.username,
            access.project_name,
            access.project_id,
            access.expires,
        )
        if access.project_id:
            return
        owner = 'neither a project nor a domain'
        if access.domain_id:
            owner = f'domain {access.domain_name or access.domain_id}, and to no project'
        elif getattr(access, 'system_scoped', False):
            owner = 'the system, and to no project'
        raise errors.NotPermitted(
            f'The token belongs to {owner}. An imported backup has to belong to a project, and '
            'so have those that are listed.',
            'For an import: --project <project>; to list: --all-projects; or name a project in '
            'the credentials: --os-project-name <project>',
        )

    def wait(self, backup_id: str, timeout: float, pause: float = FIRST_PAUSE) -> resources.Backup:
        """Look until the backup is ``available`` or in an error, or *timeout*.

        :return: the backup as last seen; its status tells which of them it was
        """
        began = time.monotonic()
        deadline = began + timeout
        while True:
            with self._patience.until(deadline):
                backup = self.get(backup_id)
            is_over = backup.status == 'available' or backup.status.startswith('error')
            waited = time.monotonic() - began
            if is_over or waited >= timeout:
                LOG.info(
                    '%s: backup %s is %s after %.1f s.',
                    self._called,
                    backup_id,
                    backup.status,
                    waited,
                )
                return backup
            pause = _sleep(pause, deadline)

    def delete(self, backup_id: str, timeout: float, pause: float = FIRST_PAUSE) -> None:
        """Delete a backup and wait until it is gone.

        :raises errors.CinderError: refused, failed, or not done in time
        """
        action = f'delete backup {backup_id}'
        deadline = time.monotonic() + timeout
        # Where it is not known whether that was done, the status tells it.
        with (
            contextlib.suppress(errors.OutcomeUnknown),
            self._asking(action, 'backup:delete', _LIST),
        ):
            self._client.backups.delete(backup_id)
        while True:
            try:
                with self._patience.until(deadline):
                    status = self.get(backup_id).status
            except errors.NotFound:
                LOG.info('%s: backup %s is deleted.', self._called, backup_id)
                return
            if status != 'deleting' or time.monotonic() >= deadline:
                raise errors.CinderError(
                    f'Cannot {action}: its status is {status!r}, expected it to be gone.',
                    f'Look at it: openstack volume backup show {backup_id}',
                )
            pause = _sleep(pause, deadline)

    @contextlib.contextmanager
    def _asking(
        self, action: str, policy: str | None = None, missing: str | None = None
    ) -> collections.abc.Iterator[None]:
        """Turn every failure into an error of ours that says which cloud it is about."""
        LOG.debug('%s: asked to %s.', self._called, action)
        began = time.monotonic()
        try:
            with _named(self.cloud), faults.as_errors(action, policy, missing):
                yield
        except errors.PortError as error:
            LOG.debug('No success after %.2f s: %s', time.monotonic() - began, error.problem)
            raise
        LOG.debug('%s: %s: done in %.2f s.', self._called, action, time.monotonic() - began)

    @property
    def _called(self) -> str:
        return f'Cinder of {self.cloud.name}' if self.cloud.name else 'Cinder'

    def _list(
        self, filters: dict[str, str], all_projects: bool
    ) -> collections.abc.Sequence[resources.Backup]:
        options: dict[str, typing.Any] = dict(filters)
        if all_projects:
            self.check_admin()
            options['all_tenants'] = 1
        else:
            self.check_project()
        found = [_backup(item) for item in self._client.backups.list(search_opts=options)]
        LOG.debug('%s: lists %d backups.', self._called, len(found))
        return sorted(found, key=lambda backup: (backup.created_at or '', backup.id))


@contextlib.contextmanager
def _named(cloud: resources.Cloud) -> collections.abc.Iterator[None]:
    try:
        yield
    except errors.PortError as error:
        cloud.named(error)
        raise


def _sleep(pause: float, deadline: float) -> float:
    """Sleep so long, but not past the deadline; return how long the next time."""
    time.sleep(max(min(pause, deadline - time.monotonic()), 0))
    return min(pause * 1.5, LONGEST_PAUSE)


def _left(usage: typing.Any) -> int | None:
    # A limit of -1 is none.  Before Liberty there was no quota of backups.
    if not isinstance(usage, dict) or usage['limit'] < 0:
        return None
    return max(int(usage['limit'] - usage['in_use'] - usage['reserved']), 0)


def _backup(item: typing.Any) -> resources.Backup:
    shown = item.to_dict()
    return resources.Backup(
        id=shown['id'],
        status=shown['status'] or '',
        volume_id=shown.get('volume_id'),
        size=shown.get('size') or 0,
        name=shown.get('name'),
        container=shown.get('container'),
        availability_zone=shown.get('availability_zone'),
        object_count=shown.get('object_count') or 0,
        snapshot_id=shown.get('snapshot_id'),
        is_incremental=bool(shown.get('is_incremental')),
        has_dependent_backups=bool(shown.get('has_dependent_backups')),
        created_at=shown.get('created_at'),
        fail_reason=shown.get('fail_reason'),
        project_id=shown.get(_PROJECT_ID),
        encryption_key_id=shown.get('encryption_key_id'),
    )
