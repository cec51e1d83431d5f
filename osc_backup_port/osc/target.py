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


"""The other cloud of a migration: the options that name it, and the way into it."""

import argparse
import collections.abc
import dataclasses
import os
import pathlib
import shlex
import typing

from osc_backup_port import errors
from osc_backup_port.osc import ceph_options

if typing.TYPE_CHECKING:
    from osc_backup_port.ceph import cluster
    from osc_backup_port.cinder import backups, resources

#: Holds the password of the other cloud, for an openrc file that has none.
PASSWORD_VARIABLE = 'TO_OS_PASSWORD'  # noqa: S105

_BY_PASSWORD = (None, '', 'password', 'v3password', 'v2password')

Config = collections.abc.Mapping[str, typing.Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        'the cloud that they go to',
        'One of --to-cloud, --to-openrc and --to-region-name is needed; --to-region-name may go '
        'with each of the others. The Ceph options are for a cloud whose part of clouds.yaml '
        'does not say where its backups lie, and come before what it says.',
    )
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        '--to-cloud',
        metavar='<cloud>',
        help='Cloud of clouds.yaml; its keys backup_ceph_conf, backup_ceph_user and '
        'backup_ceph_pool say where its Ceph cluster is',
    )
    where.add_argument(
        '--to-openrc',
        metavar='<file>',
        type=pathlib.Path,
        help='openrc file of the cloud. It is read and not run: lines such as "export '
        f'OS_AUTH_URL=...". If it asks for the password, set {PASSWORD_VARIABLE}',
    )
    group.add_argument(
        '--to-region-name',
        metavar='<region>',
        help='Region; without --to-cloud and --to-openrc: another region of the cloud in use',
    )
    group.add_argument(
        '--to-ceph-conf', metavar='<path>', help='Configuration file of its Ceph cluster'
    )
    group.add_argument('--to-ceph-user', metavar='<user>', help='User of its Ceph cluster')
    group.add_argument(
        '--to-ceph-pool', metavar='<pool>', help='Pool of its backups (backup_ceph_pool)'
    )


def find(parsed_args: argparse.Namespace, app: typing.Any) -> 'OtherCloud':
    """Return the cloud that the options name.

    :param app: OSC's shell
    :raises InvalidInput: they name none, or it cannot be used
    """
    from keystoneauth1 import exceptions as keystone_exceptions
    from openstack import exceptions as sdk_exceptions

    from osc_backup_port.cinder import resources

    region = parsed_args.to_region_name
    if not (parsed_args.to_cloud or parsed_args.to_openrc or region):
        raise errors.InvalidInput(
            'Nothing says which cloud the backups go to.',
            'Expected --to-cloud <cloud>, --to-openrc <file> or --to-region-name <region>.',
        )
    cloud = _name(parsed_args, app)
    try:
        if parsed_args.to_openrc:
            found = _from_openrc(parsed_args.to_openrc, region)
        else:
            found = _from_clouds(app, parsed_args.to_cloud, region)
    except (
        sdk_exceptions.SDKException,
        keystone_exceptions.ClientException,
        TypeError,
        ValueError,
    ) as error:
        raise errors.InvalidInput(
            f'{resources.Cloud(cloud.name).note("cannot be used: ")}{error}',
            f'See whether it works: {cloud.command} token issue',
        ) from error
    return OtherCloud(found, cloud, parsed_args)


def _name(parsed_args: argparse.Namespace, app: typing.Any) -> 'resources.Cloud':
    from osc_backup_port.cinder import resources

    region = parsed_args.to_region_name
    option = f' --os-region-name {shlex.quote(region)}' if region else ''
    of_region = f', region {region}' if region else ''
    if parsed_args.to_openrc:
        path = parsed_args.to_openrc
        return resources.Cloud(
            f'cloud of {path}{of_region}', f'. {shlex.quote(str(path))}; openstack{option}'
        )
    if parsed_args.to_cloud:
        name = parsed_args.to_cloud
        command = f'openstack --os-cloud {shlex.quote(name)}{option}'
        return resources.Cloud(f'cloud {name}{of_region}', command)
    if region == app.cloud.region_name:
        raise errors.InvalidInput(
            f'Region {region} is the one that the backups come from.',
            'Name another region of this cloud, or another cloud with --to-cloud.',
        )
    return resources.Cloud(f'region {region}', f'openstack{option}')


def _from_clouds(app: typing.Any, name: str | None, region: str | None) -> typing.Any:
    from openstack import exceptions as sdk_exceptions

    # Without a name: the cloud in use, with what the command line says of it.
    options = argparse.Namespace() if name else argparse.Namespace(**vars(app.options))
    cloud = name or app.options.cloud
    if not region:
        return app.cloud_config.get_one(cloud=cloud, argparse=options)
    options.region_name = region
    try:
        return app.cloud_config.get_one(cloud=cloud, argparse=options)
    except sdk_exceptions.SDKException:
        # clouds.yaml may name but one of the regions, that one as region_name.
        options.region_name = None
        return app.cloud_config.get_one(cloud=cloud, argparse=options)


