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

"""Hold the counters of dependent backups against those that depend.  Pure."""

import collections
from collections.abc import Iterator

from osc_backup_port import record
from osc_backup_port.doctor import known_backups
from osc_backup_port.doctor.findings import Finding


def findings(known: list[known_backups.Known]) -> Iterator[Finding]:
    """Return what is wrong with ``num_dependent_backups``."""
    children = collections.Counter(
        one.record.parent_id for one in known if one.record and one.record.parent_id
    )
    # Without the record of one, nobody knows whose child it is, or whether it counts yet.
    unsure = collections.Counter(one.backup.volume_id for one in known if one.record is None)
    for one in known:
        if one.record is None or not one.is_settled:
            continue
        counted, real = one.record.num_dependent_backups, children[one.id]
        if not real <= counted <= real + unsure[one.record.volume_id]:
            yield _drifted(one.record, counted, real)


def _drifted(backup: record.BackupRecord, counted: int, real: int) -> Finding:
    return Finding(
        'dependents-drifted',
        f'backup {backup.id}',
        f'the record counts {counted} dependent backups, {real} name it as their parent.',
        'No command of Cinder sets it. In its database, in the row of this backup in the table '
        f'backups: num_dependent_backups = {real}',
        backup.id,
    )
