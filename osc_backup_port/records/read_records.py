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

"""Read records from the files that a user names."""

import collections.abc
import logging
import pathlib

from osc_backup_port import errors, input_file, record
from osc_backup_port.formats import record_file

LOG = logging.getLogger(__name__)

STDIN = input_file.STDIN


def read_file(path: str) -> list[record.BackupRecord]:
    """Return the records in the file *path*, or in stdin for ``-``.

    :raises errors.InvalidRecord: there is none, or one is not valid
    :raises errors.InvalidInput: the file cannot be read
    """
    try:
        data = input_file.read(path, record_file.MAX_FILE_SIZE + 1)
    except FileNotFoundError as error:
        raise errors.InvalidInput(f'{path}: {error.strerror}.') from error
    name = 'stdin' if path == STDIN else path
    records = record_file.read_records(data, name)
    LOG.debug('%s: %d bytes, %d records.', name, len(data), len(records))
    return records


def read_files(
    paths: collections.abc.Sequence[str],
) -> list[tuple[str, record.BackupRecord]]:
    """Return each record with the name of its file, each backup once.

    A directory stands for the ``*.json`` files in it.

    :raises errors.InvalidInput: some cannot be read, or are not valid, or two
        tell different things about one backup; all of it is told at once
    """
    found: dict[str, tuple[str, record.BackupRecord]] = {}
    failures: list[errors.PortError] = []
    for path in paths:
        try:
            for name in _expand(path):
                _add(found, name, read_file(name), failures)
        except errors.InvalidInput as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise errors.InvalidInput.of_several(failures)
    return list(found.values())


def _expand(path: str) -> list[str]:
    if path == STDIN or not pathlib.Path(path).is_dir():
        return [path]
    names = sorted(str(name) for name in pathlib.Path(path).glob('*.json'))
    if not names:
        raise errors.InvalidInput(
            f'{path}: there are no *.json files in this directory.', 'Name the files themselves.'
        )
    return names


def _add(
    found: dict[str, tuple[str, record.BackupRecord]],
    path: str,
    records: collections.abc.Iterable[record.BackupRecord],
    failures: list[errors.PortError],
) -> None:
    for item in records:
        other_path, other = found.setdefault(item.id, (path, item))
        if not other.says_the_same_as(item):
            failures.append(
                errors.InvalidInput(
                    f'Backup {item.id}: {other_path} and {path} have different records of it.',
                    'Give the newer one only.',
                )
            )
