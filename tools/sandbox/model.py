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

"""What one cloud is: names, ports, secrets, folders. No behaviour."""

import base64
import re
import secrets
import struct
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import SandboxError
from .process import base_environment

PORTS = (
    *('ceph-mon', 'mariadb', 'epmd', 'rabbitmq', 'rabbitmq-dist', 'keystone', 'cinder-api'),
    'radosgw',
)
CEPH_USERS = ('mon', 'admin', 'mgr', 'osd', 'cinder', 'cinder-backup', 'nobody')
REGION = 'RegionOne'
VOLUMES = 'volumes'

# The two clouds differ in it because real ones do: a record names the pool it came from.
_BACKUP_POOLS = {'dst': 'cinder.backups'}


@dataclass(frozen=True)
class Cloud:
    """One cloud; ``root`` holds its data, ``sockets`` is a folder with a short name."""

    name: str
    root: Path
    sockets: Path
    venv: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]

    @property
    def backup_pool(self) -> str:
        return _BACKUP_POOLS.get(self.name, 'backups')

    @property
    def ceph_conf(self) -> Path:
        return self.root / 'ceph' / 'etc' / 'ceph.conf'

    @property
    def ceph_name(self) -> str:
        """What the services call the cluster; no other cloud on this machine has that name."""
        return self.secrets['fsid']

    @property
    def auth_url(self) -> str:
        return f'http://127.0.0.1:{self.ports["keystone"]}/v3'

    @property
    def volume_url(self) -> str:
        return f'http://127.0.0.1:{self.ports["cinder-api"]}/v3'

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment for a program of this cloud, with MORE in it."""
        home, temporary = self.root / 'home', self.sockets / 'tmp'
        home.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(parents=True, exist_ok=True)
        return {**base_environment(home, temporary), **more}

    def python_environment(self, **more: str) -> dict[str, str]:
        """Return the environment for a program of the services' virtual environment."""
        environment = self.environment(PYTHONUNBUFFERED='1', PYTHONWARNINGS='ignore', **more)
        return {**environment, 'PATH': f'{self.venv}/bin:{environment["PATH"]}'}


def check_name(name: str) -> str:
    """Return NAME; raise SandboxError when it cannot be the name of a cloud."""
    if not re.fullmatch(r'[a-z][a-z0-9]{0,15}', name):
        raise SandboxError(f"{name!r}: a cloud's name is 1 to 16 lower-case letters and digits")
    return name


def new_secrets() -> dict[str, str]:
    """Return fresh identifiers, passwords and keys for a cloud."""
    passwords = ('admin', 'member', 'service', 'database', 'rabbitmq', 'erlang-cookie')
    return {
        **{name: secrets.token_hex(12) for name in passwords},
        **{name: str(uuid.uuid4()) for name in ('fsid', 'osd-uuid', 'rbd-secret')},
        **{f'ceph-{name}': ceph_key() for name in CEPH_USERS},
        'fixed-key': secrets.token_hex(32),
        'fernet': base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        'credential': base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


def ceph_key() -> str:
    """Return a new cephx secret as it stands in a keyring.

    That is base64 of: type 1 (AES), seconds and nanoseconds of creation, length, 16 random bytes.
    """
    head = struct.pack('<hIIh', 1, int(time.time()), 0, 16)
    return base64.b64encode(head + secrets.token_bytes(16)).decode()
