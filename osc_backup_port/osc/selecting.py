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

"""Which backups: the arguments of every command that takes several."""

import argparse
import typing

from osc_backup_port import errors
from osc_backup_port.osc import failures

if typing.TYPE_CHECKING:
    from osc_backup_port.records import selection, wanted_records

    class Cinder(selection.Cinder, wanted_records.Cinder, typing.Protocol):
        """What this needs of the Block Storage service."""


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add ``<backup>...``, ``--volume``, ``--all`` and ``--all-projects``."""
    parser.add_argument(
        'backups', metavar='<backup>', nargs='*', help=f'Backup(s) to {verb} (name or ID)'
    )
    parser.add_argument(
        '--volume',
        metavar='<volume>',
        help=f'{verb.capitalize()} all backups of this volume (name or ID; ID if it was deleted)',
    )
    parser.add_argument(
        '--all', action='store_true', help=f'{verb.capitalize()} all backups of the project'
    )
    parser.add_argument(
        '--all-projects',
        action='store_true',
        help='With --all, --volume or a name: look in all projects',
    )


def wanted(parsed_args: argparse.Namespace) -> 'selection.Selection':
    """Return what the user asks for.

    :raises InvalidInput: the options do not go together
    """
    from osc_backup_port.records import selection

    asked = selection.Selection(
        parsed_args.backups, parsed_args.volume, parsed_args.all, parsed_args.all_projects
    )
    asked.check()
    return asked


def read_records(
    cinder: 'Cinder', asked: 'selection.Selection', single: bool
) -> tuple['wanted_records.Records', list[errors.PortError]]:
    """Return the records of the backups that are asked for, and what was not found.

    What is being made, being deleted or broken is left out, unless it is named.

    :param single: without the records of those that they descend from
    :raises PortError: none of them can be had
    """
    from osc_backup_port.records import selection, wanted_records

    found = selection.select(cinder, asked)
    chosen = [
        backup.id for backup in found.backups if asked.backups or selection.is_backup(backup)
    ]
    if not chosen and not found.failures:
        raise errors.NotFound(
            'None of the backups there is available.',
            'See how they are: openstack volume backup list',
        )
    records = wanted_records.read(cinder, chosen, single)
    if not records.found:
        failed: list[tuple[str | None, errors.PortError]]
        failed = [*((None, error) for error in found.failures), *records.failures.items()]
        raise (
            failed[0][1] if len(failed) == 1 else failures.some_failed(len(failed), failed, 'read')
        )
    return records, found.failures
