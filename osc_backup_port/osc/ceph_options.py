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

"""Where the Ceph cluster of the backups is: options, clouds.yaml, defaults."""

import argparse
import collections.abc
import dataclasses
import typing

from osc_backup_port import errors

if typing.TYPE_CHECKING:
    from osc_backup_port import record
    from osc_backup_port.ceph import cluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        'Ceph',
        'Where the backups are stored. Each of these can also be a key of the cloud in '
        'clouds.yaml, under the name that cinder.conf gives it: backup_ceph_conf, '
        'backup_ceph_user, backup_ceph_pool.',
    )
    group.add_argument(
        '--ceph-conf',
        metavar='<path>',
        help='Configuration file of the cluster (default: CEPH_CONF, then /etc/ceph/ceph.conf)',
    )
    group.add_argument(
        '--ceph-user',
        metavar='<user>',
        help='User of the cluster, with or without "client." (default: admin)',
    )
    group.add_argument(
        '--ceph-pool',
        metavar='<pool>',
        help='Pool of the backups (default: the container that the record of the backup names)',
    )


def settings(
    parsed_args: argparse.Namespace, cloud: collections.abc.Mapping[str, typing.Any]
) -> 'cluster.Settings':
    """Return how to reach the cluster.

    :param cloud: the cloud's part of clouds.yaml
    """
    return dataclasses.replace(
        settings_of(cloud),
        **{
            name: value
            for name, value in (('conf', parsed_args.ceph_conf), ('user', parsed_args.ceph_user))
            if value
        },
    )


def volume_settings(
    parsed_args: argparse.Namespace, cloud: collections.abc.Mapping[str, typing.Any]
) -> 'cluster.Settings':
    """Return how to reach the cluster of the volumes: that of the backups, unless told."""
    backups = settings(parsed_args, cloud)
    return dataclasses.replace(
        backups,
        conf=cloud.get('rbd_ceph_conf') or backups.conf,
        user=cloud.get('rbd_user') or backups.user,
    )


def settings_of(cloud: collections.abc.Mapping[str, typing.Any]) -> 'cluster.Settings':
    """Return how to reach the cluster of a cloud in clouds.yaml."""
    from osc_backup_port.ceph import cluster

    return cluster.Settings(cloud.get('backup_ceph_conf'), cloud.get('backup_ceph_user'))


def pool_name(
    parsed_args: argparse.Namespace,
    cloud: collections.abc.Mapping[str, typing.Any],
    backup: 'record.BackupRecord | None' = None,
) -> str:
    """Return the name of the pool to use.

    :param backup: whose record may name it
    :raises InvalidInput: nothing names one
    """
    found = parsed_args.ceph_pool or cloud.get('backup_ceph_pool')
    found = found or (backup.container if backup else None)
    if not found:
        raise errors.InvalidInput(
            'Nothing names the pool of the backups.',
            'Name it: --ceph-pool <pool>, or backup_ceph_pool of the cloud in clouds.yaml',
        )
    return str(found)
