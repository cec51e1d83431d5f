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

"""In and out: ``openstack volume backup archive create, import``."""

import argparse
import collections.abc
import contextlib
import io
import os
import typing

from osc_lib.command import command

from osc_backup_port import errors
from osc_backup_port.osc import (
    archive_place,
    base,
    ceph_options,
    cloud,
    encrypted,
    failures,
    importing,
    progress_bar,
    selecting,
    transfer_options,
)

if typing.TYPE_CHECKING:
    from osc_backup_port import progress
    from osc_backup_port.moving import create_archive

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]


class CreateBackupArchive(cloud.CloudCommand, base.ColumnsBesideData, command.Lister):
    """Put volume backups, with the chains they belong to, into an archive.

    Run again, it adds only what is new: nothing that is written is written
    again. What a run that was killed has left is used as far as it is whole. A
    backup that cannot be read is named, with those that build on it; all others
    are added, and the exit code is 1 then. Needs the admin role.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        archive_place.add_archive(parser, 'stdout')
        selecting.add_arguments(parser, 'add')
        parser.add_argument(
            '--single',
            action='store_true',
            help='Take each backup out of its chain: as a full backup by itself, without the '
            'backups before it',
        )
        parser.add_argument(
            '--compression',
            metavar='<level>',
            default='3',
            help='Level of zstd, 1 (fast) to 19 (small), or none (default: 3)',
        )
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='Print what would be added, with the bytes that would be read at most, and '
            'write nothing',
        )
        transfer_options.add_arguments(parser, requests=8)
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.moving import create_archive

        level = _level(parsed_args.compression)
        self.data_on_stdout = parsed_args.archive == archive_place.STREAM
        wanted = selecting.wanted(parsed_args)
        options = create_archive.Options(parsed_args.single, level)
        cinder = self.cinder()
        records, unfound = selecting.read_records(cinder, wanted, parsed_args.single)
        with (
            self.open_pool(parsed_args, next(iter(records.found.values()))) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
            _output_store(parsed_args) as store,
        ):
            planned = create_archive.plan(cinder, pool, store, records, options)
            _tell_of(planned, shown)
            if parsed_args.dry_run:
                create_archive.estimate(pool, planned)
            else:
                bounds = transfer_options.shared(parsed_args)
                create_archive.run(pool, store, planned, options, shown, bounds)
        failed: list[tuple[str | None, errors.PortError]]
        failed = [*((None, error) for error in unfound), *planned.findings()]
        if failed:
            total = len(unfound) + len(planned.failures) + len(planned.steps)
            self.fail_after_output(
                failures.some_failed(total, failed, 'added', parsed_args.dry_run)
            )
        return _created(planned.steps)


def _tell_of(planned: 'create_archive.Plan', shown: 'progress.Progress') -> None:
    """Print what the user should know before anything is read."""
    for image in planned.images:
        for name in image.chain.unknown:
            shown.say(
                f'Image {image.name}: snapshot {name} is of a backup that Cinder does not know '
                'any more; it is left out.'
            )
    for step in planned.steps:
        encrypted.tell(shown, step.record)


def _level(text: str) -> int | None:
    if text == 'none':
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 19:
        raise errors.InvalidInput(f'--compression is {text!r}, expected 1 to 19, or none.')
    return int(text)


@contextlib.contextmanager
def _output_store(parsed_args: argparse.Namespace) -> collections.abc.Iterator[typing.Any]:
    from osc_backup_port.archive import tar_stream

    if parsed_args.archive != archive_place.STREAM:
        yield archive_place.open_store(parsed_args.archive)
        return
    with io.FileIO(os.devnull, 'w') if parsed_args.dry_run else base.open_stdout() as file:
        output = tar_stream.Output(file)
        yield output
        output.close()


def _created(steps: collections.abc.Sequence[typing.Any]) -> Columns:
    headings = ('ID', 'Name', 'Volume ID', 'Kind', 'Result', 'Bytes read', 'Bytes written')
    return headings, [
        (
            step.record.id,
            step.record.display_name,
            step.record.volume_id,
            'full' if step.start is None else 'incremental',
            step.result,
            step.moved,
            step.written,
        )
        for step in steps
    ]


class ImportBackupArchive(cloud.CloudCommand, command.Lister):
    """Bring volume backups from an archive into this cloud.

    First the images with their snapshots, then the metadata of the volumes, then
    the records: nothing half-done is ever visible. Backups that the ones asked for
    descend from come with them. What is there already is left alone; a run that
    was killed is taken up where it stopped. A chain that is damaged, or in whose way
    something stands, is named and left out; the others are imported, and the exit
    code is 1 then. Needs the admin role.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        archive_place.add_archive(parser, 'stdin')
        parser.add_argument(
            'backups',
            metavar='<backup>',
            nargs='*',
            help='Backup(s) to import (name or ID; default: all)',
        )
        parser.add_argument(
            '--verify',
            action='store_true',
            help='Read back what was written and compare it with what came in; costs one read of '
            'all of that',
        )
        importing.add_arguments(
            parser,
            '. A stream is read to its end for that: to import it, it has to be sent once more',
        )
        transfer_options.add_arguments(parser, requests=8)
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        ceph_options.add_new_images(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        is_stream = parsed_args.archive == archive_place.STREAM
        if is_stream and parsed_args.backups:
            archive_place.open_store(parsed_args.archive)  # tells what to do instead
        if is_stream and not parsed_args.dry_run:
            return self._import_stream(parsed_args)
        return self._import_contents(parsed_args)

    def _import_contents(self, parsed_args: argparse.Namespace) -> Columns:
        """Import what was read of the archive as a whole before; or say what would be done."""
        from osc_backup_port.moving import import_archive

        cinder = self.cinder()
        contents = archive_place.read_catalog(parsed_args.archive)
        first = next(contents.backups(), None)
        if first is None:
            archive_place.tell_damage(self, contents)
            if contents.damage():
                return _imported([])
            name = archive_place.shown_name(parsed_args.archive)
            raise errors.NotFound(f'{name}: the archive holds no backup.')
        with (
            self.open_pool(parsed_args, first.record) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            options = importing.options(parsed_args, cinder, pool.name, shell=pool.commands)
            planned = import_archive.plan(cinder, pool, contents, parsed_args.backups, options)
            for note in planned.records.notes:
                shown.say(note)
            is_started = not planned.records.obstacles and not parsed_args.dry_run
            if is_started:
                store = archive_place.open_store(parsed_args.archive)
                bounds = transfer_options.shared(parsed_args)
                verify = parsed_args.verify
                import_archive.run(pool, store, planned, options, shown, bounds, verify)
        return self._tell(planned.steps, planned.findings(), parsed_args.dry_run, is_started)

    def _import_stream(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.moving import import_stream

        steps: list[typing.Any] = []
        found: list[errors.PortError] = []
        cinder = self.cinder()
        with (
            archive_place.input_stream() as source,
            self.open_pool(parsed_args) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            options = importing.options(parsed_args, cinder, pool.name, shell=pool.commands)
            try:
                bounds = transfer_options.shared(parsed_args)
                for item in import_stream.run(
                    cinder, pool, source, options, shown, bounds, parsed_args.verify
                ):
                    if isinstance(item, errors.PortError):
                        found.append(item)
                    else:
                        steps.append(item)
            except errors.InvalidInput as error:
                # What came before it is imported, and is told.
                found.append(error)
        return self._tell(steps, found)

    def _tell(
        self,
        steps: collections.abc.Sequence[typing.Any],
        findings: collections.abc.Sequence[errors.PortError],
        is_dry_run: bool = False,
        is_started: bool = True,
    ) -> Columns:
        """Return the rows; each error is told once, after them."""
        if findings:
            summary = failures.heading('imported', is_dry_run, is_started)
            self.fail_after_output(errors.SomeFailed(summary, findings))
        return _imported(steps, is_dry_run)


def _imported(steps: collections.abc.Sequence[typing.Any], is_dry_run: bool = False) -> Columns:
    """Return the rows; of a dry run with what would be read from the archive."""
    last = 'Bytes to read' if is_dry_run else 'Bytes written'
    headings = ('ID', 'Name', 'Volume ID', 'Size', 'Image', 'Record', last)
    return headings, [
        (
            step.backup.id,
            step.backup.record.display_name,
            step.backup.record.volume_id,
            step.backup.record.size,
            step.image_result,
            _record_result(step),
            step.bytes_to_read if is_dry_run else step.moved,
        )
        for step in steps
    ]


def _record_result(step: typing.Any) -> str:
    if step.metadata is not None:
        return str(step.metadata.result)
    # What is only a step on the way has no record to import.
    return 'not imported' if step.error else '-'
