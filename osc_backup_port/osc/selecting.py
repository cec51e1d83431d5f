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

if typing.TYPE_CHECKING:
    from osc_backup_port.operations import selection


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
    from osc_backup_port.operations import selection

    asked = selection.Selection(
        parsed_args.backups, parsed_args.volume, parsed_args.all, parsed_args.all_projects
    )
    asked.check()
    return asked


def choose(cinder: 'selection.Cinder', asked: 'selection.Selection') -> list[str]:
    """Return the ids of the backups that are asked for.

    What is being made, being deleted or broken is left out, unless it is named.

    :raises PortError: one that is named is not there, or there is none at all
    """
    from osc_backup_port import errors
    from osc_backup_port.operations import selection

    found = selection.select(cinder, asked)
    if found.failures:
        raise found.failures[0]
    chosen = [
        backup.id for backup in found.backups if asked.backups or selection.is_backup(backup)
    ]
    if not chosen:
        raise errors.NotFound(
            'None of the backups there is available.',
            'See how they are: openstack volume backup list',
        )
    return chosen
