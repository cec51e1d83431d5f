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

"""What is in an archive: ``openstack volume backup archive list, show, verify, extract``."""

import argparse
import collections
import collections.abc
import os
import pathlib
import typing

from osc_lib.command import command

from osc_backup_port import errors, units
from osc_backup_port.osc import (
    archive_place,
    base,
    ceph_options,
    cloud,
    progress_bar,
    terminal,
    transfer_options,
)

if typing.TYPE_CHECKING:
    from osc_backup_port import progress
    from osc_backup_port.archive import catalog
    from osc_backup_port.moving import verify_archive

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]


class ListBackupArchive(cloud.CloudCommand, command.Lister):
    """List the volume backups in an archive.

    What is damaged is named, and the exit code is 1 then.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        archive_place.add_archive(parser, 'stdin')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        contents = archive_place.read_catalog(parsed_args.archive)
        archive_place.tell_damage(self, contents)
        headings = ('ID', 'Name', 'Volume ID', 'Size', 'Created At', 'Kind', 'Bytes stored')
        return headings, [
            (
                backup.id,
                backup.record.display_name,
                backup.record.volume_id,
                backup.record.size,
                backup.record.created_at,
                'full' if backup.increment.from_snap is None else 'incremental',
                backup.increment.stored_size,
            )
            for backup in contents.backups()
        ]


class ShowBackupArchive(cloud.CloudCommand, command.Lister):
    """Show the chains of volume backups in an archive.

    As a tree; with -f json, yaml, value or csv as rows. What is damaged is named, and
    the exit code is 1 then.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        archive_place.add_archive(parser, 'stdin')
        parser.add_argument(
            '--long', action='store_true', help='Show snapshots, segments and volumes too'
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        self._contents = archive_place.read_catalog(parsed_args.archive)
        archive_place.tell_damage(self, self._contents)
        short = ('Image', 'Number', 'ID', 'Name', 'Since', 'Size', 'Bytes stored')
        more = ('Volume ID', 'Snapshot', 'Segments', 'Archived At') if parsed_args.long else ()
        headings: tuple[str, ...] = (*short, *more)
        return headings, [
            _shown_backup(backup, parsed_args.long) for backup in self._contents.backups()
        ]

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        if parsed_args.formatter != 'table':
            return int(super().produce_output(parsed_args, column_names, data))
        for line in _tree(self._contents, parsed_args.long):
            terminal.write_line(self.app.stdout, line)
        return 0


def _shown_backup(backup: 'catalog.Backup', long: bool) -> tuple[object, ...]:
    increment = backup.increment
    short = (
        backup.image,
        increment.number,
        backup.id,
        backup.record.display_name,
        increment.from_snap,
        increment.size,
        increment.stored_size,
    )
    if not long:
        return short
    return (
        *short,
        backup.record.volume_id,
        increment.to_snap,
        len(increment.segments),
        increment.created_at,
    )


def _tree(contents: 'catalog.Catalog', long: bool) -> collections.abc.Iterator[str]:
    archive = contents.archive
    count = sum(1 for _backup in contents.backups())
    noun = 'backup' if count == 1 else 'backups'
    yield f'Archive {archive.id}, begun {archive.created_at}: {count} {noun}'
    for image in contents.images:
        yield image.name
        numbers = {backup.increment.to_snap: backup.increment.number for backup in image.backups}
        for backup in image.backups:
            branch = '└─' if backup is image.backups[-1] and not image.unfinished else '├─'
            yield f' {branch} {_branch(backup, numbers)}'
            if long:
                bar = ' ' if branch == '└─' else '│'
                yield f' {bar}     volume {backup.record.volume_id}'
                yield f' {bar}     snapshot {backup.increment.to_snap}'
        for damage in image.damaged:
            yield f' !! {damage.backup_id}: damaged, or builds on what is'
        for damage in image.unfinished:
            yield f' └─ {damage.folder}: not finished; create the archive again to go on'
    for damage in contents.lost:
        yield f'{damage.image or "The rest"}: cannot be used'


def _branch(backup: 'catalog.Backup', numbers: collections.abc.Mapping[str, int]) -> str:
    increment = backup.increment
    since = 'full' if increment.from_snap is None else f'since {numbers[increment.from_snap]}'
    name = f' "{backup.record.display_name}"' if backup.record.display_name else ''
    return (
        f'{increment.number}  {backup.id}{name}  {backup.record.created_at}  '
        f'{since}, {units.human_size(increment.size)}, '
        f'{units.human_size(increment.stored_size)} stored'
    )


class VerifyBackupArchive(cloud.CloudCommand, command.Lister):
    """Find out whether an archive is whole.

    Reads every file, checks its sha256, expands and decodes it, and sees that each
    increment starts where an earlier one ends. Tells of what is damaged, not finished or
    missing as far as that can be seen, and of files that do not belong there. The last
    lines say how many backups are good and what is wrong; the exit code is 0 only if all
    is well.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        archive_place.add_archive(parser, 'stdin')
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            '--quick',
            action='store_true',
            help='Only see that every file is there and has its size; read no data. Not for '
            'a stream',
        )
        how.add_argument(
            '--against-cluster',
            action='store_true',
            help='Compare the data with what is in the pool of this cloud, too. A backup that '
            'is not there is no error. Not for a stream',
        )
        parser.add_argument(
            '--expect',
            metavar='<file or backup>',
            action='append',
            default=[],
            help='Miss this backup if it is not in the archive: a file with records, or a '
            'directory of such files; or a backup (ID, or name, for which the cloud is asked). '
            'Repeat the option for several',
        )
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        expected = self._expected(parsed_args.expect)
        verdicts = []
        told: list[errors.PortError] = []
        with progress_bar.shown(not parsed_args.no_progress) as shown:
            try:
                for verdict in self._verdicts(parsed_args, shown, expected):
                    verdicts.append(verdict)
            except errors.InvalidInput as error:
                if not verdicts:
                    raise
                told.append(error)
            told = [*(verdict.problem for verdict in verdicts if verdict.problem), *told]
            if not told:
                shown.say(f'All is well: {_counted(verdicts)}.')
        if told:
            summary = f'Not all is well with the archive: {_counted(verdicts)}.'
            self.fail_after_output(errors.SomeFailed(summary, told))
        return ('ID', 'Image', 'Result'), [
            (verdict.backup_id, verdict.image, verdict.result) for verdict in verdicts
        ]

    def _expected(self, places: collections.abc.Sequence[str]) -> set[str]:
        """Return the ids of the backups that have to be there."""
        from osc_backup_port import record_rules
        from osc_backup_port.records import read_records

        ids: set[str] = set()
        for place in places:
            if record_rules.is_uuid(place):
                ids.add(place)
            elif os.path.exists(place) or '/' in place:
                ids.update(item.id for _file, item in read_records.read_files([place]))
            else:
                ids.add(self.cinder().find(place).id)
        return ids

    def _verdicts(
        self, parsed_args: argparse.Namespace, shown: 'progress.Progress', expected: set[str]
    ) -> 'collections.abc.Iterator[verify_archive.Verdict]':
        from osc_backup_port.archive import catalog
        from osc_backup_port.moving import verify_archive

        if parsed_args.archive == archive_place.STREAM:
            if parsed_args.quick or parsed_args.against_cluster:
                archive_place.open_store(parsed_args.archive)  # tells what to do instead
            with archive_place.input_stream() as source:
                yield from verify_archive.run_stream(source, shown, expected)
            return
        store = archive_place.open_store(parsed_args.archive)
        first = None
        if parsed_args.against_cluster:
            first = next(catalog.read(store).backups(), None)
        if first is None:
            quick = parsed_args.quick
            yield from verify_archive.run(store, shown, quick, expected=expected)
            return
        with self.open_pool(parsed_args, first.record) as pool:
            yield from verify_archive.run(store, shown, False, pool, expected)


def _counted(verdicts: 'collections.abc.Iterable[verify_archive.Verdict]') -> str:
    """Return how many backups, and other things, have which result."""
    counts = collections.Counter(verdict.result for verdict in verdicts)
    return ', '.join(f'{count} {result}' for result, count in counts.items()) or 'nothing is good'


class ExtractBackupArchive(cloud.CloudCommand, command.ShowOne):
    """Write the data of one volume backup in an archive to a file.

    Neither Ceph nor a cloud is needed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        archive_place.add_archive(parser, None)
        parser.add_argument('backup', metavar='<backup>', help='Backup to extract (name or ID)')
        parser.add_argument(
            '--file',
            metavar='<path>',
            type=pathlib.Path,
            required=True,
            help='File to write; must not exist',
        )
        base.add_image_format(parser)
        transfer_options.add_verify(parser)
        transfer_options.add_rate(parser)
        progress_bar.add_argument(parser)
        return parser

    def take_action(
        self, parsed_args: argparse.Namespace
    ) -> tuple[tuple[str, ...], tuple[object, ...]]:
        from osc_backup_port.archive import catalog
        from osc_backup_port.formats import image_formats, stream
        from osc_backup_port.moving import copy, file_sink, flatten, image_info

        base.refuse_to_overwrite(parsed_args.file)
        base.check_folder(parsed_args.file)
        image_format = image_formats.get(parsed_args.image_format)
        store = archive_place.open_store(parsed_args.archive)
        contents = catalog.read(store)
        backup = contents.find(parsed_args.backup)
        # Where any order will do, no second file is needed.
        folder = None if image_format.name == 'raw' else parsed_args.file.absolute().parent
        with (
            progress_bar.shown(not parsed_args.no_progress) as shown,
            image_info.described_file(parsed_args.file) as output,
        ):
            writer = stream.Writer(output.file, checksum=False, name=str(parsed_args.file))
            source = flatten.Source(store, contents, backup, folder)
            sink = file_sink.Sink(writer, image_format)
            planned = copy.plan(source, sink)
            copy.run(planned, sink, transfer_options.job(parsed_args, shown))
            for error in planned.errors():
                raise error
            size = backup.increment.size
            output.describe(
                image_info.ImageInfo(image_format.name, backup.id, size, writer.position, None)
            )
        return ('backup', 'file', 'format', 'size'), (
            backup.id,
            str(parsed_args.file),
            image_format.name,
            size,
        )
