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

import dataclasses
import logging
import pathlib
import typing

from osc_backup_port import errors, files, record
from osc_backup_port.cinder import resources
from osc_backup_port.formats import record_file
from osc_backup_port.records import selection, side_by_side

LOG = logging.getLogger(__name__)


class Cinder(selection.Cinder, typing.Protocol):
    """What this operation needs of the Block Storage service."""

    def export_record(self, backup_id: str) -> record.BackupRecord: ...


@dataclasses.dataclass(frozen=True)
class Options:
    """What to export, and where to.

    Neither *file* nor *directory*: the caller writes the one record itself.
    """

    wanted: selection.Selection
    file: pathlib.Path | None = None
    directory: pathlib.Path | None = None

    def check(self) -> None:
        """:raises errors.InvalidInput: the options do not go together"""
        self.wanted.check()
        if self.file and self.directory:
            raise errors.InvalidInput('Expected --file or --directory, not both.')
        if not self.directory and len(self.wanted.backups) != 1:
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
    found = selection.select(cinder, options.wanted)
    results = [Result(backup) for backup in found.backups]
    if not options.wanted.backups:
        for result in results:
            if not selection.is_backup(result.backup):
                result.result = f'skipped: {result.backup.status}'
                LOG.info('Record of backup %s: %s.', result.backup.id, result.result)
    return Plan(results, found.failures)


def run(cinder: Cinder, work: Plan, options: Options) -> list[Result]:
    """Export the records of *work* and write them; return its results, filled in.

    :raises errors.NotPermitted: the caller may not export records
    :raises OSError: the directory cannot be made
    """
    if options.directory:
        files.make_folder(options.directory)
    todo = [result for result in work.results if not result.result.startswith('skipped')]

    def export(result: Result) -> None:
        path = options.file
        if options.directory:
            # The id of a backup that Cinder gave is no way out of the directory.
            path = options.directory / f'{result.backup.id}.json'
        if path is None:
            raise errors.InvalidInput('Nothing says where to write the record.')
        result.file = path
        exported = cinder.export_record(result.backup.id)
        result.result = write(path, exported, is_named=options.directory is None)
        LOG.info('Record of backup %s: %s: %s.', result.backup.id, path, result.result)

    for result, outcome in zip(todo, side_by_side.each(export, todo), strict=True):
        if isinstance(outcome, errors.PortError):
            result.error = outcome
            LOG.info('Record of backup %s: failed: %s', result.backup.id, outcome.problem)
    return work.results


def write(path: pathlib.Path, backup: record.BackupRecord, is_named: bool = True) -> str:
    """Write a record to a file; return ``written``, ``replaced`` or ``unchanged``.

    A nightly run meets its own files again: an older record of this backup is
    replaced, anything else is not.

    :param is_named: the user has named the file, which may be a pipe then
    :raises errors.Conflict: the file is there and holds something else
    :raises errors.InvalidInput: the file cannot be written
    """
    data = record_file.write_record(backup).encode()
    try:
        if is_named and files.is_special(path):
            # /dev/stdout for one has nothing that could be lost.
            files.write_output(path, data)
            return 'written'
        there = files.read_file(path, record_file.MAX_FILE_SIZE)
        if there is not None:
            old = _record_of(there, backup.id)
            if old is None:
                raise errors.Conflict(
                    f'{path} is there already, and is not a record of backup {backup.id}.',
                    'Choose another name, or remove the file.',
                )
            if old.says_the_same_as(backup):
                return 'unchanged'
        files.write_file(path, data, replace=there is not None)
    except OSError as error:
        raise errors.InvalidInput(f'{path}: {error.strerror or error}.') from error
    return 'written' if there is None else 'replaced'


def _record_of(data: bytes, backup_id: str) -> record.BackupRecord | None:
    try:
        found = record_file.read_own(data, 'the file')
    except errors.InvalidRecord:
        return None
    return found if found.id == backup_id else None
