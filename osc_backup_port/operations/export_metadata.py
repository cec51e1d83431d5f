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

"""Write the records of backups to files."""

import collections.abc
import dataclasses
import pathlib
import typing

from osc_backup_port import errors, files, record
from osc_backup_port.cinder import resources
from osc_backup_port.formats import record_file
from osc_backup_port.operations import side_by_side

# A backup in one of these is no backup, or not yet, or not any more.  One with
# any other status (restoring) is, and that it cannot be exported is a failure.
_NOT_A_BACKUP = frozenset({'creating', 'deleting', 'error', 'error_deleting'})


class Cinder(typing.Protocol):
    """What this operation needs of the Block Storage service."""

    def find(self, name_or_id: str, all_projects: bool = False) -> resources.Backup: ...

    def find_volume(self, name_or_id: str) -> resources.Volume: ...

    def list(
        self, volume_id: str | None = None, all_projects: bool = False
    ) -> collections.abc.Sequence[resources.Backup]: ...

    def export_record(self, backup_id: str) -> record.BackupRecord: ...


@dataclasses.dataclass(frozen=True)
class Options:
    """What to export, and where to.

    Neither *file* nor *directory*: the caller writes the one record itself.
    """

    backups: collections.abc.Sequence[str] = ()
    volume: str | None = None
    everything: bool = False
    all_projects: bool = False
    file: pathlib.Path | None = None
    directory: pathlib.Path | None = None

    def check(self) -> None:
        """:raises errors.InvalidInput: the options do not go together"""
        ways = [bool(self.backups), self.volume is not None, self.everything]
        if sum(ways) != 1:
            raise errors.InvalidInput(
                'Which backups? Expected one of: <backup>..., --volume <volume>, --all.'
            )
        if self.file and self.directory:
            raise errors.InvalidInput('Expected --file or --directory, not both.')
        if not self.directory and len(self.backups) != 1:
            raise errors.InvalidInput(
                'Several records do not go into one file.', 'Add: --directory <directory>'
            )


@dataclasses.dataclass
class Result:
    """What became of one backup; *result* is a word or two for the table."""

    backup: resources.Backup
    result: str = 'failed'
    file: pathlib.Path | None = None
    error: errors.PortError | None = None


@dataclasses.dataclass
class Plan:
    """The backups that were found, and what was asked for and was not."""

    results: list[Result]
    failures: list[errors.PortError]


def plan(cinder: Cinder, options: Options) -> Plan:
    """Find the backups; write nothing.

    :raises errors.PortError: none of them can be found
    """
    options.check()
    failures: list[errors.PortError] = []
    if options.backups:
        found = []
        names = list(dict.fromkeys(options.backups))
        for item in side_by_side.each(
            lambda name: cinder.find(name, all_projects=options.all_projects), names
        ):
            if isinstance(item, errors.PortError):
                failures.append(item)
            else:
                found.append(item)
        if len(names) == 1 and failures:
            raise failures[0]
        found = list({backup.id: backup for backup in found}.values())
        return Plan([Result(backup) for backup in found], failures)
    volume_id = None
    if options.volume is not None:
        volume_id = cinder.find_volume(options.volume).id
    listed = cinder.list(volume_id=volume_id, all_projects=options.all_projects)
    results = [Result(backup) for backup in listed]
    for result in results:
        if result.backup.status in _NOT_A_BACKUP:
            result.result = f'skipped: {result.backup.status}'
    if not results:
        where = f'of volume {volume_id}' if volume_id else 'in this project'
        raise errors.NotFound(
            f'There are no backups {where}.',
            None if options.all_projects else 'For those of other projects: --all-projects',
        )
    return Plan(results, failures)


def run(cinder: Cinder, work: Plan, options: Options) -> list[Result]:
    """Export the records of *work* and write them; return its results, filled in.

    :raises errors.NotPermitted: the caller may not export records
    :raises OSError: the directory cannot be made
    """
    if options.directory:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    todo = [result for result in work.results if not result.result.startswith('skipped')]

    def export(result: Result) -> None:
        path = options.file
        if options.directory:
            # The id of a backup that Cinder gave is no way out of the directory.
            path = options.directory / f'{result.backup.id}.json'
        if path is None:
            raise errors.InvalidInput('Nothing says where to write the record.')
        result.file = path
        result.result = write(path, cinder.export_record(result.backup.id))

    for result, outcome in zip(todo, side_by_side.each(export, todo), strict=True):
        if isinstance(outcome, errors.PortError):
            result.error = outcome
    return work.results


def write(path: pathlib.Path, backup: record.BackupRecord) -> str:
    """Write a record to a file; return ``written``, ``replaced`` or ``unchanged``.

    A nightly run meets its own files again: an older record of this backup is
    replaced, anything else is not.

    :raises errors.Conflict: the file is there and holds something else
    :raises errors.InvalidInput: the file cannot be written
    """
    data = record_file.write_record(backup).encode()
    try:
        there = _read_old(path)
        if there:
            old = _record_of(there, backup.id)
            if old is None:
                raise errors.Conflict(
                    f'{path} is there already, and is not a record of backup {backup.id}.',
                    'Choose another name, or remove the file.',
                )
            if old.says_the_same_as(backup):
                return 'unchanged'
        files.write_private(path, data)
    except OSError as error:
        raise errors.InvalidInput(f'{path}: {error.strerror or error}.') from error
    return 'replaced' if there else 'written'


def _read_old(path: pathlib.Path) -> bytes | None:
    # What is no file, /dev/stdout for one, has nothing that could be lost.
    if not path.exists() or not (path.is_file() or path.is_dir()):
        return None
    with path.open('rb') as file:
        return file.read(record_file.MAX_FILE_SIZE)


def _record_of(data: bytes, backup_id: str) -> record.BackupRecord | None:
    try:
        found = record_file.read_records(data, 'the file')
    except errors.InvalidRecord:
        return None
    return found[0] if [item.id for item in found] == [backup_id] else None
