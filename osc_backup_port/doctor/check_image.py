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

"""Hold a backup pool and the records of Cinder against each other.

Changes nothing; :mod:`osc_backup_port.doctor.fix_image` does.
"""

import dataclasses
import logging

from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.doctor import findings, judge_pool, judge_records, known_backups, pool_scan

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What was looked at, and what is wrong with it; the worst comes first."""

    pool: str
    images: int
    backups: int
    findings: list[findings.Finding]


def run(
    pool: ceph_pool.Pool, cinder: known_backups.RecordCinder, options: pool_scan.Options
) -> Report:
    """Look at pool and records.

    :raises NotPermitted: the caller is no admin
    :raises PortError: the one or the other could not be read
    """
    known, scan = known_backups.around(cinder, lambda: pool_scan.scan(pool, options))
    found = judge(known, scan)
    for one in found:
        LOG.debug('%s: %s: %s: %s', one.severity, one.code, one.target, one.found)
    return Report(pool.name, len(scan.images), len(known), found)


def judge(known: list[known_backups.Known], scan: pool_scan.Scan) -> list[findings.Finding]:
    """Return every finding, the worst first."""
    records = judge_records.Judge(known, scan)
    found = [
        *records.findings(),
        *judge_pool.Judge(known, scan, records.readings).findings(),
    ]
    return findings.by_severity(found)
