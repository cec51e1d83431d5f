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

"""Write the records that can be made of what lies in a pool."""

import dataclasses
import logging
import pathlib

from osc_backup_port import errors, files
from osc_backup_port.ceph import locating
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.doctor import pool_scan, rebuild_records
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import record_file

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of one backup.

    :param result: ``written``, ``unchanged``, ``found`` where nothing was to be
        written, ``skipped``, ``failed``
    """

    made: rebuild_records.Rebuilt | rebuild_records.Skipped
    result: str
    file: pathlib.Path | None = None
    error: errors.PortError | None = None

    @property
    def reason(self) -> str | None:
        """Why it was skipped."""
        if isinstance(self.made, rebuild_records.Rebuilt):
            return None
        which = self.made.backup_id or 'of unknown id'
        return f'Backup {which} in image {self.made.image}: {self.made.reason}'

    @property
    def is_failure(self) -> bool:
        return self.result in ('skipped', 'failed')


def run(
    pool: ceph_pool.Pool, volume_id: str | None, directory: pathlib.Path | None
) -> list[Result]:
    """Rebuild the records of a pool, or of one volume.

    :param directory: where to write them, one file each; None: nowhere
    :raises NotFound: there is no backup
    :raises CephError: the cluster refused or was lost
    """
    scan = pool_scan.scan(pool, pool_scan.Options())
    found = rebuild_records.rebuild(scan, volume_id)
    if not found:
        raise _nothing_there(scan, volume_id)
    if directory is not None:
        files.make_folder(directory)
    return [_result(made, directory) for made in found]


def _nothing_there(scan: pool_scan.Scan, volume_id: str | None) -> errors.NotFound:
    what = f'of volume {volume_id} ' if volume_id else ''
    problem = f'Pool {scan.pool}: there is no backup {what}in it.'
    parsed = ((one, ceph_driver.parse_image(one.name)) for one in scan.trash)
    trashed = [one for one, ids in parsed if ids and volume_id in (None, ids[0])]
    if trashed:
        names = ', '.join(one.name for one in trashed)
        commands = '; '.join(locating.restore_command(scan.commands, one) for one in trashed)
        return errors.NotFound(f'{problem} In its trash: {names}.', f'Have it back: {commands}')
    return errors.NotFound(
        problem,
        f'Is it another pool? --ceph-pool <pool>. See what is there: {scan.commands.rbd("ls")}',
    )


def _result(
    made: rebuild_records.Rebuilt | rebuild_records.Skipped, directory: pathlib.Path | None
) -> Result:
    if isinstance(made, rebuild_records.Skipped):
        LOG.info('Image %s, backup %s: skipped: %s', made.image, made.backup_id, made.reason)
        return Result(made, 'skipped')
    if directory is None:
        return Result(made, 'found')
    path = directory / f'{made.record.id}.json'
    try:
        result = _write(path, made)
        LOG.info('Backup %s: record in %s: %s.', made.record.id, path, result)
        return Result(made, result, path)
    except errors.PortError as error:
        return Result(made, 'failed', error=error)


def _write(path: pathlib.Path, made: rebuild_records.Rebuilt) -> str:
    """Write one record; never over another one, which may be Cinder's own.

    :raises Conflict: the file is there and says something else
    """
    content = record_file.write_record(made.record).encode()
    there = files.read_file(path, record_file.MAX_FILE_SIZE)
    if there is None:
        files.write_file(path, content)
        return 'written'
    if there == content:
        return 'unchanged'
    raise errors.Conflict(
        f'{path}: is there already, and says something else than what was rebuilt.',
        'If Cinder exported it, it is the better one: keep it. Else choose another directory.',
    )
