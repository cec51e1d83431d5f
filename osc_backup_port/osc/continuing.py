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

"""On from what was imported: ``openstack volume backup continue``."""

import argparse

from osc_lib.command import command

from osc_backup_port.osc import ceph_options, cloud, progress_bar

Columns = tuple[tuple[str, ...], tuple[object, ...]]


class ContinueBackup(cloud.CloudCommand, command.ShowOne):
    """Let incremental backups of a restored volume continue an imported chain.

    For a chain that was imported with --for-volume, and whose newest backup was then
    restored into that volume. Compares the volume with the backup, byte by byte, and
    makes the snapshot on it that Cinder's next incremental backup starts from. The
    volume must not be in use, nor written to since it was restored.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'backup',
            metavar='<backup>',
            help='Backup that was restored, the newest of its chain (name or ID)',
        )
        parser.add_argument(
            '--volume-pool',
            metavar='<pool>',
            help='Pool of the volumes (default: rbd_pool of the cloud in clouds.yaml, then '
            'volumes)',
        )
        progress_bar.add_argument(parser)
        ceph_options.add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Columns:
        from osc_backup_port.ceph import cluster
        from osc_backup_port.moving import continue_chain

        cinder = self.cinder()
        backup_id = cinder.find(parsed_args.backup).id
        volumes = parsed_args.volume_pool or self.cloud.get('rbd_pool') or 'volumes'
        where = ceph_options.volume_settings(parsed_args, self.cloud)
        with (
            self.open_pool(parsed_args, cinder.export_record(backup_id)) as pool,
            cluster.open_pool(where, str(volumes)) as volume_pool,
            progress_bar.shown(not parsed_args.no_progress) as shown,
        ):
            pools = continue_chain.Pools(pool, volume_pool)
            result = continue_chain.run(cinder, pools, backup_id, shown)
        values: dict[str, object] = {
            'backup': backup_id,
            'result': result.state,
            'volume_id': result.volume_id,
            'image': f'{volumes}/{result.image}',
            'snapshot': result.snapshot,
        }
        return tuple(values), tuple(values.values())
