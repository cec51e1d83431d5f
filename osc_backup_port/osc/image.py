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
import sys
import typing

from osc_lib.command import command

from osc_backup_port import errors, files, record
from osc_backup_port.ceph import cluster
from osc_backup_port.formats import record_file, stream
from osc_backup_port.operations import export_image, import_image, volume_metadata
from osc_backup_port.osc import base, ceph_options, progress_bar

Columns = tuple[tuple[str, ...], tuple[object, ...]]


class _ImageCommand(base.CommandMixin, command.ShowOne):
    """What the two directions share."""

    # A record in a file and a cluster are enough for an import.
    auth_required = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--no-progress', action='store_true', help='Show no progress on stderr'
        )
        parser.add_argument(
            '--no-checksum',
            action='store_true',
            help='Do not compute the sha256 of the stream, whose holes have to be hashed too',
        )
        ceph_options.add_arguments(parser)
        return parser

    @property
    def _cloud(self) -> collections.abc.Mapping[str, typing.Any]:
        return typing.cast(collections.abc.Mapping[str, typing.Any], self.app.cloud.config)

    @contextlib.contextmanager
    def _pool(
        self, parsed_args: argparse.Namespace, backup: record.BackupRecord
    ) -> collections.abc.Iterator[typing.Any]:
        if not backup.is_ceph:
            raise errors.InvalidInput(
                f'Backup {backup.id}: was made by {backup.backup_service}, whose data does not '
                'lie in Ceph.',
                'Only its record can be moved: openstack volume backup metadata export',
            )
        name = ceph_options.pool_name(parsed_args, self._cloud, backup)
        with cluster.open_pool(ceph_options.settings(parsed_args, self._cloud), name) as pool:
            yield pool

    def _cinder(self) -> typing.Any:
        # Imported here, because `openstack --help` loads this module.
        from osc_backup_port.cinder import backups

        self.authenticate()
        return backups.BackupService.from_client_manager(self.app.client_manager)


def _parent(cinder: typing.Any, backup: record.BackupRecord) -> record.BackupRecord | None:
    """Return the record of the parent, needed where *backup* names no image."""
    if backup.base_image or not backup.parent_id:
        return None
    with contextlib.suppress(errors.PortError):
        return typing.cast(record.BackupRecord, cinder.export_record(backup.parent_id))
    return None


def _warn_if_encrypted(shown: typing.Any, backup: record.BackupRecord) -> None:
    if backup.encryption_key_id:
        shown.say(
            f'Backup {backup.id}: the volume is encrypted. The image holds ciphertext; it can be '
            f'restored only where the key manager has the key {backup.encryption_key_id}.'
        )


