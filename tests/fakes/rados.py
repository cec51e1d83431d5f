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

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.fakes import ceph

LOCK_FLAG_MAY_RENEW = 1
LOCK_FLAG_MUST_RENEW = 2


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


class ConnectionShutdown(OSError):
    pass


_BY_ERRNO: dict[int, type[OSError]] = {
    errno.EPERM: PermissionError,
    errno.EACCES: PermissionDeniedError,
    errno.ENOENT: ObjectNotFound,
    errno.EBUSY: ObjectBusy,
    errno.EEXIST: ObjectExists,
    errno.ESHUTDOWN: ConnectionShutdown,
}


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

    def get_addrs(self) -> str:
        return self._client.get_addrs()


class Client:
    """What of a client is asked of it while it is connected."""

    def __init__(self, ioctx: 'Ioctx') -> None:
        self._ioctx = ioctx

    def get_instance_id(self) -> int:
        return self._ioctx.client_id

    def get_addrs(self) -> str:
        return self._ioctx.address

    def conf_get(self, option: str) -> str | None:
        return self._ioctx.cluster.configuration.get(option)

    def conf_set(self, option: str, value: str) -> None:
        self._ioctx.cluster.configuration[option] = value

    def pool_exists(self, name: str) -> bool:
        return name in (self._ioctx.cluster.name, *self._ioctx.cluster.data_pools)

    def pool_reverse_lookup(self, number: int) -> str:
        cluster = self._ioctx.cluster
        return [cluster.name, *cluster.data_pools][number]

    def open_ioctx(self, name: str) -> 'Ioctx':
        if not self.pool_exists(name):
            raise ObjectNotFound(f'error opening pool {name!r}', 2)
        return Ioctx(self._ioctx.cluster, self._ioctx.client_id, name)

    def blocklist_add(self, client_address: str, expire_seconds: int = 0) -> None:
        self._ioctx._begin(f'blocklist_add {client_address}')
        self._ioctx.cluster.blocklist.add(client_address)

    def wait_for_latest_osdmap(self) -> int:
        return 0

    def mon_command(self, command: str, data: bytes) -> tuple[int, bytes, str]:
        cluster = self._ioctx.cluster
        asked = json.loads(command)['prefix']
        if asked != 'df':
            return 0, json.dumps(cluster.monitors.get(asked, {})).encode(), ''
        pools = [
            {'name': name, 'stats': {'max_avail': free, 'quota_bytes': 0, 'stored': 0}}
            for name, free in ((cluster.name, cluster.free), *cluster.data_pools.items())
        ]
        return 0, json.dumps({'pools': pools}).encode(), ''


class Completion:
    def __init__(self, value: int) -> None:
        self._value = value

    def get_return_value(self) -> int:
        return self._value


class WriteOpCtx:
    """Steps that are carried out together."""

    def __init__(self) -> None:
        self.steps: list[tuple[Any, ...]] = []

    def __enter__(self) -> 'WriteOpCtx':
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def execute(self, cls: str, method: str, data: bytes) -> None:
        self.steps.append(('execute', cls, method, data))

    def set_xattr(self, xattr_name: str, xattr_value: bytes) -> None:
        self.steps.append(('set_xattr', xattr_name, xattr_value))

    def remove(self) -> None:
        self.steps.append(('remove',))


class Object(NamedTuple):
    key: str


