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

"""How os-brick finds the keyring of its own cloud.

It reads /etc/ceph/<cluster>.client.<user>.keyring, in a folder that it lets nobody choose. Where
the machine allows it, each service gets a view of the file system in which /etc/ceph is its own
cloud's folder. In a container that does not allow it, the keyring goes into the real folder; no
two clouds there have the same <cluster>.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from .errors import SandboxError
from .files import write
from .model import Cloud
from .process import run

PLACE = Path('/etc/ceph')

# Binds its first argument over /etc/ceph, for the rest of the command line only.
_BIND = f'mount --bind "$0" {PLACE} && exec "$@"'
_NEW_VIEW = ('unshare', '--mount', '--propagation', 'private')
# What may do it: root, and where it is allowed anybody who is root to himself.
_WAYS = (_NEW_VIEW, (*_NEW_VIEW, '--user', '--map-root-user'))


def check() -> None:
    """Raise SandboxError when there is no place for the keyrings."""
    if not _new_view() and os.geteuid():
        raise SandboxError(
            'this machine allows no mount namespace of our own (unshare --mount), as many '
            f'containers. Run it as root, so that keyrings can be put into {PLACE}, or allow it '
            'to the container (CAP_SYS_ADMIN).'
        )


def put(cloud: Cloud, keyring: str) -> None:
    """Put the keyring of the user ``cinder`` where the services of CLOUD find it."""
    for folder in _folders(cloud):
        write(folder / _name(cloud), keyring)


def remove(cloud: Cloud) -> None:
    """Remove the keyring of CLOUD from the real folder, if it is there."""
    (PLACE / _name(cloud)).unlink(missing_ok=True)


def around(cloud: Cloud) -> list[str]:
    """Return the words that go before the command of a service of CLOUD."""
    new_view = _new_view()
    return [*new_view, 'sh', '-c', _BIND, str(cloud.ceph_conf.parent)] if new_view else []


def _folders(cloud: Cloud) -> Sequence[Path]:
    etc = cloud.ceph_conf.parent
    return [etc] if _new_view() else [etc, PLACE]


def _name(cloud: Cloud) -> str:
    return f'{cloud.ceph_name}.client.cinder.keyring'


@functools.cache
def _new_view() -> Sequence[str]:
    """Return how to run a command in its own view of the file system; nothing: not at all."""
    for way in _WAYS:
        try:
            run([*way, 'mount', '--bind', '/tmp', '/tmp'])
        except SandboxError:
            continue
        return way
    return ()
