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

"""Cloud to cloud: ``openstack volume backup migrate``."""

import argparse
import collections.abc
import typing

from osc_lib.command import command

from osc_backup_port import errors, units
from osc_backup_port.osc import (
    ceph_options,
    cloud,
    failures,
    importing,
    progress_bar,
    selecting,
    steps,
    target,
    terminal,
    transfer_options,
)

if typing.TYPE_CHECKING:
    from osc_backup_port.moving import plan

Columns = tuple[tuple[str, ...], collections.abc.Iterable[tuple[object, ...]]]


class MigrateBackup(cloud.CloudCommand, command.Lister):
    """Bring volume backups of this cloud into another one.

    The chains go straight from cluster to cluster, with no file between: images with
    their snapshots, the metadata of the volumes, then the records. Run again, it
    moves what is new; a run that was killed is taken up where it stopped. Needs the
    admin role in both clouds, and this machine needs to reach both Ceph clusters.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        selecting.add_arguments(parser, 'migrate')
        target.add_arguments(parser)
        parser.add_argument(
            '--single',
            action='store_true',
            help='Take each backup out of its chain: as a full backup by itself, without the '
            'backups before it',
        )
        parser.add_argument(
            '--verify',
            action='store_true',
            help='Read what was written back, on both sides, and compare; takes about as long '
            'again as moving it',
        )
        importing.add_arguments(parser)
        transfer_options.add_arguments(parser, requests=8)
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        ceph_options.add_new_images(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.ceph import cluster
        from osc_backup_port.moving import cluster_sink, cluster_source, copy

        wanted = selecting.wanted(parsed_args)
        other = target.find(parsed_args, self.app)
        self._check_places(parsed_args, other)
        cinder = self.cinder()
        records, unfound = selecting.read_records(cinder, wanted, parsed_args.single)
        if unfound:
            raise unfound[0]
        target_cinder = other.cinder(parsed_args.timeout)
        with (
            self.open_pool(parsed_args, next(iter(records.found.values()))) as source,
            cluster.open_pool(other.ceph(parsed_args), other.pool()) as pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            options = importing.options(
                parsed_args, target_cinder, pool.name, source=cinder, shell=pool.commands
            )
            origin = cluster_source.Source(cinder, source, records, parsed_args.single)
            sink = cluster_sink.Sink(pool, target_cinder, options)
            planned = copy.plan(origin, sink, all_or_nothing=True)
            for note in planned.records.notes:
                shown.say(note)
            is_started = not planned.is_blocked and not parsed_args.dry_run
            if parsed_args.dry_run:
                copy.estimate(planned)
            elif is_started:
                copy.run(planned, sink, transfer_options.job(parsed_args, shown))
        findings = planned.errors()
        self._summary = _summary(parsed_args, other.cloud.command, planned, findings)
        if findings:
            summary = failures.heading('migrated', parsed_args.dry_run, is_started)
            self.fail_after_output(errors.SomeFailed(summary, findings))
        return _columns(planned)

    def _check_places(self, parsed_args: argparse.Namespace, other: target.OtherCloud) -> None:
        """:raises InvalidInput: the backups would be moved to where they are"""
        if parsed_args.to_cloud or parsed_args.to_openrc:
            return
        # What clouds.yaml says of a cloud as a whole may be meant for one of its regions.
        here = ceph_options.settings(parsed_args, self.cloud)
        pool = parsed_args.ceph_pool or self.cloud.get('backup_ceph_pool')
        if (here.conf, pool) == (other.ceph().conf, other.pool()):
            raise errors.InvalidInput(
                other.cloud.note(f'its backups would lie in the pool {pool} that they come from.'),
                'Say where that region keeps its backups: --to-ceph-conf, --to-ceph-user, '
                '--to-ceph-pool',
            )

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        code = int(super().produce_output(parsed_args, column_names, data))
        self.app.stdout.flush()
        terminal.write_line(self.app.stderr, self._summary)
        return code


def _summary(
    parsed_args: argparse.Namespace,
    command: str,
    planned: 'plan.Plan',
    findings: collections.abc.Sequence[errors.PortError],
) -> str:
    """Return what was moved, skipped and left, and what to type to check it.

    :param command: how a command for the other cloud begins
    """
    all_steps = planned.steps
    missing = [step for step in all_steps if step.is_missing]
    if parsed_args.dry_run:
        size = units.human_size(sum(step.estimate for step in missing))
        return (
            f'{len(missing)} of {len(all_steps)} backups would be moved, at most {size}. '
            f'What stands in the way: {len(findings) or "nothing"}.'
        )
    moved = sum(step.moved for step in all_steps)
    skipped = sum(step.skipped for step in all_steps)
    done = [step for step in all_steps if step.is_done]
    return (
        f'{len(done)} of {len(all_steps)} backups are there: {units.human_size(moved)} moved, '
        f'{units.human_size(skipped)} of holes and unchanged data skipped, '
        f'{len(all_steps) - len(done)} left. To check: {command} volume backup image check'
    )


def _columns(planned: 'plan.Plan') -> Columns:
    headings = ('ID', 'Name', 'Volume ID', 'Kind', 'Image', 'Record', 'Bytes moved')
    return headings, [
        (
            *steps.backup(step),
            'full' if step.point.record and step.point.record.parent_id is None else 'incremental',
            steps.data(step, 'migrated'),
            step.record_step.result if step.record_step else '-',
            step.moved or step.estimate,
        )
        for step in planned.steps
    ]
