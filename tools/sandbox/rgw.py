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

"""Ceph's object gateway, on demand: S3 over the cluster of one cloud."""

import shlex
from pathlib import Path

from . import ports, process
from .ceph import ceph
from .errors import SandboxError
from .files import write
from .model import Cloud
from .process import Daemon, launch, run

_ENTITY = 'client.rgw'
_USER = 'archive'


def daemon(cloud: Cloud) -> Daemon:
    """Return the gateway; it is none of the daemons that make a cloud."""
    port = cloud.ports.get('radosgw', 0)

    def missing() -> str:
        return '' if ports.answers(port) else 'it does not listen'

    options = ['--conf', str(cloud.ceph_conf), '--keyring', str(_keyring(cloud))]
    frontend = f'beast endpoint={ports.HOST}:{port}'
    return Daemon(
        cloud=cloud.name,
        name='radosgw',
        command=[
            *('radosgw', '-f', '-n', _ENTITY, *options, '--rgw-frontends', frontend),
            *('--log-to-file=false', '--log-to-stderr=true'),
            *('--rgw-data', str(cloud.root / 'ceph' / 'rgw')),
        ],
        root=cloud.root,
        environment=cloud.environment(),
        missing=missing,
        port=port or None,
    )


def start(cloud: Cloud) -> str:
    """Start the gateway; return shell commands that make its user the one of S3."""
    if 'radosgw' not in cloud.ports:
        raise SandboxError(
            f'{cloud.name}: was made before there was a gateway, and has no port for it; '
            "'down --purge' and 'up' make it anew."
        )
    rights = ['mon', 'allow rw', 'mgr', 'allow rw', 'osd', 'allow rwx']
    (key,) = ceph(cloud, 'auth', 'get-or-create', _ENTITY, *rights)
    write(_keyring(cloud), f'[{_ENTITY}]\nkey = {key["key"]}\n')
    launch(daemon(cloud))
    access, secret = cloud.secrets['fsid'].replace('-', '')[:20], cloud.secrets['admin']
    _make_user(cloud, access, secret)
    variables = {
        'AWS_ACCESS_KEY_ID': access,
        'AWS_SECRET_ACCESS_KEY': secret,
        'AWS_ENDPOINT_URL': f'http://{ports.HOST}:{cloud.ports["radosgw"]}',
        'AWS_DEFAULT_REGION': 'default',
    }
    return '\n'.join(f'export {name}={shlex.quote(value)}' for name, value in variables.items())


def stop(cloud: Cloud) -> None:
    process.stop(daemon(cloud))


def _make_user(cloud: Cloud, access: str, secret: str) -> None:
    command = ['radosgw-admin', '-n', _ENTITY, '--conf', str(cloud.ceph_conf)]
    command += ['--keyring', str(_keyring(cloud)), 'user']
    users = run([*command, 'list'], cloud.environment())
    if f'"{_USER}"' not in users:
        names = ['--uid', _USER, '--display-name', _USER]
        keys = ['--access-key', access, '--secret-key', secret]
        run([*command, 'create', *names, *keys], cloud.environment())


def _keyring(cloud: Cloud) -> Path:
    return cloud.ceph_conf.parent / 'ceph.client.rgw.keyring'
