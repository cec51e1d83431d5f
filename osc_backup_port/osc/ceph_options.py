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

from osc_backup_port import errors, model

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


def add_new_images(parser: argparse.ArgumentParser) -> None:
    """Add how the images are made, to a command that imports."""
    group = parser.add_argument_group(
        'New images',
        'How the images of the backups are made. Each of these can also be a key of the cloud '
        'in clouds.yaml, under the name that cinder.conf or ceph.conf gives it. The default is '
        'what the other backups in the pool have; in a pool without any, what Cinder does.',
    )
    group.add_argument(
        '--data-pool',
        metavar='<pool>',
        help='Pool that the data of new images goes to (rbd_default_data_pool)',
    )
    group.add_argument(
        '--image-journals',
        choices=('yes', 'no'),
        help='Make new images with the journaling feature, for mirroring '
        '(backup_ceph_image_journals)',
    )
    group.add_argument(
        '--stripe-unit',
        metavar='<bytes>',
        type=_count,
        help='Stripe unit of new images (backup_ceph_stripe_unit); 0: no striping',
    )
    group.add_argument(
        '--stripe-count',
        metavar='<number>',
        type=_count,
        help='Objects that new images are striped over (backup_ceph_stripe_count); 0: no striping',
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a number')
    return int(text)


def new_images(
    cloud: collections.abc.Mapping[str, typing.Any],
    parsed_args: argparse.Namespace | None = None,
) -> model.NewImages:
    """Return how images are to be made, by the options, then by clouds.yaml.

    :raises InvalidInput: clouds.yaml has what is none of that
    """

    def found(option: str, key: str) -> object:
        chosen = getattr(parsed_args, option, None)
        return cloud.get(key) if chosen is None else chosen

    return model.NewImages(
        data_pool=str(found('data_pool', 'rbd_default_data_pool') or '') or None,
        journals=_yes_or_no(
            'backup_ceph_image_journals', found('image_journals', 'backup_ceph_image_journals')
        ),
        stripe_unit=_whole(
            'backup_ceph_stripe_unit', found('stripe_unit', 'backup_ceph_stripe_unit')
        ),
        stripe_count=_whole(
            'backup_ceph_stripe_count', found('stripe_count', 'backup_ceph_stripe_count')
        ),
    )


def _yes_or_no(key: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {'yes': True, 'true': True, 'no': False, 'false': False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise errors.InvalidInput(f'{key}: is {value!r}, expected yes or no.') from None


def _whole(key: str, value: object) -> int | None:
    if value is None:
        return None
    if not str(value).isdecimal():
        raise errors.InvalidInput(f'{key}: is {value!r}, expected a number.')
    return int(str(value))


def settings(
    parsed_args: argparse.Namespace, cloud: collections.abc.Mapping[str, typing.Any]
) -> 'cluster.Settings':
    """Return how to reach the cluster.

    :param cloud: the cloud's part of clouds.yaml
    """
    own = settings_of(cloud)
    return dataclasses.replace(
        own,
        conf=parsed_args.ceph_conf or own.conf,
        user=parsed_args.ceph_user or own.user,
        new_images=new_images(cloud, parsed_args),
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


def settings_of(
    cloud: collections.abc.Mapping[str, typing.Any],
    parsed_args: argparse.Namespace | None = None,
) -> 'cluster.Settings':
    """Return how to reach the cluster of a cloud in clouds.yaml.

    :param parsed_args: with what :func:`add_new_images` added
    """
    from osc_backup_port.ceph import cluster

    return cluster.Settings(
        cloud.get('backup_ceph_conf'),
        cloud.get('backup_ceph_user'),
        new_images(cloud, parsed_args),
    )


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
