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

"""Which backups a command is about."""

import collections.abc
import dataclasses
import typing

from osc_backup_port import errors
from osc_backup_port.cinder import resources
from osc_backup_port.records import side_by_side

# A backup in one of these is no backup, or not yet, or not any more.  One with
# any other status (restoring) is, and that it cannot be exported is a failure.
_NOT_A_BACKUP = frozenset({'creating', 'deleting', 'error', 'error_deleting'})


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def find(self, name_or_id: str, all_projects: bool = False) -> resources.Backup: ...

    def find_volume(self, name_or_id: str) -> resources.Volume: ...

    def list(
        self, volume_id: str | None = None, all_projects: bool = False
    ) -> collections.abc.Sequence[resources.Backup]: ...


@dataclasses.dataclass(frozen=True)
class Selection:
    """What the user asks for: backups, or those of a volume, or all."""

    backups: collections.abc.Sequence[str] = ()
    volume: str | None = None
    everything: bool = False
    all_projects: bool = False

    def check(self) -> None:
        """:raises errors.InvalidInput: the options do not go together"""
        ways = [bool(self.backups), self.volume is not None, self.everything]
        if sum(ways) != 1:
            raise errors.InvalidInput(
                'Which backups? Expected one of: <backup>..., --volume <volume>, --all.'
            )


@dataclasses.dataclass(frozen=True)
class Selected:
    """The backups that were found, and what was asked for and was not."""

    backups: list[resources.Backup]
    failures: list[errors.PortError]


def is_backup(backup: resources.Backup) -> bool:
    """Tell whether it has a record to export, by its status."""
    return backup.status not in _NOT_A_BACKUP


def select(cinder: Cinder, selection: Selection) -> Selected:
    """Find the backups.

    :raises errors.PortError: none of them can be found
    """
    selection.check()
    if selection.backups:
        return _find(cinder, selection)
    volume_id = None
    if selection.volume is not None:
        volume_id = cinder.find_volume(selection.volume).id
    listed = cinder.list(volume_id=volume_id, all_projects=selection.all_projects)
    if not listed:
        where = f'of volume {volume_id}' if volume_id else 'in this project'
        raise errors.NotFound(
            f'There are no backups {where}.',
            None if selection.all_projects else 'For those of other projects: --all-projects',
        )
    return Selected(list(listed), [])


def _find(cinder: Cinder, selection: Selection) -> Selected:
    failures: list[errors.PortError] = []
    found: dict[str, resources.Backup] = {}
    names = list(dict.fromkeys(selection.backups))
    for item in side_by_side.each(
        lambda name: cinder.find(name, all_projects=selection.all_projects), names
    ):
        if isinstance(item, errors.PortError):
            failures.append(item)
        else:
            found.setdefault(item.id, item)
    if len(names) == 1 and failures:
        raise failures[0]
    return Selected(list(found.values()), failures)
