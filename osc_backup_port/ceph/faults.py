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

"""The errors of librbd and librados, as ours."""

import contextlib
from collections.abc import Iterator
from typing import Any

from osc_backup_port import errors
from osc_backup_port.ceph import commands


@contextlib.contextmanager
def translated(
    what: str, rbd: Any, rados: Any = None, shell: commands.Commands | None = None
) -> Iterator[None]:
    """Turn the errors of librbd and librados about *what* into ours.

    :param shell: commands that reach this cluster
    """
    shell = shell or commands.Commands()
    not_found = [rbd.ImageNotFound] + ([rados.ObjectNotFound] if rados else [])
    refused = [rbd.PermissionError]
    refused += [rados.PermissionError, rados.PermissionDeniedError] if rados else []
    failures = [rbd.Error] + ([rados.Error] if rados else [])
    try:
        yield
    except tuple(not_found) as error:
        raise errors.NotFound(f'{what}: not there.') from error
    except rbd.ImageExists as error:
        raise errors.Conflict(f'{what}: is there already.') from error
    except rbd.ImageBusy as error:
        raise errors.Conflict(
            f'{what}: is in use by another client.',
            'Wait until the backup or restore that uses it has ended, then try again.',
        ) from error
    except tuple(refused) as error:
        raise errors.CephError(
            f'{what}: the cluster does not permit it: {error}.',
            "The user needs the capability 'profile rbd' on this pool; compare with the one of "
            f'cinder-backup: {shell.ceph("auth", "ls")}',
        ) from error
    except tuple(failures) as error:
        raise errors.CephError(
            f'{what}: {error}.', f'Look at the health of the cluster: {shell.ceph("status")}'
        ) from error
