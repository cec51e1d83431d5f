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

"""The images of backups: ``openstack volume backup export-image, import-image``."""

import argparse
import collections.abc
import contextlib
import io
import os
import pathlib
import time
import typing

from osc_lib.command import command

from osc_backup_port import errors
from osc_backup_port.osc import (
    base,
    ceph_options,
    cloud,
    encrypted,
    importing,
    progress_bar,
    steps,
    transfer_options,
)

if typing.TYPE_CHECKING:
    from osc_backup_port import progress, record
    from osc_backup_port.ceph import pool as ceph_pool
    from osc_backup_port.cinder import backups
    from osc_backup_port.formats import image_formats, stream
    from osc_backup_port.moving import endpoints, file_source, image_info, plan

Columns = tuple[tuple[str, ...], tuple[object, ...]]


class _ImageCommand(cloud.CloudCommand, command.ShowOne):
    """What the two directions share."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        progress_bar.add_argument(parser)
        hashed = parser.add_mutually_exclusive_group()
        hashed.add_argument(
            '--checksum',
            dest='checksum',
            action='store_const',
            const=True,
            help='Compute the sha256 of the stream (default: yes, but not of a raw image, whose '
            'holes have to be hashed too)',
        )
        hashed.add_argument(
            '--no-checksum',
            dest='checksum',
            action='store_const',
            const=False,
            help='Do not compute the sha256 of the stream',
        )
        transfer_options.add_arguments(parser)
        ceph_options.add_arguments(parser)
        return parser


def _parent(
    cinder: 'backups.BackupService', backup: 'record.BackupRecord'
) -> 'record.BackupRecord | None':
    """Return the record of the parent, needed where *backup* names no image."""
    if backup.base_image or not backup.parent_id:
        return None
    with contextlib.suppress(errors.PortError):
        return cinder.export_record(backup.parent_id)
    return None


class ExportBackupImage(base.ColumnsBesideData, _ImageCommand):
    """Export the image of a volume backup from Ceph.

    The bytes are those of this very backup, also where it is one of a chain of
    incremental backups. The metadata of the volume (its name, properties and
    bootable flag) goes into the file backup.<backup id>.meta beside the image.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('backup', metavar='<backup>', help='Backup to export (name or ID)')
        parser.add_argument(
            '--file',
            metavar='<path>',
            type=pathlib.Path,
            help='File to write; must not exist (default: stdout, if that is no terminal)',
        )
        base.add_image_format(parser)
        parser.add_argument(
            '--from-backup',
            metavar='<backup>',
            help='With rbd-diff: export only what changed since this older backup of the chain '
            '(name or ID)',
        )
        parser.add_argument(
            '--volume-metadata',
            metavar='<path>',
            type=pathlib.Path,
            help='File for the metadata of the volume (default: backup.<backup id>.meta beside '
            '--file)',
        )
        transfer_options.add_verify(parser, 'Not for a pipe')
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='Say where the backup lies and how many bytes would be read at most, and write '
            'nothing',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.formats import image_formats, stream
        from osc_backup_port.moving import copy, file_sink, image_info

        self.data_on_stdout = parsed_args.file is None
        started = time.monotonic()
        image_format = image_formats.get(parsed_args.image_format)
        _check_export_options(parsed_args, image_format)
        cinder = self.cinder()
        backup = cinder.export_record(cinder.find(parsed_args.backup).id)
        base_id = cinder.find(parsed_args.from_backup).id if parsed_args.from_backup else None
        with (
            self.open_pool(parsed_args, backup) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
            _output(parsed_args) as output,
        ):
            encrypted.tell(shown, backup)
            hashed = parsed_args.checksum
            if hashed is None:
                hashed = image_format.name != 'raw'
            writer = stream.Writer(output.file, hashed, str(parsed_args.file or 'stdout'))
            source = _exported(pool, backup, _parent(cinder, backup), image_format, base_id)
            sink = file_sink.Sink(writer, image_format, base_id)
            planned = copy.plan(source, sink)
            chain = _only_chain(planned)
            if parsed_args.dry_run:
                copy.estimate(planned)
            else:
                copy.run(planned, sink, transfer_options.job(parsed_args, shown, is_alone=True))
            for error in planned.errors():
                raise error
            if parsed_args.dry_run:
                return _planned_export(chain, image_format)
            step = chain.steps[-1]
            content = chain.source.volume_metadata(step.point)
            metadata = _write_volume_metadata(parsed_args, backup.id, content, pool.name)
            told = step.point.size, writer.position, writer.sha256
            output.describe(image_info.ImageInfo(image_format.name, backup.id, *told))
        return _export_columns(chain, writer, image_format, metadata, time.monotonic() - started)


