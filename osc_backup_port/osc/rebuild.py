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

"""Records out of nothing: ``openstack volume backup metadata rebuild``."""

import argparse
import collections.abc
import pathlib
import typing

from osc_lib.command import command

from osc_backup_port import errors
from osc_backup_port.osc import ceph_options, cloud

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]

_HEADINGS = ('ID', 'Volume ID', 'Created At', 'Size', 'Parent ID', 'Result', 'File', 'Notes')


class RebuildBackupMetadata(cloud.CloudCommand, command.Lister):
    """Rebuild the records of volume backups from what lies in Ceph.

    For when the database of Cinder is lost and the records were not exported. Reads
    the names, snapshots and sizes of the images in the backup pool and the metadata of
    the volumes; the record of each backup goes into a file of its own, to be looked
    at and then imported with "metadata import". What cannot be known stays empty
    and is told under Notes: the name of a backup, the key of an encrypted one.
    Without --directory it only tells what it would write. Needs Ceph, and not Cinder.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--directory',
            metavar='<directory>',
            type=pathlib.Path,
            help='Directory for the records, one <backup ID>.json for each backup; it is made if '
            'it is not there. A file that is there is never replaced',
        )
        parser.add_argument(
            '--volume', metavar='<volume id>', help='Only the backups of this volume'
        )
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.doctor import rebuild_metadata

        # No Cinder: that may well be what is broken.
        with self.open_pool(parsed_args) as pool:
            results = rebuild_metadata.run(pool, parsed_args.volume, parsed_args.directory)
        failures = [result.error or str(result.reason) for result in results if result.is_failure]
        if failures:
            summary = f'{len(failures)} of {len(results)} records could not be rebuilt:'
            self.fail_after_output(errors.SomeFailed(summary, failures))
        return _HEADINGS, [_row(result) for result in results]


def _row(result: typing.Any) -> tuple[object, ...]:
    made = result.made
    if result.result == 'skipped':
        return made.backup_id, made.volume_id, None, None, None, 'skipped', None, made.reason
    found = made.record
    return (
        found.id,
        found.volume_id,
        found.created_at,
        found.size,
        found.parent_id,
        result.result,
        str(result.file) if result.file else None,
        '; '.join(made.notes),
    )
