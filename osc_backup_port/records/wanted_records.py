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

"""The records of the backups that are asked for, and of those they descend from."""

import collections.abc
import dataclasses
import typing

from osc_backup_port import errors, record
from osc_backup_port.records import side_by_side


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def export_record(self, backup_id: str) -> record.BackupRecord: ...


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of backups and of those they descend from.

    :ivar failures: those that cannot be had, and those that descend from them
    """

    found: dict[str, record.BackupRecord]
    failures: dict[str, errors.PortError]


def read(cinder: Cinder, wanted: collections.abc.Sequence[str], single: bool = False) -> Records:
    """Ask for the records of backups; one that fails does not stop the others.

    :param wanted: ids of backups; those they descend from are added
    :param single: do not add them
    :raises NotPermitted: the caller may not export records
    """
    records = Records({}, {})
    missing = list(dict.fromkeys(wanted))
    while missing:
        for key, item in zip(
            missing, side_by_side.each(cinder.export_record, missing), strict=True
        ):
            if isinstance(item, errors.PortError):
                records.failures[key] = item
            elif not item.is_ceph:
                records.failures[key] = errors.InvalidInput(
                    f'Backup {item.id}: was made by {item.backup_service}, whose data does not '
                    'lie in Ceph.',
                    'Only its record can be moved: openstack volume backup metadata export',
                )
            else:
                records.found[key] = item
        parents = {item.parent_id for item in records.found.values() if item.parent_id}
        seen = records.found.keys() | records.failures.keys()
        missing = [] if single else sorted(parents - seen)
    add_descendants(records.failures, records.found)
    return records


def add_descendants(
    failures: dict[str, errors.PortError], found: dict[str, record.BackupRecord]
) -> None:
    """Let the backups fail that descend from one that did."""
    while left_out := [
        item for item in found.values() if item.parent_id in failures and item.id not in failures
    ]:
        for item in left_out:
            failures[item.id] = errors.Conflict(
                f'Backup {item.id}: skipped: its parent {item.parent_id} is unavailable.',
                'To take it by itself, as a full backup: --single',
            )