def _only_chain(planned: 'plan.Plan') -> 'plan.ChainPlan':
    """Return the chain of the one backup that is moved.

    :raises PortError: nothing is known of it
    """
    if not planned.chains:
        raise planned.errors()[0]
    return planned.chains[0]


def _planned_export(chain: 'plan.ChainPlan', image_format: 'image_formats.ImageFormat') -> Columns:
    point = chain.steps[-1].point
    return _columns(
        backup=point.id,
        image=chain.name,
        snapshot=None if point.is_head else point.name,
        format=image_format.name,
        size=point.size,
        bytes_to_read=sum(step.estimate for step in chain.steps),
    )


def _export_columns(
    chain: 'plan.ChainPlan',
    writer: 'stream.Writer',
    image_format: 'image_formats.ImageFormat',
    metadata: str,
    seconds: float,
) -> Columns:
    point = chain.steps[-1].point
    return _columns(
        backup=point.id,
        image=chain.name,
        snapshot=None if point.is_head else point.name,
        format=image_format.name,
        file=writer.name,
        size=point.size,
        stream_size=writer.position,
        bytes_moved=sum(one.moved for one in chain.steps),
        bytes_skipped=sum(one.skipped for one in chain.steps),
        sha256=writer.sha256,
        volume_metadata=metadata,
        seconds=round(seconds, 2),
    )


def _exported(
    pool: 'ceph_pool.Pool',
    backup: 'record.BackupRecord',
    parent: 'record.BackupRecord | None',
    image_format: 'image_formats.ImageFormat',
    base_id: str | None,
) -> 'endpoints.Source':
    from osc_backup_port.formats import image_formats
    from osc_backup_port.moving import cluster_source

    with_chain = image_format.holds is image_formats.Holds.CHAIN
    return cluster_source.OneBackup(pool, backup, parent, with_chain, base_id)


def _check_export_options(
    parsed_args: argparse.Namespace, image_format: 'image_formats.ImageFormat'
) -> None:
    from osc_backup_port.formats import image_formats

    if parsed_args.from_backup and image_format.holds is not image_formats.Holds.INCREMENT:
        raise errors.InvalidInput(
            f'--from-backup goes with --format rbd-diff, not with {parsed_args.image_format}.'
        )
    if parsed_args.file is not None:
        base.refuse_to_overwrite(parsed_args.file)
        base.check_folder(parsed_args.file)
    elif parsed_args.verify:
        raise errors.InvalidInput(
            'A pipe cannot be read back: --verify needs a file.', 'Name one: --file <path>'
        )
    elif not parsed_args.dry_run:
        base.open_stdout()  # tells what to do instead
    told = parsed_args.volume_metadata
    if told is not None and not told.exists():
        base.check_folder(told)


@contextlib.contextmanager
def _output(parsed_args: argparse.Namespace) -> 'collections.abc.Iterator[image_info.Output]':
    from osc_backup_port.moving import image_info

    path = parsed_args.file
    try:
        if parsed_args.dry_run:
            with io.FileIO(os.devnull, 'w') as nothing:
                yield image_info.Output(nothing)
        elif path is None:
            with base.open_stdout() as stdout:
                yield image_info.Output(stdout)
        else:
            with image_info.described_file(path) as output:
                yield output
    except OSError as error:
        # A write knows nothing but the number of an open file.
        error.filename = error.filename or str(path or 'stdout')
        raise


