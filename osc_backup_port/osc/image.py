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
import pathlib
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
    transfer_options,
)

if typing.TYPE_CHECKING:
    from osc_backup_port import progress, record
    from osc_backup_port.cinder import backups
    from osc_backup_port.moving import export_image, image_info, import_image

_FORMATS = ('raw', 'rbd', 'rbd-diff')

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
        base.add_image_format(
            parser,
            _FORMATS,
            'raw: the volume, byte for byte, as a sparse file; rbd: the chain up to this '
            'backup, with its snapshots, for "rbd import --export-format 2"; rbd-diff: this '
            'backup, or the way to it from another, for "rbd import-diff"',
        )
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
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.formats import stream
        from osc_backup_port.moving import export_image, volume_metadata

        self.data_on_stdout = parsed_args.file is None
        _check_export_options(parsed_args)
        cinder = self.cinder()
        backup = cinder.export_record(cinder.find(parsed_args.backup).id)
        base_id = cinder.find(parsed_args.from_backup).id if parsed_args.from_backup else None
        with (
            self.open_pool(parsed_args, backup) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            encrypted.tell(shown, backup)
            plan = export_image.plan(
                pool, backup, _parent(cinder, backup), parsed_args.image_format, base_id
            )
            with _output(parsed_args.file) as output:
                hashed = parsed_args.checksum
                if hashed is None:
                    hashed = parsed_args.image_format != 'raw'
                writer = stream.Writer(output.file, hashed, str(parsed_args.file or 'stdout'))
                result = export_image.run(
                    pool, plan, writer, shown, transfer_options.bounds(parsed_args)
                )
                metadata = volume_metadata.export(
                    pool,
                    backup.id,
                    _metadata_path(parsed_args, backup.id),
                    is_named=parsed_args.volume_metadata is not None,
                )
                output.describe(export_image.describe(plan, result))
        return _export_columns(backup, parsed_args, result, metadata)


def _check_export_options(parsed_args: argparse.Namespace) -> None:
    if parsed_args.from_backup and parsed_args.image_format != 'rbd-diff':
        raise errors.InvalidInput(
            f'--from-backup goes with --format rbd-diff, not with {parsed_args.image_format}.'
        )
    if parsed_args.file is not None:
        base.refuse_to_overwrite(parsed_args.file)
        base.check_folder(parsed_args.file)
    else:
        base.open_stdout()  # tells what to do instead
    told = parsed_args.volume_metadata
    if told is not None and not told.exists():
        base.check_folder(told)


@contextlib.contextmanager
def _output(path: pathlib.Path | None) -> 'collections.abc.Iterator[image_info.Output]':
    from osc_backup_port.moving import image_info

    try:
        if path is None:
            with base.open_stdout() as stdout:
                yield image_info.Output(stdout)
        else:
            with image_info.described_file(path) as output:
                yield output
    except OSError as error:
        # A write knows nothing but the number of an open file.
        error.filename = error.filename or str(path or 'stdout')
        raise


def _metadata_path(parsed_args: argparse.Namespace, backup_id: str) -> pathlib.Path | None:
    from osc_backup_port.moving import volume_metadata

    if parsed_args.volume_metadata is not None:
        return typing.cast(pathlib.Path, parsed_args.volume_metadata)
    if parsed_args.file is None:
        return None
    return volume_metadata.file_beside(parsed_args.file, backup_id)


def _export_columns(
    backup: 'record.BackupRecord',
    parsed_args: argparse.Namespace,
    result: 'export_image.Result',
    metadata: str,
) -> Columns:
    return _columns(
        backup=backup.id,
        image=result.image,
        snapshot=result.snapshot,
        format=parsed_args.image_format,
        file=str(parsed_args.file or 'stdout'),
        size=result.size,
        stream_size=result.stream_size,
        bytes_moved=result.moved,
        bytes_skipped=result.skipped,
        sha256=result.sha256,
        volume_metadata=metadata,
        seconds=round(result.seconds, 2),
    )


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
            _FORMATS,
            'raw: the volume, byte for byte; rbd: what "rbd export --export-format 2" writes; '
            'rbd-diff: what "rbd export-diff" writes. Not needed for a file that export-image '
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
        parser.add_argument(
            '--verify',
            action='store_true',
            help='Read back what was written and compare it with what came in; costs one read of '
            'all of that',
        )
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
        from osc_backup_port.moving import import_image

        backup, parent = self._record(parsed_args)
        if parsed_args.dry_run:
            return self._plan(parsed_args, backup, parent)
        with (
            _input(parsed_args.file) as source,
            self.open_pool(parsed_args, backup) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            encrypted.tell(shown, backup)
            options = _import_options(parsed_args, backup.id)
            arriving = _recognise(parsed_args, source, backup, options, shown)
            bounds = transfer_options.bounds(parsed_args)
            result = import_image.run(pool, backup, parent, arriving, options, shown, bounds)
        return _import_columns(backup, result)

    def _plan(
        self,
        parsed_args: argparse.Namespace,
        backup: 'record.BackupRecord',
        parent: 'record.BackupRecord | None',
    ) -> Columns:
        from osc_backup_port.moving import import_image

        with (
            self.open_pool(parsed_args, backup) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            encrypted.tell(shown, backup)
            options = _import_options(parsed_args, backup.id)
            if parsed_args.file is not None:
                with _input(parsed_args.file) as source:
                    _recognise(parsed_args, source, backup, options, shown)
            planned = import_image.plan(pool, backup, parent, options)
        if planned.obstacles:
            self.fail_after_output(errors.SomeFailed('In the way:', planned.obstacles))
        return _columns(
            backup=backup.id,
            result=planned.state,
            image=planned.image,
            snapshot=planned.snapshot,
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
    source: io.RawIOBase,
    backup: 'record.BackupRecord',
    options: 'import_image.Options',
    shown: 'progress.Progress',
) -> 'import_image.Source':
    from osc_backup_port.formats import incoming, stream
    from osc_backup_port.moving import import_image

    reader = stream.Reader(
        source, str(parsed_args.file or 'stdin'), parsed_args.checksum is not False
    )
    found = import_image.recognise(reader, backup, options, shown)
    is_compared = found.info is not None and found.info.sha256 is not None
    if parsed_args.checksum is None and found.format == incoming.RAW and not is_compared:
        reader.do_not_hash()
    return found


@contextlib.contextmanager
def _input(path: pathlib.Path | None) -> collections.abc.Iterator[io.RawIOBase]:
    if path is not None:
        with io.FileIO(path) as file:
            yield file
        return
    with base.open_stdin() as stdin:
        yield stdin


def _import_options(parsed_args: argparse.Namespace, backup_id: str) -> 'import_image.Options':
    from osc_backup_port.moving import image_info, import_image

    metadata = _read_volume_metadata(parsed_args, backup_id)
    path = parsed_args.file
    return import_image.Options(
        parsed_args.image_name,
        importing.changes(parsed_args).rewrite_metadata(backup_id, metadata),
        parsed_args.verify,
        # Of a sparse file what it takes on the disk, in blocks of stat(2).
        path.stat().st_blocks * 512 if path else 0,
        parsed_args.image_format,
        image_info.read(path) if path else None,
        parsed_args.allow_foreign_image,
    )


def _read_volume_metadata(parsed_args: argparse.Namespace, backup_id: str) -> bytes | None:
    from osc_backup_port.moving import volume_metadata

    if parsed_args.volume_metadata is not None:
        return volume_metadata.read_file(parsed_args.volume_metadata, required=True)
    if parsed_args.file is None:
        return None
    path = volume_metadata.file_beside(parsed_args.file, backup_id)
    return volume_metadata.read_file(path, required=False)


def _import_columns(backup: 'record.BackupRecord', result: 'import_image.Result') -> Columns:
    return _columns(
        backup=backup.id,
        result=result.state,
        image=result.image,
        snapshot=result.snapshot,
        format=result.format,
        size=result.size,
        bytes_moved=result.moved,
        bytes_skipped=result.skipped,
        sha256=result.sha256,
        volume_metadata=result.volume_metadata,
        seconds=round(result.seconds, 2),
    )


def _columns(**values: object) -> Columns:
    return tuple(values), tuple(values.values())
