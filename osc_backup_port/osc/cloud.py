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

"""A command that needs Cinder, Ceph or both, and only when it comes to that.

``openstack`` loads the classes of all commands before it runs any.  So what
costs time to import is imported where it is used, here and in the commands.
"""

import argparse
import collections.abc
import contextlib
import typing

from osc_backup_port import errors
from osc_backup_port.osc import base, ceph_options

if typing.TYPE_CHECKING:
    from osc_backup_port import record
    from osc_backup_port.ceph import pool
    from osc_backup_port.cinder import backups


class CloudCommand(base.CommandMixin):
    """Goes before one of osc-lib's command classes, which then need no cloud to start."""

    auth_required = False

    @property
    def cloud(self) -> collections.abc.Mapping[str, typing.Any]:
        """What clouds.yaml says of the cloud in use."""
        return typing.cast(collections.abc.Mapping[str, typing.Any], self.app.cloud.config)

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._timeout: float | None = getattr(parsed_args, 'timeout', None)
        return super().run(parsed_args)

    def cinder(self) -> 'backups.BackupService':
        """Return the Block Storage service of the cloud in use.

        It may be silent as long as ``--timeout`` says, in a command that has the option.
        """
        from osc_backup_port.cinder import backups, login, patience

        waits = patience.Patience(patience.DEFAULT if self._timeout is None else self._timeout)
        login.run(self.app.client_manager, self.authenticate, waits)
        return backups.BackupService.from_client_manager(self.app.client_manager, waits=waits)

    def open_pool(
        self, parsed_args: argparse.Namespace, backup: 'record.BackupRecord | None' = None
    ) -> 'contextlib.AbstractContextManager[pool.Pool]':
        """Open the pool of the backups.

        :param parsed_args: with what ``ceph_options.add_arguments`` added
        :param backup: one of those, whose record may name the pool
        :raises InvalidInput: nothing names the pool, or it is none of Ceph
        """
        from osc_backup_port.ceph import cluster

        if backup is not None and not backup.is_ceph:
            raise errors.InvalidInput(
                f'Backup {backup.id}: was made by {backup.backup_service}, whose data does not '
                'lie in Ceph.',
                'Only its record can be moved: openstack volume backup metadata export',
            )
        name = ceph_options.pool_name(parsed_args, self.cloud, backup)
        return cluster.open_pool(ceph_options.settings(parsed_args, self.cloud), name)
