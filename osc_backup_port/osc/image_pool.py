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

"""The pool as a whole: ``openstack volume backup image list, image check``."""

import argparse
import collections.abc
import contextlib
import pathlib
import typing

from osc_lib.command import command

from osc_backup_port import errors
from osc_backup_port.osc import ceph_options, cloud, terminal

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]

_WARNINGS, _ERRORS = 2, 3


class _PoolCommand(cloud.CloudCommand, command.Lister):
    """What works on all of a pool, and needs an admin to know whose it is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        ceph_options.add_arguments(parser)
        return parser

    @contextlib.contextmanager
    def _pool(
        self, parsed_args: argparse.Namespace, backups: collections.abc.Sequence[typing.Any]
    ) -> collections.abc.Iterator[typing.Any]:
        """Open the pool that is named, or else the one that all backups lie in."""
        from osc_backup_port.ceph import cluster
        from osc_backup_port.doctor import known_backups

        name = parsed_args.ceph_pool or self.cloud.get('backup_ceph_pool')
        name = name or known_backups.pool_of(backups)
        settings = ceph_options.settings(parsed_args, self.cloud)
        with cluster.open_pool(settings, name) as pool:
            yield pool

    def _print(self, lines: collections.abc.Iterable[str]) -> None:
        for line in lines:
            terminal.write_line(self.app.stdout, line)


class ListBackupImages(_PoolCommand):
    """List what lies in the backup pool of Ceph, and whose it is.

    One row for each snapshot of a backup, and for each image that has none. The
    status is what Cinder says of the backup; "unknown": no backup of that ID is in
    this cloud. Used is what a backup takes more than the one before it, in whole
    objects, as "rbd du" counts it. Needs the admin role, to see the backups of all
    projects.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--long',
            action='store_true',
            help='Show a tree of volumes, images and backups; with -f, more columns',
        )
        parser.add_argument(
            '--volume', metavar='<volume id>', help='Only images of this volume, there or not'
        )
        parser.add_argument(
            '--no-used',
            action='store_true',
            help='Do not ask how much each backup takes, which opens every snapshot once',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.doctor import known_backups, list_images

        backups = known_backups.list_all(self.cinder())
        with self._pool(parsed_args, backups) as pool:
            listing = list_images.run(pool, backups, not parsed_args.no_used, parsed_args.volume)
        self._rows = listing.rows
        if listing.problems:
            summary = f'{_count(len(listing.problems), "image")} could not be read:'
            self.fail_after_output(errors.SomeFailed(summary, listing.problems))
        headings = ('Backup ID', 'Size', 'Used', 'Status', 'Volume Metadata', 'Image', 'Snapshot')
        more = ('Volume ID', 'Created At', 'Name', 'Project ID') if parsed_args.long else ()
        return headings + more, [
            (
                row.backup_id,
                row.size,
                row.used,
                row.status,
                row.has_metadata,
                row.image,
                row.snapshot,
                *((row.volume_id, row.created_at, row.name, row.project_id) if more else ()),
            )
            for row in self._rows
        ]

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: typing.Any, data: typing.Any
    ) -> int:
        from osc_backup_port.doctor import list_images

        if parsed_args.formatter != 'table':
            return int(super().produce_output(parsed_args, column_names, data))
        if parsed_args.long:
            self._print(list_images.tree(self._rows))
            return 0
        # Bytes are for programs.
        shown = [(row[0], _human(row[1]), _human(row[2]), *row[3:]) for row in data]
        return int(super().produce_output(parsed_args, column_names, shown))


def _human(size: int | None) -> str:
    from osc_backup_port import units

    return units.human_size(size) if size is not None else '-'


