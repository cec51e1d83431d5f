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
    importing,
    progress_bar,
    selecting,
)

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]


class CreateBackupArchive(cloud.CloudCommand, base.ColumnsBesideData, command.Lister):
    """Put volume backups, with the chains they belong to, into an archive.

    Run again, it adds only what is new: nothing that is written is written
    again. What a run that was killed has left is used as far as it is whole.
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
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.operations import create_archive

        level = _level(parsed_args.compression)
        self.data_on_stdout = parsed_args.archive == archive_place.STREAM
        wanted = selecting.wanted(parsed_args)
        options = create_archive.Options(parsed_args.single, level)
        cinder = self.cinder()
        chosen = selecting.choose(cinder, wanted)
        with (
            self.open_pool(parsed_args, cinder.export_record(chosen[0])) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
            _output_store(parsed_args) as store,
        ):
            plans = create_archive.plan(cinder, pool, store, chosen, options)
            for image in plans:
                for name in image.chain.unknown:
                    shown.say(
                        f'Image {image.name}: snapshot {name} is of a backup that Cinder does '
                        'not know any more; it is left out.'
                    )
            if parsed_args.dry_run:
                create_archive.estimate(pool, plans)
            else:
                create_archive.run(pool, store, plans, options, shown)
        return _created(plans)


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


def _created(plans: collections.abc.Sequence[typing.Any]) -> Columns:
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
        for image in plans
        for step in image.steps
    ]


class ImportBackupArchive(cloud.CloudCommand, command.Lister):
    """Bring volume backups from an archive into this cloud.

    First the images with their snapshots, then the metadata of the volumes, then
    the records: nothing half-done is ever visible. Backups that the ones asked for
    descend from come with them. What is there already is left alone; a run that
    was killed is taken up where it stopped. Needs the admin role.
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
        importing.add_arguments(parser)
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        if parsed_args.archive == archive_place.STREAM:
            return self._import_stream(parsed_args)
        return self._import_store(parsed_args)

    def _import_store(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.archive import catalog
        from osc_backup_port.operations import import_archive

        store = archive_place.open_store(parsed_args.archive)
        contents = catalog.read(store)
        first = next(contents.backups(), None)
        if first is None:
            raise errors.NotFound(f'{store.name}: the archive holds no backup.')
        cinder = self.cinder()
        with (
            self.open_pool(parsed_args, first.record) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            options = importing.options(parsed_args, pool.name)
            planned = import_archive.plan(cinder, pool, contents, parsed_args.backups, options)
            findings = planned.findings()
            if not findings and not parsed_args.dry_run:
                import_archive.run(cinder, pool, store, planned, options, shown)
                findings = planned.findings()
        if findings:
            self.fail_after_output(_findings(findings))
        steps = [step for image in planned.images for step in image.steps]
        return _imported(steps, parsed_args.dry_run)

    def _import_stream(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.operations import import_stream

        if parsed_args.backups or parsed_args.dry_run:
            archive_place.open_store(archive_place.STREAM)
        steps: list[typing.Any] = []
        cinder = self.cinder()
        with (
            archive_place.input_stream() as source,
            self.open_pool(parsed_args) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            options = importing.options(parsed_args, pool.name)
            try:
                for step in import_stream.run(cinder, pool, source, options, shown):
                    steps.append(step)
            except errors.InvalidInput as error:
                # What came before it is imported, and is told.
                self.fail_after_output(error)
        found = [step.metadata.error for step in steps if step.metadata and step.metadata.error]
        if found:
            self.fail_after_output(_findings(found))
        return _imported(steps)


def _findings(found: collections.abc.Sequence[errors.PortError]) -> errors.PortError:
    """Return one error for all, each told once."""
    told = list(dict.fromkeys(str(error) for error in found))
    return errors.SomeFailed('Not all backups could be imported:', told)


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
            'failed' if step.error else step.image_result,
            step.metadata.result if step.metadata else '-',
            step.bytes_to_read if is_dry_run else step.moved,
        )
        for step in steps
    ]
