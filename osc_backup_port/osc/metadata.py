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

"""The records of backups: ``openstack volume backup metadata export, import, show``."""

import argparse
import collections.abc
import logging
import os
import pathlib
import sys
import typing

from osc_lib.cli import format_columns
from osc_lib.command import command

from osc_backup_port import errors
from osc_backup_port.osc import ceph_options, cloud, failures, importing, selecting

if typing.TYPE_CHECKING:
    from osc_backup_port import record

LOG = logging.getLogger(__name__)

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]

_HEADINGS = ('ID', 'Name', 'Volume ID', 'Size', 'Result', 'File')


class ExportBackupMetadata(cloud.CloudCommand, command.Lister):
    """Export the records of volume backups.

    Writes what Cinder knows about a backup, as JSON: backup_service and
    backup_url, the two strings that an import needs, and backup, the same decoded
    for reading. Works with every backup driver. The data of the backup is not
    part of it. Needs the admin role.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        selecting.add_arguments(parser, 'export')
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            '--file', metavar='<path>', help='File for the record of one backup (default: stdout)'
        )
        where.add_argument(
            '--directory',
            metavar='<directory>',
            help=(
                'Directory for the records, one <backup ID>.json for each backup; it is made if '
                'it is not there. An older record of the same backup is replaced'
            ),
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.records import export_records

        options = export_records.Options(
            selecting.wanted(parsed_args),
            file=pathlib.Path(parsed_args.file) if parsed_args.file else None,
            directory=pathlib.Path(parsed_args.directory) if parsed_args.directory else None,
        )
        options.check()
        cinder = self.cinder()
        plan = export_records.plan(cinder, options)
        self._record = None
        if not options.file and not options.directory:
            self._record = cinder.export_record(plan.results[0].backup.id)
            return _HEADINGS, ()
        results = export_records.run(cinder, plan, options)
        failed: list[tuple[str | None, errors.PortError]] = [
            (None, error) for error in plan.failures
        ]
        failed += [(result.backup.id, result.error) for result in results if result.error]
        if failed:
            total = len(results) + len(plan.failures)
            self.fail_after_output(failures.some_failed(total, failed, 'exported'))
        return _HEADINGS, [
            (
                result.backup.id,
                result.backup.name,
                result.backup.volume_id,
                result.backup.size,
                result.result,
                str(result.file) if result.file and not result.error else None,
            )
            for result in results
        ]

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: typing.Any, data: typing.Any
    ) -> int:
        if self._record is None:
            code: int = super().produce_output(parsed_args, column_names, data)
            return code
        from osc_backup_port.formats import record_file

        # In UTF-8 whatever the locale: it is a file that others read.
        sys.stdout.flush()
        sys.stdout.buffer.write(record_file.write_record(self._record).encode())
        sys.stdout.buffer.flush()
        return 0


class ImportBackupMetadata(cloud.CloudCommand, command.Lister):
    """Import the records of volume backups.

    Makes backups known to this cloud, in the project in use. Reads what "metadata export",
    "openstack volume backup record export" (in any format) or "cinder backup-export" wrote.
    All files are checked before anything is imported; parents go before their increments.
    What is there already is left alone, so that the command can be run again. Only the
    record is imported, not the data of the backup. Needs the admin role.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'files',
            metavar='<file>',
            nargs='+',
            help='File(s) with records; a directory for all .json files in it; - for stdin',
        )
        parser.add_argument(
            '--ceph-pool',
            metavar='<pool>',
            help=(
                'Pool that this cloud keeps its backups in, if it has another name than on the '
                'cloud of the record (default: backup_ceph_pool of the cloud in clouds.yaml, then '
                'the container of the record)'
            ),
        )
        waiting = parser.add_mutually_exclusive_group()
        waiting.add_argument(
            '--wait',
            action='store_true',
            default=True,
            help='Wait until each backup is available or in error (default)',
        )
        waiting.add_argument(
            '--no-wait',
            dest='wait',
            action='store_false',
            help='Do not wait for the imports that were asked for last; of many, 32 are asked for '
            'at a time',
        )
        importing.add_arguments(parser)
        importing.add_foreign_image(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.records import import_records, read_records

        records = read_records.read_files(parsed_args.files)
        pool = parsed_args.ceph_pool or self.cloud.get('backup_ceph_pool')
        cinder = self.cinder()
        options = importing.options(
            parsed_args,
            cinder,
            pool,
            parsed_args.wait,
            parsed_args.allow_foreign_image,
            shell=ceph_options.settings_of(self.cloud).commands(pool),
        )
        plan = import_records.plan(cinder, records, options)
        for note in plan.notes:
            LOG.warning('%s', note)
        if not plan.obstacles and not parsed_args.dry_run:
            import_records.run(plan, options)
        steps = plan.steps
        failed: list[tuple[str | None, errors.PortError]] = [
            (step.record.id, step.error) for step in steps if step.error
        ]
        if plan.obstacles:
            summary = failures.heading('imported', parsed_args.dry_run, is_started=False)
            self.fail_after_output(errors.SomeFailed(summary, plan.findings()))
        elif failed:
            self.fail_after_output(
                failures.some_failed(len(steps), failed, 'imported', parsed_args.dry_run)
            )
        return _HEADINGS, [
            (
                step.record.id,
                step.record.display_name,
                step.record.volume_id,
                step.record.size,
                step.result,
                step.file,
            )
            for step in steps
        ]


class ShowBackupMetadata(cloud.CloudCommand, command.ShowOne):
    """Show the fields in the record of a volume backup.

    A file is checked as for an import, without any cloud and without the admin role.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'source',
            metavar='<file or backup>',
            help='File with a record, or - for stdin; else a backup (name or ID)',
        )
        parser.add_argument(
            '--raw',
            action='store_true',
            help='Show the two strings that hold the record instead of its fields',
        )
        # What it asked for is what is shown now.
        parser.add_argument('--decode', action='store_true', help=argparse.SUPPRESS)
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[object, ...]]:
        found = self._find(parsed_args.source)
        for text in found.warnings:
            LOG.warning('Backup %s: %s.', found.id, text)
        if parsed_args.raw:
            return ('backup_service', 'backup_url'), (found.backup_service, found.backup_url)
        return tuple(found.fields), tuple(map(_column, found.fields.values()))

    def _find(self, source: str) -> 'record.BackupRecord':
        from osc_backup_port.records import read_records

        if source == read_records.STDIN or os.path.exists(source):
            records = read_records.read_file(source)
            if len(records) > 1:
                names = ', '.join(item.id for item in records)
                raise errors.InvalidInput(
                    f'{source} holds {len(records)} records, expected one: {names}.',
                    'Split the file.',
                )
            return records[0]
        if os.path.dirname(source):
            self.app.LOG.warning('%s: no such file; looking for a backup of that name.', source)
        cinder = self.cinder()
        try:
            backup = cinder.find(source)
        except errors.NotFound as error:
            if os.path.dirname(source):
                error.retell(f'{source}: No such file, and no backup has that name.', error.hint)
            raise
        return cinder.export_record(backup.id)


def _column(value: object) -> object:
    return format_columns.DictColumn(value) if isinstance(value, dict) else value
