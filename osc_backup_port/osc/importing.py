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

"""How records are imported: the arguments of every command that does."""

import argparse
import logging
import pathlib
import typing

if typing.TYPE_CHECKING:
    from osc_backup_port.ceph import commands
    from osc_backup_port.cinder import backups
    from osc_backup_port.records import import_records, rewriting


LOG = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser, dry_run_note: str = '') -> None:
    """Add ``--timeout``, ``--replace-failed``, ``--dry-run`` and whose they are to be.

    :param dry_run_note: what else is to be said of the last one
    """
    parser.add_argument(
        '--timeout',
        metavar='<seconds>',
        type=_seconds,
        default=300,
        help='How long to wait for the import of the records (default: %(default)s)',
    )
    parser.add_argument(
        '--replace-failed',
        action='store_true',
        help='Delete the record that an earlier import left in error, and import anew. Only a '
        'record whose deletion cannot touch any data is deleted',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help=f'Say what would be done and what stands in the way, and change nothing'
        f'{dry_run_note}',
    )
    _add_placement(parser)
    add_maps(parser)


def add_foreign_image(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-foreign-image``."""
    parser.add_argument(
        '--allow-foreign-image',
        action='store_true',
        help='Import a record also if it names an image of another volume than its own (default: '
        'refuse, because a restore of the backup would give away what is in that image, and a '
        'deletion could delete it)',
    )


def options(
    parsed_args: argparse.Namespace,
    cinder: 'backups.BackupService',
    pool: str | None,
    wait: bool = True,
    allow_foreign_image: bool = False,
    source: 'backups.BackupService | None' = None,
    shell: 'commands.Commands | None' = None,
) -> 'import_records.Options':
    """Return how to import.

    :param cinder: of the cloud that the backups go to
    :param pool: what the pool of the backups is called there
    :param source: of the cloud that they come from, where that is at hand
    :param shell: commands of the Ceph cluster that they go to
    :raises errors.NotFound: the volume that they are to be of is not there
    """
    from osc_backup_port.ceph import commands
    from osc_backup_port.records import import_records, map_file, placement

    volume = None
    if parsed_args.for_volume:
        volume = cinder.get_volume(cinder.find_volume(parsed_args.for_volume).id)
    return import_records.Options(
        wait=wait,
        timeout=parsed_args.timeout,
        replace_failed=parsed_args.replace_failed,
        shell=shell or commands.Commands(pool=pool),
        changes=changes(
            parsed_args,
            pool,
            parsed_args.name_prefix,
            volume.id if volume else None,
            parsed_args.wide_characters,
        ),
        owner=placement.Placement(
            volume.project_id if volume else parsed_args.project,
            map_file.read(parsed_args.project_map, '--project-map'),
            parsed_args.keep_projects,
            parsed_args.project_domain,
            _project_names(source) if source and parsed_args.project_map else {},
        ),
        allow_foreign_image=allow_foreign_image,
    )


def _project_names(cinder: 'backups.BackupService') -> dict[str, str]:
    from osc_backup_port import errors

    try:
        return cinder.project_names()
    except errors.PortError as error:
        # The file may name all of them by their IDs.
        LOG.warning('The names of the projects are not known. %s', error.in_one_line())
        return {}


def add_maps(parser: argparse.ArgumentParser) -> None:
    """Add ``--key-map`` and ``--volume-type-map``, for encrypted volumes."""
    for option, what in (('key', 'encryption key'), ('volume-type', 'volume type')):
        parser.add_argument(
            f'--{option}-map',
            metavar='<file>',
            type=pathlib.Path,
            help=f'YAML or JSON file that names, for the ID of each {what} of the cloud that '
            'they come from, the ID that it has where they go to; what it takes to restore '
            'encrypted volumes',
        )


def changes(
    parsed_args: argparse.Namespace,
    pool: str | None = None,
    name_prefix: str = '',
    volume_id: str | None = None,
    wide_characters: str = 'refuse',
) -> 'rewriting.Rewriting':
    """Return what is changed on the way in."""
    from osc_backup_port.records import map_file, rewriting

    return rewriting.Rewriting(
        pool,
        name_prefix,
        volume_id,
        map_file.read(parsed_args.key_map, '--key-map'),
        map_file.read(parsed_args.volume_type_map, '--volume-type-map'),
        wide_characters,
    )


def _add_placement(parser: argparse.ArgumentParser) -> None:
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        '--project',
        metavar='<project>',
        help='Project that the backups are to belong to (name or ID; default: the project in '
        'use). You need the admin role in it',
    )
    whose.add_argument(
        '--project-map',
        metavar='<file>',
        type=pathlib.Path,
        help='YAML or JSON file that names, for the ID of each project that the records have '
        '(with migrate also: for its name), the project that the backups are to belong to '
        '(name or ID)',
    )
    whose.add_argument(
        '--keep-projects',
        action='store_true',
        help='Let each backup belong to the project with the ID that its record has: for a '
        'cloud that has kept its Keystone',
    )
    whose.add_argument(
        '--for-volume',
        metavar='<volume>',
        help='Volume, in the cloud that they go to, whose backups they are to be (name or ID): '
        'an empty one, which the newest of them is then restored into. What else it takes to '
        'continue the chain: "volume backup continue --help"',
    )
    parser.add_argument(
        '--project-domain',
        metavar='<project-domain>',
        help='Domain that the projects belong to (name or ID), in case several have the same name',
    )
    parser.add_argument(
        '--name-prefix',
        metavar='<text>',
        default='',
        help='Text that the names of the imported backups begin with',
    )
    parser.add_argument(
        '--wide-characters',
        choices=('refuse', 'replace', 'keep'),
        default='refuse',
        help='What to do with characters above U+FFFF (emoji and others) in names, descriptions '
        'and properties, which a MariaDB or MySQL of Cinder with the usual character set cannot '
        'hold, so that the backup would stay "creating" for good. refuse: import nothing; '
        'replace: write ? instead; keep: the database of that cloud holds them (default: '
        '%(default)s)',
    )


def _seconds(text: str) -> float:
    value = float(text)
    # Neither the past nor "nan", which is never over.
    if not 0 <= value < float('inf'):
        raise ValueError(text)
    return value
