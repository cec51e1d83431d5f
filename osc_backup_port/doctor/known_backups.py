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

"""What Cinder knows of backups, to be held against what lies in a pool."""

import collections.abc
import dataclasses
import typing

from osc_backup_port import errors
from osc_backup_port import record as record_module
from osc_backup_port.cinder import resources
from osc_backup_port.records import side_by_side


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def list(
        self, volume_id: str | None = None, all_projects: bool = False
    ) -> collections.abc.Sequence[resources.Backup]: ...


class RecordCinder(Cinder, typing.Protocol):
    """What reading the records needs besides."""

    def export_record(self, backup_id: str) -> record_module.BackupRecord: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """A backup that Cinder knows.

    :param record: None where it has none to export, or none that is valid
    :param problem: why the record of an available backup could not be had
    :param is_settled: it was available before the pool was looked at, and
        after; what it lacks there it really lacks
    """

    backup: resources.Backup
    record: record_module.BackupRecord | None = None
    problem: errors.PortError | None = None
    is_settled: bool = False

    @property
    def id(self) -> str:
        return self.backup.id


T = typing.TypeVar('T')


def list_all(cinder: Cinder) -> list[resources.Backup]:
    """Return the backups of all projects.

    :raises NotPermitted: the caller is no admin, who would be shown a part of
        them without a word, so that the rest looked like leaked
    """
    found = list(cinder.list(all_projects=True))
    if found and not any(backup.project_id for backup in found):
        raise errors.NotPermitted(
            'Block Storage shows only the backups of this project, expected those of all.',
            'Use a cloud or user with the admin role.',
        )
    return found


def pool_of(backups: collections.abc.Iterable[resources.Backup]) -> str:
    """Return the one pool that backups name.

    :raises InvalidInput: they name none, or several
    """
    names = sorted({backup.container for backup in backups if backup.container})
    if len(names) == 1:
        return names[0]
    found = f'the backups of this cloud name {len(names)}: {", ".join(names)}' if names else ''
    raise errors.InvalidInput(
        f'Which pool? {found or "Nothing names one, and there are no backups that could."}',
        'Name the one that is backup_ceph_pool in cinder.conf: --ceph-pool <pool>, or the key '
        'backup_ceph_pool of the cloud in clouds.yaml.',
    )


def around(cinder: RecordCinder, look: collections.abc.Callable[[], T]) -> tuple[list[Known], T]:
    """Call *look* between two lists of the backups, then read their records.

    A backup that comes or goes meanwhile is known, so that nothing of it looks
    leaked, and not settled, so that nothing of it looks missing.

    :raises NotPermitted: the caller may not see all backups, or their records
    :raises CinderError: not a single record could be read
    """
    before = {backup.id: backup for backup in list_all(cinder)}
    seen = look()
    after = {backup.id: backup for backup in list_all(cinder)}
    everything = {**before, **after}
    readable = [
        identity
        for identity, backup in after.items()
        if backup.status == 'available' and identity in before
    ]
    exported = dict(zip(readable, side_by_side.each(cinder.export_record, readable), strict=True))
    failures = [item for item in exported.values() if isinstance(item, errors.PortError)]
    lost = [item for item in failures if isinstance(item, errors.CinderError)]
    if lost and len(lost) == len(exported):
        raise lost[0]
    known = [
        _known(backup, exported.get(identity), before.get(identity))
        for identity, backup in everything.items()
    ]
    return known, seen


def _known(
    backup: resources.Backup,
    exported: record_module.BackupRecord | errors.PortError | None,
    before: resources.Backup | None,
) -> Known:
    if isinstance(exported, errors.NotFound):
        return Known(backup)  # deleted since the list
    if isinstance(exported, errors.PortError):
        return Known(backup, problem=exported)
    is_settled = exported is not None and before is not None and before.status == 'available'
    return Known(backup, exported, is_settled=is_settled)