def _write_volume_metadata(
    parsed_args: argparse.Namespace, backup_id: str, content: bytes | None, pool: str
) -> str:
    """Write the volume metadata to its file; return a line that says where it went."""
    from osc_backup_port import files
    from osc_backup_port.driver import ceph
    from osc_backup_port.moving import volume_metadata

    name = ceph.metadata_object(backup_id)
    if content is None:
        return f'none: there is no object {name} in pool {pool}'
    if parsed_args.volume_metadata is not None:
        # The user has named it: it may be a pipe.
        files.write_output(parsed_args.volume_metadata, content, replace=True)
        return str(parsed_args.volume_metadata)
    if parsed_args.file is None:
        return f'not exported: name a file for it with --volume-metadata <path> ({name})'
    path = volume_metadata.file_beside(parsed_args.file, backup_id)
    files.write_file(path, content, replace=True)
    return str(path)


class ImportBackupImage(_ImageCommand):
    """Import the image of a volume backup into Ceph.

    The image gets the name and the snapshot by which Cinder finds this backup,
    so that it is restored, deleted and continued as one of this cloud's own. A
    chain that is there is added to. What export-image wrote tells its format; of
    other streams it may have to be told (--format), since a disk may begin with
    anything. The record may be imported before or
    after: openstack volume backup metadata import.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            'backup',
            metavar='<backup>',
            nargs='?',
            help='Backup that the image belongs to (name or ID), if its record is imported',
        )
        which.add_argument(
            '--metadata',
            metavar='<path>',
            type=pathlib.Path,
            help='File with the record of the backup, in any format that "metadata import" reads',
        )
        parser.add_argument(
            '--file',
            metavar='<path>',
            type=pathlib.Path,
            help='File to read (default: stdin)',
        )
        base.add_image_format(
            parser,
            '. Not needed for a file that export-image '
            'wrote and <file>.info beside it, nor where only one is possible: a file of exactly '
            'the size of the volume is raw, one of another size that begins as an rbd export or '
            'diff does is that',
            default=None,
        )
        parser.add_argument(
            '--volume-metadata',
            metavar='<path>',
            type=pathlib.Path,
            help='File with the metadata of the volume (default: backup.<backup id>.meta beside '
            '--file, if it is there)',
        )
        parser.add_argument(
            '--image-name',
            metavar='<name>',
            help='Name of the image, for a record that names none: '
            'volume-<volume id>.backup.<backup id> or volume-<volume id>.backup.base',
        )
        transfer_options.add_verify(parser)
        parser.add_argument(
            '--dry-run',
            action='store_true',
            help='Say where the image would go and what stands in the way, without reading it, '
            'and change nothing',
        )
        importing.add_maps(parser)
        importing.add_foreign_image(parser)
        ceph_options.add_new_images(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.moving import cluster_sink, copy, file_source
        from osc_backup_port.records import import_records

        started = time.monotonic()
        wanted = self._wanted(parsed_args)
        with contextlib.ExitStack() as stack:
            # What is wrong with the file is told before the cluster is asked for anything.
            file = None
            if not parsed_args.dry_run or parsed_args.file is not None:
                file = stack.enter_context(_input(parsed_args.file))
            pool = stack.enter_context(self.open_pool(parsed_args, wanted.backup))
            shown = stack.enter_context(progress_bar.shown(not parsed_args.no_progress))
            encrypted.tell(shown, wanted.backup)
            opened = _recognise(parsed_args, file, wanted.backup, shown) if file else None
            source = file_source.Source(opened, wanted, pool.commands)
            # The record comes by itself.
            sink = cluster_sink.Sink(pool, None, import_records.Options(shell=pool.commands))
            planned = copy.plan(source, sink, all_or_nothing=True)
            chain = _only_chain(planned)
            obstacles = planned.errors()
            if not parsed_args.dry_run and not obstacles:
                job = transfer_options.job(parsed_args, shown, is_alone=True)
                copy.run(planned, sink, job)
                for error in planned.errors():
                    raise error
        [step] = [one for one in chain.steps if one.point.id == wanted.backup.id]
        if parsed_args.dry_run:
            return self._planned(chain, step, obstacles)
        if obstacles:
            raise _all_of(obstacles)
        return _import_columns(chain, step, opened, time.monotonic() - started)

    def _planned(
        self,
        chain: 'plan.ChainPlan',
        step: 'plan.Step',
        obstacles: 'collections.abc.Sequence[errors.PortError]',
    ) -> Columns:
        if obstacles:
            self.fail_after_output(errors.SomeFailed('In the way:', obstacles))
        return _columns(
            backup=step.point.id,
            result='to be imported' if step.is_missing else 'already there',
            image=chain.name,
            snapshot=None if step.is_missing else step.point.name,
        )

    def _wanted(self, parsed_args: argparse.Namespace) -> 'file_source.Wanted':
        from osc_backup_port.moving import file_source

        backup, parent = self._record(parsed_args)
        metadata = _read_volume_metadata(parsed_args, backup.id)
        return file_source.Wanted(
            backup,
            parent,
            importing.changes(parsed_args).rewrite_metadata(backup.id, metadata),
            parsed_args.image_name,
            parsed_args.allow_foreign_image,
        )

    def _record(
        self, parsed_args: argparse.Namespace
    ) -> 'tuple[record.BackupRecord, record.BackupRecord | None]':
        if parsed_args.metadata is None:
            cinder = self.cinder()
            backup = cinder.export_record(cinder.find(parsed_args.backup).id)
            return backup, _parent(cinder, backup)
        from osc_backup_port.records import read_records

        found = read_records.read_file(str(parsed_args.metadata))
        if len(found) != 1:
            raise errors.InvalidInput(
                f'{parsed_args.metadata}: holds {len(found)} records, expected one.',
                'Give a file with only the record that the image belongs to.',
            )
        return found[0], None


def _recognise(
    parsed_args: argparse.Namespace,
    file: io.RawIOBase,
    backup: 'record.BackupRecord',
    shown: 'progress.Progress',
) -> 'file_source.File':
    from osc_backup_port.formats import incoming, stream
    from osc_backup_port.moving import file_source, image_info

    path = parsed_args.file
    reader = stream.Reader(file, str(path or 'stdin'), parsed_args.checksum is not False)
    found = file_source.recognise(
        reader,
        backup,
        parsed_args.image_format,
        image_info.read(path) if path else None,
        shown,
        # Of a sparse file what it takes on the disk, in blocks of stat(2).
        path.stat().st_blocks * 512 if path else 0,
    )
    is_compared = found.info is not None and found.info.sha256 is not None
    if parsed_args.checksum is None and found.format == incoming.RAW and not is_compared:
        reader.do_not_hash()
    return found


def _all_of(obstacles: 'collections.abc.Sequence[errors.PortError]') -> errors.PortError:
    if len(obstacles) == 1:
        return obstacles[0]
    return errors.SomeFailed('Nothing was imported:', obstacles)


@contextlib.contextmanager
def _input(path: pathlib.Path | None) -> collections.abc.Iterator[io.RawIOBase]:
    if path is not None:
        with io.FileIO(path) as file:
            yield file
        return
    with base.open_stdin() as stdin:
        yield stdin


def _read_volume_metadata(parsed_args: argparse.Namespace, backup_id: str) -> bytes | None:
    from osc_backup_port.moving import volume_metadata

    if parsed_args.volume_metadata is not None:
        return volume_metadata.read_file(parsed_args.volume_metadata, required=True)
    if parsed_args.file is None:
        return None
    path = volume_metadata.file_beside(parsed_args.file, backup_id)
    return volume_metadata.read_file(path, required=False)


def _import_columns(
    chain: 'plan.ChainPlan', step: 'plan.Step', file: 'file_source.File | None', seconds: float
) -> Columns:
    is_new = step.is_missing
    return _columns(
        backup=step.point.id,
        result=steps.data(step, 'imported'),
        image=chain.name,
        snapshot=step.point.name,
        format=file.format if file and is_new else '-',
        size=step.point.size,
        bytes_moved=sum(one.moved for one in chain.steps),
        bytes_skipped=sum(one.skipped for one in chain.steps),
        sha256=file.reader.sha256 if file and is_new else None,
        volume_metadata=steps.volume_metadata(step),
        seconds=round(seconds, 2),
    )


def _columns(**values: object) -> Columns:
    return tuple(values), tuple(values.values())
