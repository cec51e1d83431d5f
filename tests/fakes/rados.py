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

"""The part of ``rados`` that the package uses, over a cluster in memory."""

import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.fakes import ceph

LOCK_FLAG_MAY_RENEW = 1


class Error(Exception):
    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(f'[errno {errno}] {message}' if errno else message)
        self.errno = errno


class OSError(Error):  # noqa: A001
    pass


class ObjectNotFound(OSError):
    pass


class ObjectExists(OSError):
    pass


class ObjectBusy(OSError):
    pass


class PermissionError(OSError):  # noqa: A001
    pass


class PermissionDeniedError(OSError):
    pass


class Rados:
    """A client; :attr:`clusters` says which pools there are and what connecting does."""

    #: By the path of the configuration file.
    clusters: dict[str, dict[str, 'ceph.Cluster']]
    refusal: Error | None = None
    #: What was asked for, option by option, and whether it is closed.
    made: list['Rados']
    configuration: dict[str, str]

    def __init__(self, conffile: str, rados_id: str) -> None:
        if conffile not in self.clusters:
            raise ObjectNotFound(f'error calling conf_read_file: {conffile}', 2)
        self.conffile = conffile
        self.user = rados_id
        self.options: dict[str, str] = {}
        self.is_open = False
        self.made.append(self)
        self._client: Client

    def conf_get(self, option: str) -> str | None:
        return self.configuration.get(option)

    def conf_set(self, option: str, value: str) -> None:
        self.options[option] = value

    def connect(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.is_open = True

    def shutdown(self) -> None:
        self.is_open = False

    def list_pools(self) -> list[str]:
        return list(self.clusters[self.conffile])

    def open_ioctx(self, name: str) -> 'Ioctx':
        if name not in self.clusters[self.conffile]:
            raise ObjectNotFound(f'error opening pool {name!r}', 2)
        ioctx: Ioctx = self.clusters[self.conffile][name].connect()
        self._client = Client(ioctx)
        return ioctx

    def get_instance_id(self) -> int:
        return self._client.get_instance_id()

    def mon_command(self, command: str, data: bytes) -> tuple[int, bytes, str]:
        return self._client.mon_command(command, data)


class Client:
    """What of a client is asked of it while it is connected."""

    def __init__(self, ioctx: 'Ioctx') -> None:
        self._ioctx = ioctx

    def get_instance_id(self) -> int:
        return self._ioctx.client_id

    def mon_command(self, command: str, data: bytes) -> tuple[int, bytes, str]:
        assert json.loads(command)['prefix'] == 'df'
        cluster = self._ioctx.cluster
        stats = {'max_avail': cluster.free, 'quota_bytes': 0, 'stored': 0}
        return 0, json.dumps({'pools': [{'name': cluster.name, 'stats': stats}]}).encode(), ''


class Object(NamedTuple):
    key: str


class Ioctx:
    def __init__(self, cluster: 'ceph.Cluster', client_id: int) -> None:
        self.cluster = cluster
        self.client_id = client_id
        self._is_open = True

    def read(self, key: str, length: int = 8192, offset: int = 0) -> bytes:
        self._begin(f'read_object {key}')
        with self.cluster.mutex:
            if key not in self.cluster.objects:
                raise ObjectNotFound(f'Failed to read {key}', 2)
            return self.cluster.objects[key][offset : offset + length]

    def stat(self, key: str) -> tuple[int, time.struct_time]:
        self._begin(f'stat {key}')
        with self.cluster.mutex:
            if key not in self._names():
                raise ObjectNotFound(f'Failed to stat {key!r}', 2)
            changed = self.cluster.changed.get(key, time.time())
            return len(self.cluster.objects.get(key, b'')), time.localtime(changed)

    def _names(self) -> list[str]:
        return [*self.cluster.objects, *self._parts()]

    def write_full(self, key: str, data: bytes) -> int:
        self._begin(f'write_full {key}')
        with self.cluster.mutex:
            if key in self._parts():
                self.cluster.lost.add(key)
            else:
                self.cluster.objects[key] = data
        return 0

    def execute(
        self, key: str, cls: str, method: str, data: bytes, length: int = 8192
    ) -> tuple[int, bytes]:
        assert (cls, method) == ('rbd', 'object_map_load')
        self._begin(f'execute {key}')
        with self.cluster.mutex:
            if key not in self._parts():
                raise ObjectNotFound(f'Ioctx.read: failed to read {key}', 2)
        return 0, b''

    def _parts(self) -> list[str]:
        """Return the objects that images are made of, less their data."""
        found = []
        for name, stored in self.cluster.images.items():
            map_ = f'rbd_object_map.{stored.id}'
            found += [f'rbd_id.{name}', f'rbd_header.{stored.id}', map_]
            found += [f'{map_}.{snapshot.id:016x}' for snapshot in stored.snapshots]
        return [name for name in found if name not in self.cluster.lost]

    def remove_object(self, key: str) -> bool:
        self._begin(f'remove_object {key}')
        with self.cluster.mutex:
            if key in self._parts():
                self.cluster.lost.add(key)
                return True
            if key not in self.cluster.objects:
                raise ObjectNotFound(f'Failed to remove {key!r}', 2)
            del self.cluster.objects[key]
            self.cluster.locks.pop(key, None)
        return True

    def list_objects(self) -> Iterator[Object]:
        self._begin('list_objects')
        with self.cluster.mutex:
            return iter([Object(name) for name in self._names()])

    def lock_exclusive(
        self,
        key: str,
        name: str,
        cookie: str,
        desc: str = '',
        duration: int | None = None,
        flags: int = 0,
    ) -> None:
        self._begin(f'lock_exclusive {key}')
        owner = (self.client_id, name, cookie)
        with self.cluster.mutex:
            held = self._living_lock(key)
            if held is not None and held.owner != owner:
                raise ObjectBusy(f'Ioctx.rados_lock_exclusive({name}): failed to lock', 16)
            if held is not None and not flags & LOCK_FLAG_MAY_RENEW:
                raise ObjectExists(f'Ioctx.rados_lock_exclusive({name}): failed to lock', 17)
            self._lock(key, owner, duration)

    def _lock(self, key: str, owner: tuple[int, str, str], duration: int | None) -> None:
        from tests.fakes import ceph

        expires = time.monotonic() + duration if duration else float('inf')
        self.cluster.locks[key] = ceph.StoredLock(owner, expires)
        self.cluster.objects.setdefault(key, b'')

    def _living_lock(self, key: str) -> 'ceph.StoredLock | None':
        held = self.cluster.locks.get(key)
        return held if held is not None and held.expires > time.monotonic() else None

    def unlock(self, key: str, name: str, cookie: str) -> None:
        self._begin(f'unlock {key}')
        with self.cluster.mutex:
            held = self._living_lock(key)
            if held is None or held.owner != (self.client_id, name, cookie):
                raise ObjectNotFound(f'Ioctx.rados_unlock({name}): failed to unlock', 2)
            del self.cluster.locks[key]

    def close(self) -> None:
        self._is_open = False

    def _begin(self, what: str) -> None:
        if not self._is_open:
            raise Error('The pool is closed')
        if errno := self.cluster.hook(what):
            raise OSError(f'{what}: {os.strerror(errno)}', errno)