class Ioctx:
    def __init__(self, cluster: 'ceph.Cluster', client_id: int, pool: str | None = None) -> None:
        self.cluster = cluster
        self.client_id = client_id
        self.pool = pool or cluster.name
        self.address = f'10.0.0.1:0/{client_id}'
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
        from tests.fakes import classes

        assert cls == 'rbd'
        self._begin(f'execute {key}')
        with self.cluster.mutex:
            if key not in self._parts():
                raise ObjectNotFound(f'Ioctx.read: failed to read {key}', 2)
            return 0, classes.read(self.cluster, key, method, data)

    def aio_execute(
        self,
        object_name: str,
        cls: str,
        method: str,
        data: bytes,
        length: int = 8192,
        oncomplete: Callable[..., None] | None = None,
    ) -> None:
        def carry_out() -> bytes:
            _code, answer = self.execute(object_name, cls, method, data, length)
            return answer

        assert oncomplete is not None
        self._complete(oncomplete, carry_out)

    def _complete(self, oncomplete: Callable[..., None], carry_out: Callable[[], object]) -> None:
        try:
            answer = carry_out()
        except Error as error:
            oncomplete(Completion(-(error.errno or errno.EIO)), None)
        else:
            oncomplete(Completion(0), answer)

    def operate_write_op(self, write_op: 'WriteOpCtx', oid: str) -> None:
        """Carry out all steps; each asserts what it needs before the first changes anything."""
        self._begin(f'operate {oid} {" ".join(step[0] for step in write_op.steps)}')
        with self.cluster.mutex:
            for name, *arguments in write_op.steps:
                self._carry_out(oid, name, arguments)

    def _carry_out(self, oid: str, name: str, arguments: list[Any]) -> None:
        from tests.fakes import classes

        if name == 'set_xattr':
            self.cluster.attributes.setdefault(oid, {})[arguments[0]] = arguments[1]
        elif name == 'remove':
            self._remove(oid)
        elif name == 'execute' and arguments[0] == 'lock':
            cookie, description, duration, flags = classes.lock(arguments[2])
            self._lock_exclusive(oid, 'osc_backup_port', cookie, description, duration, flags)
        else:
            classes.write(self.cluster, oid, arguments[1], arguments[2])

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
            self._remove(key)
        return True

    def _remove(self, key: str) -> None:
        if key in self._parts():
            self.cluster.lost.add(key)
            return
        if key not in self.cluster.objects:
            raise ObjectNotFound(f'Failed to remove {key!r}', 2)
        del self.cluster.objects[key]
        self.cluster.locks.pop(key, None)
        self.cluster.attributes.pop(key, None)

    def set_xattr(self, key: str, xattr_name: str, xattr_value: bytes) -> bool:
        self._begin(f'set_xattr {key}')
        with self.cluster.mutex:
            self.cluster.objects.setdefault(key, b'')
            self.cluster.attributes.setdefault(key, {})[xattr_name] = xattr_value
        return True

    def get_xattrs(self, oid: str) -> Iterator[tuple[str, bytes]]:
        self._begin(f'get_xattrs {oid}')
        with self.cluster.mutex:
            if oid not in self._names():
                raise ObjectNotFound(f'Failed to get xattrs of {oid!r}', 2)
            return iter(list(self.cluster.attributes.get(oid, {}).items()))

    def rm_xattr(self, key: str, xattr_name: str) -> bool:
        self._begin(f'rm_xattr {key}')
        with self.cluster.mutex:
            if key not in self._names():
                raise ObjectNotFound(f'Failed to delete xattr of {key!r}', 2)
            self.cluster.attributes.get(key, {}).pop(xattr_name, None)
        return True

    def aio_stat(self, object_name: str, oncomplete: Callable[..., None]) -> None:
        if self.cluster.silent:
            return
        try:
            told = self.stat(object_name)
        except Error as error:
            oncomplete(Completion(-(error.errno or errno.EIO)), None, None)
        else:
            oncomplete(Completion(0), *told)

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
        with self.cluster.mutex:
            self._lock_exclusive(key, name, cookie, desc, duration, flags)

    def _lock_exclusive(
        self, key: str, name: str, cookie: str, desc: str, duration: int | None, flags: int
    ) -> None:
        owner = (self.client_id, name, cookie)
        with self.cluster.mutex:
            held = self._living_lock(key)
            if held is not None and held.owner != owner:
                raise ObjectBusy(f'Ioctx.rados_lock_exclusive({name}): failed to lock', 16)
            if held is None and flags & LOCK_FLAG_MUST_RENEW:
                raise ObjectNotFound(f'Ioctx.rados_lock_exclusive({name}): failed to lock', 2)
            if held is not None and not flags:
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

    def set_osdmap_full_try(self) -> None:
        """What follows is refused where there is no room; here nothing ever waits."""

    def close(self) -> None:
        self._is_open = False

    def _begin(self, what: str) -> None:
        if not self._is_open:
            raise Error('The pool is closed')
        number = self.cluster.hook(what)
        if self.pool in self.cluster.refused:
            number = errno.EPERM
        if self.address in self.cluster.blocklist:
            number = errno.ESHUTDOWN
        if number:
            raise _BY_ERRNO.get(number, OSError)(f'{what}: {os.strerror(number)}', number)