class CheckBackupImages(_PoolCommand):
    """Check the backup pool of Ceph against the records of Cinder.

    Finds backups that a restore would fail for or give foreign bytes, and space that
    belongs to no backup any more; says of each what it does and what mends it.
    Changes nothing without --fix. The codes are explained in the reference, "image
    check". Exit code: 0 nothing found, or only what is worth knowing (info); 2
    warnings; 3 errors; 1 the check itself failed. With --fix: 0 done, 1 not. Needs
    the admin role.
    """

    _code = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--severity',
            choices=('error', 'warning', 'info'),
            default='warning',
            help='Show what is at least that bad (default: %(default)s)',
        )
        parser.add_argument(
            '--quick',
            action='store_true',
            help='Do not list all objects of the pool, which takes minutes in a pool of '
            'hundreds of TiB: volume metadata and locks that no image points to are not found '
            'then',
        )
        parser.add_argument(
            '--heads',
            action='store_true',
            help='Also look whether each image is as its newest snapshot (head-drifted), which '
            'asks for every object',
        )
        parser.add_argument(
            '--fix',
            metavar='<code>',
            help='Take away what was found under this code, and say so: orphan-metadata (see '
            '--keep), partial-import. For nothing else: it might be the only copy of a backup',
        )
        parser.add_argument(
            '--keep',
            metavar='<directory>',
            type=pathlib.Path,
            help='With --fix orphan-metadata: directory for a copy of each object that is removed',
        )
        parser.add_argument(
            '--dry-run', action='store_true', help='With --fix: say what would be done, do nothing'
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.doctor import check_image, findings, known_backups, pool_scan

        _check_options(parsed_args)
        options = pool_scan.Options(
            used=True, heads=parsed_args.heads, objects=not parsed_args.quick
        )
        cinder = self.cinder()
        with self._pool(parsed_args, known_backups.list_all(cinder)) as pool:
            self._report = check_image.run(pool, cinder, options)
            if parsed_args.fix:
                return self._fix(parsed_args, pool, cinder)
        wanted = findings.SEVERITIES[: findings.SEVERITIES.index(parsed_args.severity) + 1]
        self._shown = [one for one in self._report.findings if one.severity in wanted]
        worst = findings.worst(self._report.findings)
        self._code = {'error': _ERRORS, 'warning': _WARNINGS}.get(worst or '', 0)
        return ('Severity', 'Code', 'Target', 'Backup ID', 'Found', 'Effect', 'Mend'), [
            (one.severity, one.code, one.target, one.backup_id, one.found, one.effect, one.mend)
            for one in self._shown
        ]

    def _fix(
        self, parsed_args: argparse.Namespace, pool: typing.Any, cinder: typing.Any
    ) -> Columns:
        from osc_backup_port.doctor import fix_image

        rows = []
        failures = []
        for finding in fix_image.plan(self._report.findings, parsed_args.fix):
            told = 'would be taken away'
            if not parsed_args.dry_run:
                try:
                    told = fix_image.run(pool, cinder, finding, parsed_args.keep)
                except errors.PortError as error:
                    failures.append(error)
                    told = 'failed'
            rows.append((finding.code, finding.target, told))
        if failures:
            self.fail_after_output(
                errors.SomeFailed(f'{len(failures)} of {len(rows)} could not be fixed:', failures)
            )
        return ('Code', 'Target', 'Result'), rows

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: typing.Any, data: typing.Any
    ) -> int:
        if parsed_args.formatter != 'table' or parsed_args.fix:
            return int(super().produce_output(parsed_args, column_names, data))
        self._print(_report_lines(self._report, self._shown))
        return 0

    def run(self, parsed_args: argparse.Namespace) -> int:
        code = super().run(parsed_args)
        return code or self._code


def _check_options(parsed_args: argparse.Namespace) -> None:
    from osc_backup_port.doctor import fix_image

    if not parsed_args.fix:
        if parsed_args.dry_run or parsed_args.keep:
            raise errors.InvalidInput('--dry-run and --keep go with --fix <code>.')
        return
    fix_image.plan([], parsed_args.fix)
    if parsed_args.fix != 'orphan-metadata':
        return
    if parsed_args.quick:
        raise errors.InvalidInput('--quick does not look for orphan-metadata.', 'Leave it out.')
    if parsed_args.keep is None and not parsed_args.dry_run:
        raise errors.InvalidInput(
            '--fix orphan-metadata removes objects, and nothing says where to keep a copy.',
            'Name a directory: --keep <directory>',
        )


def _report_lines(report: typing.Any, shown: list[typing.Any]) -> list[str]:
    """Return the findings for people: what is it, what does it do, what mends it."""
    lines = []
    for one in shown:
        lines += [
            f'{one.severity}: {one.code}: {one.target}',
            f'  found   {one.found}',
            f'  effect  {one.effect}',
            f'  mend    {one.mend}',
            '',
        ]
    counts = [
        _count(number, severity)
        for severity in ('error', 'warning')
        if (number := sum(one.severity == severity for one in report.findings))
    ]
    looked_at = f'{_count(report.images, "image")} and {_count(report.backups, "backup")}'
    lines.append(f'Pool {report.pool}: {looked_at}: {", ".join(counts) or "all is well"}.')
    return lines


def _count(number: int, what: str) -> str:
    return f'{number} {what}{"" if number == 1 else "s"}'