def _from_openrc(path: pathlib.Path, region: str | None) -> typing.Any:
    from openstack import config as sdk_config

    variables = _read(path)
    if variables.get('OS_CLOUD'):
        raise errors.InvalidInput(
            f'{path}: names a cloud of clouds.yaml (OS_CLOUD), expected what it takes to log in.',
            f'Use --to-cloud {shlex.quote(variables["OS_CLOUD"])} instead.',
        )
    if not variables.get('OS_AUTH_URL'):
        raise errors.InvalidInput(
            f'{path}: does not set OS_AUTH_URL.', 'Is that the openrc file of a cloud?'
        )
    by_password = variables.get('OS_AUTH_TYPE') in _BY_PASSWORD and 'OS_TOKEN' not in variables
    if by_password and not variables.get('OS_PASSWORD'):
        password = os.environ.get(PASSWORD_VARIABLE)
        if not password:
            raise errors.InvalidInput(
                f'{path}: sets no password (OS_PASSWORD), or asks for it.',
                f'Give it in the environment: read -rs {PASSWORD_VARIABLE}; '
                f'export {PASSWORD_VARIABLE}; then run this command again.',
            )
        variables['OS_PASSWORD'] = password
    settings: dict[str, typing.Any] = {
        name.removeprefix('OS_').lower(): value
        for name, value in variables.items()
        if name.startswith('OS_') and value
    }
    if region:
        settings['region_name'] = region
    # Neither clouds.yaml nor the environment: both are of the cloud in use.
    loader = sdk_config.OpenStackConfig(load_yaml_config=False, load_envvars=False)
    return loader.get_one(**settings)


def _read(path: pathlib.Path) -> dict[str, str]:
    from osc_backup_port.formats import openrc

    with path.open('rb') as file:
        content = file.read(openrc.MAX_SIZE + 1)
    if len(content) > openrc.MAX_SIZE:
        raise errors.InvalidInput(
            f'{path}: has more than {openrc.MAX_SIZE} bytes, which no openrc file has.'
        )
    try:
        text = content.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f'{path}: is no text in UTF-8.') from error
    return openrc.parse(text, str(path), os.environ)


class OtherCloud:
    """A cloud besides the one in use.

    It has what our own client for Block Storage takes from OSC's client manager.

    :param region: of openstacksdk
    :ivar cloud: what messages call it
    """

    def __init__(
        self, region: typing.Any, cloud: 'resources.Cloud', parsed_args: argparse.Namespace
    ) -> None:
        self.config: Config = _in_region(region.config, parsed_args.to_region_name)
        self.cloud = cloud
        self.session = region.get_session()
        self.region_name = self.config.get('region_name')
        self.interface = region.config.get('interface')
        self._api_version = {'volume': str(region.config.get('volume_api_version') or '')}
        self._conf: str | None = parsed_args.to_ceph_conf
        self._user: str | None = parsed_args.to_ceph_user
        self._pool: str | None = parsed_args.to_ceph_pool

    def get_configuration(self) -> Config:
        return self.config

    def cinder(self, timeout: float) -> 'backups.BackupService':
        """Return the Block Storage service of this cloud.

        :param timeout: seconds that it may be silent
        """
        from osc_backup_port.cinder import backups, patience

        waits = patience.Patience(timeout, str(self.cloud.name))
        return backups.BackupService.from_client_manager(self, waits=waits, cloud=self.cloud)

    def ceph(self, parsed_args: argparse.Namespace | None = None) -> 'cluster.Settings':
        """Return how to reach its cluster."""
        known = ceph_options.settings_of(self.config, parsed_args)
        return dataclasses.replace(
            known, conf=self._conf or known.conf, user=self._user or known.user
        )

    def pool(self) -> str:
        """Return the name of the pool of its backups.

        :raises InvalidInput: nothing names it
        """
        name = self._pool or self.config.get('backup_ceph_pool')
        if not name:
            raise errors.InvalidInput(
                self.cloud.note('nothing names the pool of its backups.'),
                'Name the one that is backup_ceph_pool in its cinder.conf: --to-ceph-pool <pool>; '
                'for a cloud of clouds.yaml also with a key backup_ceph_pool there.',
            )
        return str(name)


def _in_region(config: Config, region: str | None) -> Config:
    """Return what clouds.yaml says of a cloud, for another region of it."""
    if not region or region == config.get('region_name'):
        return config
    of_one_region = ('_region_name', '_endpoint_override')
    kept = {name: value for name, value in config.items() if not name.endswith(of_one_region)}
    return {**kept, 'region_name': region}
