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

"""What stands in the way of an import, all of it, before anything is written."""

import collections.abc
import dataclasses
import typing

from osc_backup_port import errors, record, units
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import projects, resources

_SERVICES = 'openstack volume service list --service cinder-backup'


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    @property
    def project(self) -> projects.Project | None: ...

    def check_import(self) -> None: ...

    def driver(self) -> str | None: ...

    def room(self) -> resources.Room: ...


@dataclasses.dataclass
class Need:
    """What comes into one project.

    :ivar cinder: the service with a token of that project
    :ivar new: backups that Cinder does not have in any form
    :ivar others: those that replace what an import left that failed
    """

    cinder: Cinder
    new: list[record.BackupRecord]
    others: list[record.BackupRecord]


def check(needs: collections.abc.Iterable[Need]) -> list[errors.PortError]:
    """Return what stands in the way of all: rights, services, drivers, quotas."""
    found: list[errors.PortError] = []
    for need in needs:
        for look in (_check_rights, _check_driver, _check_quota):
            try:
                look(need)
            except errors.Interrupted:
                raise
            except errors.PortError as error:
                found.append(error)
    return found


def check_space(pool: ceph_pool.Pool, needed: int) -> list[errors.PortError]:
    """Return why the pool has no room for so many bytes, if it has none."""
    free = pool.free()
    if free is None or needed <= free:
        return []
    return [
        errors.CephError(
            f'Pool {pool.name}: has room for {units.human_size(free)}, expected '
            f'{units.human_size(needed)}.',
            'Look at: ceph df detail; then free space or add OSDs, or import fewer backups.',
        )
    ]


def _check_rights(need: Need) -> None:
    project = need.cinder.project
    try:
        need.cinder.check_import()
    except errors.NotPermitted as error:
        if project is None:
            raise
        raise errors.NotPermitted(
            f'Project {project.name} ({project.id}): {error.problem}',
            f'Add the role, and run this command again: {project.add_role}',
        ) from error


def _check_driver(need: Need) -> None:
    driver = need.cinder.driver()
    others = [item for item in need.new + need.others if driver not in (None, item.backup_service)]
    if others:
        kinds = ', '.join(sorted({item.backup_service for item in others}))
        raise errors.CinderError(
            f'{len(others)} backups, {others[0].id} for one, were made by {kinds}; the backup '
            f'service of this cloud has {driver}, and Cinder would leave them in error.',
            f'Set up a service with that driver, or leave them out. Look at: {_SERVICES}',
        )


def _check_quota(need: Need) -> None:
    """Refuse all when the quota has no room for all; half a chain helps nobody."""
    # A leftover gives back its number and, since its size is 0, no gigabytes.
    size = sum(item.size for item in need.new + need.others)
    project = need.cinder.project
    where = f'project {project.name} ({project.id})' if project else 'this project'
    target = project.id if project else '<project>'
    try:
        room = need.cinder.room()
    except errors.NotPermitted:
        # Who may not import is told so; else Cinder itself looks at the quota.
        return
    short = []
    if room.backups is not None and room.backups < len(need.new):
        short.append(f'{room.backups} more backups, expected {len(need.new)}')
    if room.gigabytes is not None and room.gigabytes < size:
        short.append(f'{room.gigabytes} GiB more of backups, expected {size}')
    if short:
        raise errors.CinderError(
            f'The quota of {where} has room for {" and for ".join(short)}.',
            'Look at the quota: openstack quota show; raise it: openstack quota set '
            f'--backups <number> --backup-gigabytes <GiB> {target}',
        )