class ExportBackupImage(_ImageCommand):
    """Export the image of a volume backup from Ceph.

    The bytes are those of this very backup, also where it is one of a chain of
    incremental backups. The metadata of the volume (its name, properties and
    bootable flag) goes into the file backup.<backup id>.meta beside the image.
    """

    _to_stdout = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('backup', metavar='<backup>', help='Backup to export (name or ID)')
        parser.add_argument(
            '--file',
            metavar='<path>',
            type=pathlib.Path,
            help='File to write; must not exist (default: stdout, if that is no terminal)',
        )
        _add_format(parser)
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
        self._to_stdout = parsed_args.file is None
        _check_export_options(parsed_args)
        cinder = self._cinder()
        backup = cinder.export_record(cinder.find(parsed_args.backup).id)
        base_id = cinder.find(parsed_args.from_backup).id if parsed_args.from_backup else None
        with (
            self._pool(parsed_args, backup) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            _warn_if_encrypted(shown, backup)
            plan = export_image.plan(
                pool, backup, _parent(cinder, backup), parsed_args.image_format, base_id
            )
            with _output(parsed_args.file) as output:
                writer = stream.Writer(output, not parsed_args.no_checksum)
                result = export_image.run(pool, plan, writer, shown)
            metadata = volume_metadata.export(
                pool, backup.id, _metadata_path(parsed_args, backup.id)
            )
        return _export_columns(backup, parsed_args, result, metadata)

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        """Print the columns; to stderr where stdout carried the image."""
        stdout = self.app.stdout
        if self._to_stdout:
            self.app.stdout = self.app.stderr
        try:
            return int(super().produce_output(parsed_args, column_names, data))
        finally:
            self.app.stdout = stdout


def _add_format(parser: argparse.ArgumentParser) -> None:
    """Add --format; cliff's own, for the columns, stays reachable as -f."""
    group = parser.add_argument_group('format of the image', conflict_handler='resolve')
    group.add_argument(
        '--format',
        choices=export_image.FORMATS,
        dest='image_format',
        default=export_image.FORMATS[0],
        help='raw: the volume, byte for byte, as a sparse file; rbd: the chain up to this '
        'backup, with its snapshots, for "rbd import --export-format 2"; rbd-diff: this '
        'backup, or the way to it from another, for "rbd import-diff" (default: raw). The '
        'format of the columns is -f.',
    )


def _check_export_options(parsed_args: argparse.Namespace) -> None:
    if parsed_args.from_backup and parsed_args.image_format != 'rbd-diff':
        raise errors.InvalidInput(
            f'--from-backup goes with --format rbd-diff, not with {parsed_args.image_format}.'
        )
    if parsed_args.file is None:
        if sys.stdout.isatty():
            raise errors.InvalidInput(
                'stdout is a terminal, which an image would garble.',
                'Name a file, --file <path>, or pipe the output into a program.',
            )
    elif parsed_args.file.exists():
        raise errors.Conflict(
            f'{parsed_args.file}: is there already.', 'Remove it first, or choose another name.'
        )


@contextlib.contextmanager
def _output(path: pathlib.Path | None) -> collections.abc.Iterator[io.RawIOBase]:
    if path is None:
        with io.FileIO(sys.stdout.fileno(), 'w', closefd=False) as stdout:
            yield stdout
    else:
        with files.part_file(path) as file:
            yield file


def _metadata_path(parsed_args: argparse.Namespace, backup_id: str) -> pathlib.Path | None:
    if parsed_args.volume_metadata is not None:
        return typing.cast(pathlib.Path, parsed_args.volume_metadata)
    if parsed_args.file is None:
        return None
    return volume_metadata.file_beside(parsed_args.file, backup_id)


def _export_columns(
    backup: record.BackupRecord,
    parsed_args: argparse.Namespace,
    result: export_image.Result,
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
    chain that is there is added to. The format (raw, rbd export format 1 or 2,
    rbd diff) is recognised by itself. The record may be imported before or
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
            help='Name of the image, where it has to be another than the record asks for: '
            'volume-<volume id>.backup.base for one',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        backup, parent = self._record(parsed_args)
        with (
            _input(parsed_args.file) as source,
            self._pool(parsed_args, backup) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            _warn_if_encrypted(shown, backup)
            name = str(parsed_args.file or 'stdin')
            reader = stream.Reader(source, name, not parsed_args.no_checksum)
            options = import_image.Options(
                parsed_args.image_name, _read_volume_metadata(parsed_args, backup.id)
            )
            result = import_image.run(pool, backup, parent, reader, options, shown)
        return _import_columns(backup, result)

    def _record(
        self, parsed_args: argparse.Namespace
    ) -> tuple[record.BackupRecord, record.BackupRecord | None]:
        if parsed_args.metadata is None:
            cinder = self._cinder()
            backup = cinder.export_record(cinder.find(parsed_args.backup).id)
            return backup, _parent(cinder, backup)
        content = parsed_args.metadata.read_bytes()
        found = record_file.read_records(content, str(parsed_args.metadata))
        if len(found) != 1:
            raise errors.InvalidInput(
                f'{parsed_args.metadata}: holds {len(found)} records, expected one.',
                'Give a file with only the record that the image belongs to.',
            )
        return found[0], None


@contextlib.contextmanager
def _input(path: pathlib.Path | None) -> collections.abc.Iterator[io.RawIOBase]:
    if path is not None:
        with io.FileIO(path) as file:
            yield file
        return
    if sys.stdin.isatty():
        raise errors.InvalidInput(
            'stdin is a terminal, from which no image can come.',
            'Name a file, --file <path>, or pipe a program into this one.',
        )
    with io.FileIO(sys.stdin.fileno(), closefd=False) as stdin:
        yield stdin


def _read_volume_metadata(parsed_args: argparse.Namespace, backup_id: str) -> bytes | None:
    if parsed_args.volume_metadata is not None:
        return volume_metadata.read_file(parsed_args.volume_metadata, required=True)
    if parsed_args.file is None:
        return None
    path = volume_metadata.file_beside(parsed_args.file, backup_id)
    return volume_metadata.read_file(path, required=False)


def _import_columns(backup: record.BackupRecord, result: import_image.Result) -> Columns:
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
