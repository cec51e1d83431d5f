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

from osc_backup_port import errors, record, record_rules
from osc_backup_port.cinder import resources

_SERVICES = 'openstack volume service list --service cinder-backup'


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    @property
    def project(self) -> resources.Project | None: ...

    @property
    def cloud(self) -> resources.Cloud: ...

    def check_project(self) -> None: ...

    def check_import(self) -> None: ...

    def driver(self) -> resources.Driver | None: ...

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


@dataclasses.dataclass
class Findings:
    """What was found.

    :ivar obstacles: what stands in the way of all
    :ivar notes: what the user is to know, or could not be found out
    """

    obstacles: list[errors.PortError] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def check(needs: collections.abc.Iterable[Need]) -> Findings:
    """Return what stands in the way of all: rights, services, drivers, quotas."""
    found = Findings()
    for need in needs:
        of_need = _check_one(need)
        found.obstacles += [need.cinder.cloud.named(error) for error in of_need.obstacles]
        found.notes += [need.cinder.cloud.note(text) for text in of_need.notes]
    found.obstacles = list({str(error): error for error in found.obstacles}.values())
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _check_one(need: Need) -> Findings:
    found = Findings()
    if not _look(found.obstacles, need.cinder.check_project):
        return found
    may_import = _look(found.obstacles, _check_rights, need)
    _look(found.obstacles, _check_driver, need, found.notes)
    _look(found.obstacles, _check_quota, need, found.notes)
    # Who may not import may not look either, and has that to care for first.
    return found if may_import else Findings(found.obstacles)


def _look(
    obstacles: list[errors.PortError],
    look: collections.abc.Callable[..., None],
    *arguments: object,
) -> bool:
    """Tell whether nothing stands in the way; add what does to *obstacles*."""
    try:
        look(*arguments)
    except errors.PortError as error:
        obstacles.append(error)
        return False
    return True


def _check_rights(need: Need) -> None:
    project = need.cinder.project
    try:
        need.cinder.check_import()
    except errors.NotPermitted as error:
        if project is None:
            raise
        raise errors.NotPermitted(
            f'Project {project.name} ({project.id}): {error.in_one_line()}',
            f'Add the role, and run this command again: {project.add_role}',
        ) from error


def _check_driver(need: Need, notes: list[str]) -> None:
    items = need.new + need.others
    try:
        driver = need.cinder.driver()
    except errors.PortError as error:
        notes.append(f'{_unknown_driver(items)} {error.in_one_line()}')
        return
    if driver is None:
        notes.append(f'{_unknown_driver(items)} No backup is there yet that could tell.')
        return
    _check_pool(items, driver, notes)
    others = [
        item for item in items if not record_rules.is_same_driver(driver.name, item.backup_service)
    ]
    if not others:
        return
    if not driver.is_only:
        notes.append(
            f'{_unknown_driver(others)} The newest backup was made by {driver.name}; of the other '
            'backup services that are up nothing is known.'
        )
        return
    raise errors.CinderError(
        f'{len(others)} backups, {others[0].id} for one, were made by {_drivers(others)}; the '
        f'newest backup of this cloud by {driver.name}. Cinder leaves in error what its backup '
        'service has no driver for.',
        'Set up a service with that driver, or leave them out. If the one that is up was given '
        'another driver only lately, back up any volume with it first. Look at: '
        f'{_SERVICES}',
    )


def _unknown_driver(items: collections.abc.Iterable[record.BackupRecord]) -> str:
    return (
        f'Whether a backup service of this cloud has the driver {_drivers(items)} is not known; '
        'without it Cinder leaves the imported backups in error.'
    )


def _drivers(items: collections.abc.Iterable[record.BackupRecord]) -> str:
    return ', '.join(sorted({item.backup_service for item in items}))


def _check_pool(
    items: collections.abc.Iterable[record.BackupRecord],
    driver: resources.Driver,
    notes: list[str],
) -> None:
    """Tell of a pool that is not the one of the backups that are there."""
    pools = {item.container for item in items if item.is_ceph and item.container}
    if not record_rules.is_ceph(driver.name) or not driver.container:
        return
    notes.extend(
        f'The backups are to lie in the pool {pool!r}; the newest backup of this cloud lies in '
        f'{driver.container!r}. In another pool than the one of its cinder-backup a backup can '
        f'be neither restored nor really deleted. If that is {driver.container!r}, give the '
        'cloud this backup_ceph_pool in clouds.yaml.'
        for pool in sorted(pools - {driver.container})
    )


def _check_quota(need: Need, notes: list[str]) -> None:
    """Refuse all when the quota has no room for all; half a chain helps nobody."""
    # A leftover gives back its number and, since its size is 0, no gigabytes.
    size = sum(item.size for item in need.new + need.others)
    project = need.cinder.project
    where = f'project {project.name} ({project.id})' if project else 'this project'
    target = project.id if project else '<project>'
    try:
        room = need.cinder.room()
    except errors.PortError as error:
        notes.append(f'Whether the quota of {where} has room is not known. {error.in_one_line()}')
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
