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

"""Judge a backup that a cloud has already by the record that is to go there."""

import dataclasses

from osc_backup_port import errors, record, record_rules
from osc_backup_port.ceph import commands
from osc_backup_port.cinder import resources

_SHOW = 'openstack volume backup show'
_IMPORT = 'openstack volume backup metadata import'


def problem(
    item: record.BackupRecord,
    there: resources.Backup,
    pool: str | None = None,
    project_id: str | None = None,
    shell: commands.Commands | None = None,
) -> errors.PortError | None:
    """Return why *there* is not the backup of *item*, whole; None when it is.

    :param pool: the pool that this cloud keeps its backups in, if known
    :param project_id: the project that it was asked to be in, if any was
    :param shell: commands of the cluster that its data is in
    """
    if there.is_placeholder:
        return _placeholder(item, there, shell or commands.Commands())
    mine = (item.volume_id, item.size)
    theirs = (there.volume_id, there.size)
    if mine != theirs:
        return errors.Conflict(
            f'Backup {there.id}: another backup has this id here: of volume {theirs[0]} with '
            f'{theirs[1]} GiB, expected volume {mine[0]} with {mine[1]} GiB.',
            f'Look at it: {_SHOW} {there.id}',
        )
    if there.status.startswith('error') or there.status in ('creating', 'deleting'):
        reason = f' ({there.fail_reason})' if there.fail_reason else ''
        return errors.Conflict(
            f'Backup {there.id}: is here with the status {there.status!r}{reason}, expected it to '
            'be available, or not to be here.',
            f'Look at it: {_SHOW} {there.id}; then delete it, or set it to available: '
            f'openstack volume backup set --state available {there.id}',
        )
    if pool and item.is_ceph and there.container != pool:
        return errors.Conflict(
            f'Backup {there.id}: is here, but its record says that it lies in the pool '
            f'{there.container!r}, expected {pool!r}.',
            f'If this cloud does keep its backups in {there.container!r}, correct --ceph-pool, or '
            'backup_ceph_pool in clouds.yaml. Otherwise the backup can be neither restored nor '
            f'really deleted like that: if the cluster has no pool {there.container!r}, delete '
            'the backup, which has nothing to delete then, and run this command again.',
        )
    if project_id and there.project_id not in (None, project_id):
        return errors.Conflict(
            f'Backup {there.id}: is here in project {there.project_id}, expected {project_id}.',
            'Leave out --project and its kin to have it left as it is. Cinder cannot give a '
            'backup to another project.',
        )
    return None


def other_image(
    item: record.BackupRecord, named: str, shell: commands.Commands
) -> errors.PortError:
    """Return the error for a record that is there and names another image than *item* does."""
    image = item.base_image or ''
    rbd = dataclasses.replace(shell, pool=shell.pool or item.container).rbd
    return errors.Conflict(
        f'Backup {item.id}: is here, and its record names image {named}; expected {image}. Cinder '
        'looks for its snapshot in the first only. It takes the second as a whole then, and '
        'restores the newest bytes of the chain.',
        f'Look at both: {rbd("snap", "ls", named)}; {rbd("snap", "ls", image)}. If the '
        'chain lies in the second alone, give it the name that the records have, which puts it '
        f'right: {rbd("rename", image, named)}',
    )


def stuck(item: record.BackupRecord, there: resources.Backup, timeout: float) -> errors.PortError:
    """Return the error for a backup that is ``creating`` after the timeout."""
    wide = ', '.join(name for name, _character in record_rules.unstorable(item.fields))
    likely = (
        f' The likely cause: a character above U+FFFF, or NUL, in {wide}, which its database '
        'cannot hold.'
        if wide
        else ''
    )
    option = ' --wide-characters replace' if wide else ''
    return errors.CinderError(
        f'Backup {there.id}: is still creating after {timeout:.0f} s, expected available.{likely}',
        'Look whether the backup service is up: openstack volume service list --service '
        'cinder-backup. The import goes on by itself when the service comes back. If it was up '
        f'all the time, look for {there.id} in cinder-backup.log. "Import record started" is '
        'not there: the message is lost. It is there with DBDataError, "Incorrect string value": '
        'the database cannot hold a character; import with --wide-characters replace. With '
        'DBConnectionError or "QueuePool limit": the database had no connection left. Cinder '
        'refuses to delete the backup as it is, so in each case: openstack volume backup set '
        f'--state error {there.id}; restart cinder-backup; and when the backup is in error: '
        f'{_IMPORT} --replace-failed{option} <file>',
    )


def _placeholder(
    item: record.BackupRecord, there: resources.Backup, shell: commands.Commands
) -> errors.PortError:
    """Return the error for what an import left that is not complete, or failed."""
    reason = f': {there.fail_reason}' if there.fail_reason else ''
    if there.status != 'error':
        return errors.Conflict(
            f'Backup {there.id}: an import of it is here with the status {there.status!r}, '
            'expected it to be done, or in error.',
            'Wait for it, and run this command again.',
        )
    if there.is_empty_placeholder:
        return errors.Conflict(
            f'Backup {there.id}: an import of it failed and left a record that is in error'
            f'{reason}.',
            'The record names no data, so to delete it is safe; do that and import anew: '
            f'{_IMPORT} --replace-failed <file>',
        )
    return errors.Conflict(
        f'Backup {there.id}: an import of it failed{reason}. It was in this cloud before and was '
        f'deleted; Cinder took up its old record, which still names data in {there.container!r}, '
        'and deleting that record now deletes the data, if any is there. So it was not touched, '
        'not even with --replace-failed.',
        _way_out(item, there, dataclasses.replace(shell, pool=there.container)),
    )


def _way_out(item: record.BackupRecord, there: resources.Backup, shell: commands.Commands) -> str:
    delete = f'openstack volume backup delete {there.id}'
    if not item.is_ceph:
        return (
            f'If there is no data of it here yet: {delete}. Else set the data aside first, and '
            f'put it back afterwards. Then run this command again.'
        )
    image = item.base_image or f'volume-{item.volume_id}.backup.*'
    aside, meta = f'aside.{image}', f'backup.{there.id}.meta'
    return (
        f'If the image is not here yet ({shell.rbd("info", image)} finds none): {delete}, and run '
        'this command again. Else set it aside, whole, with the other backups in it: '
        f'{shell.rbd("rename", image, aside)}; {shell.rados("get", meta, meta)}; {delete}; and '
        f'when the record is gone: {shell.rbd("rename", aside, image)}; '
        f'{shell.rados("put", meta, meta)}; and run this command again.'
    )
