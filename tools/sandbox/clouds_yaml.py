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

"""The clouds.yaml through which the sandbox is used."""

import shlex
from collections.abc import Sequence

from .files import write
from .model import REGION, Cloud
from .settings import Settings


def render(clouds: Sequence[Cloud]) -> str:
    """Return clouds.yaml for CLOUDS: of each the administrator, and a plain member."""
    text = '# Written by tools/sandbox at each start.\nclouds:\n'
    for cloud in clouds:
        text += _entry(cloud, cloud.name, 'admin', 'admin', cloud.secrets['admin'])
        text += f'    backup_ceph_conf: {cloud.ceph_conf}\n'
        text += '    backup_ceph_user: cinder-backup\n'
        text += f'    backup_ceph_pool: {cloud.backup_pool}\n'
        text += _entry(cloud, f'{cloud.name}-member', 'member', 'demo', cloud.secrets['member'])
    return text


def save(settings: Settings, clouds: Sequence[Cloud]) -> None:
    """Write the file for CLOUDS."""
    write(settings.clouds_yaml, render(clouds))


def exports(settings: Settings, cloud: Cloud) -> str:
    """Return the shell commands that make CLOUD the one that ``openstack`` and ``rbd`` use."""
    variables = {
        'OS_CLIENT_CONFIG_FILE': str(settings.clouds_yaml),
        'OS_CLOUD': cloud.name,
        'CEPH_CONF': str(cloud.ceph_conf),
    }
    return '\n'.join(f'export {key}={shlex.quote(value)}' for key, value in variables.items())


def _entry(cloud: Cloud, name: str, user: str, project: str, password: str) -> str:
    return (
        f'  {name}:\n'
        f'    auth:\n'
        f'      auth_url: {cloud.auth_url}\n'
        f'      username: {user}\n'
        f'      password: "{password}"\n'
        f'      project_name: {project}\n'
        f'      user_domain_id: default\n'
        f'      project_domain_id: default\n'
        f'    region_name: {REGION}\n'
        f'    identity_api_version: 3\n'
        f'    volume_api_version: "3"\n'
    )
