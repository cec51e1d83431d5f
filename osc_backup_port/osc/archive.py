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
    steps,
    transfer_options,
)

if typing.TYPE_CHECKING:
    from osc_backup_port import progress
    from osc_backup_port.archive import store
    from osc_backup_port.moving import plan

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
        transfer_options.add_verify(parser, 'Not for a stream')
        transfer_options.add_arguments(parser, requests=8)
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.moving import archive_sink, cluster_source, copy

        level = _level(parsed_args.compression)
        self.data_on_stdout = parsed_args.archive == archive_place.STREAM
        _refuse_to_verify_stream(parsed_args)
        wanted = selecting.wanted(parsed_args)
        cinder = self.cinder()
        records, unfound = selecting.read_records(cinder, wanted, parsed_args.single)
        with (
            self.open_pool(parsed_args, next(iter(records.found.values()))) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
            _output_store(parsed_args) as store,
        ):
            source = cluster_source.Source(cinder, pool, records, parsed_args.single)
            sink = archive_sink.Sink(store, level)
            planned = copy.plan(source, sink)
            _tell_of(planned, shown)
            if parsed_args.dry_run:
                copy.estimate(planned)
            else:
                copy.run(planned, sink, transfer_options.job(parsed_args, shown))
        failed: list[tuple[str | None, errors.PortError]]
        failed = [*((None, error) for error in unfound), *planned.findings()]
        if failed:
            total = len(unfound) + len(planned.failures) + len(planned.steps)
            self.fail_after_output(
                failures.some_failed(total, failed, 'added', parsed_args.dry_run)
            )
        return _created(planned, parsed_args.dry_run)


def _refuse_to_verify_stream(parsed_args: argparse.Namespace) -> None:
    if parsed_args.verify and parsed_args.archive == archive_place.STREAM:
        raise errors.InvalidInput(
            'A stream cannot be read back while it is written: --verify is for a folder or a URL.',
            'Verify it where it arrives: openstack volume backup archive verify - < <file>',
        )


def _tell_of(planned: 'plan.Plan', shown: 'progress.Progress') -> None:
    """Print what the user should know before anything is read."""
    for chain in planned.chains:
        for name in chain.source.unknown:
            shown.say(
                f'Image {chain.name}: snapshot {name} is of a backup that Cinder does not know '
                'any more; it is left out.'
            )
    for step in planned.steps:
        if step.point.record is not None:
            encrypted.tell(shown, step.point.record)


def _level(text: str) -> int | None:
    if text == 'none':
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 19:
        raise errors.InvalidInput(f'--compression is {text!r}, expected 1 to 19, or none.')
    return int(text)


@contextlib.contextmanager
def _output_store(parsed_args: argparse.Namespace) -> 'collections.abc.Iterator[store.Store]':
    from osc_backup_port.archive import tar_stream

    if parsed_args.archive != archive_place.STREAM:
        yield archive_place.open_store(parsed_args.archive)
        return
    with io.FileIO(os.devnull, 'w') if parsed_args.dry_run else base.open_stdout() as file:
        output = tar_stream.Output(file)
        yield output
        output.close()


def _created(planned: 'plan.Plan', is_dry_run: bool) -> Columns:
    headings = ('ID', 'Name', 'Volume ID', 'Kind', 'Result', 'Bytes read', 'Bytes written')
    return headings, [
        (
            *steps.backup(step),
            'full' if step.start is None else 'incremental',
            steps.data(step, 'added'),
            step.estimate if is_dry_run else step.moved,
            step.written,
        )
        for step in planned.steps
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
        transfer_options.add_verify(parser)
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
        from osc_backup_port.moving import archive_source, cluster_sink, copy

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
            # A stream that was read for a dry run is no place to read from.
            is_stream = parsed_args.archive == archive_place.STREAM
            store = None if is_stream else archive_place.open_store(parsed_args.archive)
            source = archive_source.Source(store, contents, parsed_args.backups)
            sink = cluster_sink.Sink(pool, cinder, options)
            planned = copy.plan(source, sink)
            for note in planned.records.notes:
                shown.say(note)
            is_started = not planned.is_blocked and not parsed_args.dry_run
            if is_started:
                copy.run(planned, sink, transfer_options.job(parsed_args, shown))
            else:
                copy.estimate(planned)
        return self._tell(planned.steps, planned.errors(), parsed_args.dry_run, is_started)

    def _import_stream(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.moving import cluster_sink, copy, stream_source

        done: list[plan.Step] = []
        found: list[errors.PortError] = []
        told: set[str] = set()
        cinder = self.cinder()
        with (
            archive_place.input_stream() as file,
            self.open_pool(parsed_args) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            options = importing.options(parsed_args, cinder, pool.name, shell=pool.commands)
            sink = cluster_sink.Sink(pool, cinder, options)
            job = transfer_options.job(parsed_args, shown)
            try:
                for planned in copy.run_once(stream_source.Source(file), sink, job):
                    for note in planned.records.notes:
                        if note not in told:
                            told.add(note)
                            shown.say(note)
                    done += planned.steps
                    found += planned.errors()
            except errors.InvalidInput as error:
                # What came before it is imported, and is told.
                found.append(error)
        return self._tell(done, found)

    def _tell(
        self,
        done: collections.abc.Sequence['plan.Step'],
        findings: collections.abc.Sequence[errors.PortError],
        is_dry_run: bool = False,
        is_started: bool = True,
    ) -> Columns:
        """Return the rows; each error is told once, after them."""
        if findings:
            summary = failures.heading('imported', is_dry_run, is_started)
            self.fail_after_output(errors.SomeFailed(summary, findings))
        return _imported(done, is_dry_run)


def _imported(done: collections.abc.Sequence['plan.Step'], is_dry_run: bool = False) -> Columns:
    """Return the rows; of a dry run with what would be read from the archive."""
    last = 'Bytes to read' if is_dry_run else 'Bytes written'
    headings = ('ID', 'Name', 'Volume ID', 'Size', 'Image', 'Record', last)
    return headings, [
        (
            *steps.backup(step),
            step.point.record.size if step.point.record else None,
            steps.data(step, 'imported'),
            steps.record(step),
            step.estimate if is_dry_run else step.moved,
        )
        for step in done
    ]
