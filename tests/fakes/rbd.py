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

"""The part of ``rbd`` that the package uses, over a cluster in memory."""

import errno
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

from tests.fakes import ceph, rados

RBD_FEATURE_LAYERING = 1
RBD_FEATURE_STRIPINGV2 = 2
RBD_FEATURE_EXCLUSIVE_LOCK = 4
RBD_FEATURE_OBJECT_MAP = 8
RBD_FEATURE_FAST_DIFF = 16
RBD_FEATURE_JOURNALING = 64
RBD_FLAG_OBJECT_MAP_INVALID = 1
RBD_FLAG_FAST_DIFF_INVALID = 2


class Error(Exception):
    pass


class OSError(Error):  # noqa: A001
    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(f'[errno {errno}] {message}')
        self.errno = errno


class ImageNotFound(OSError):
    pass


class ImageExists(OSError):
    pass


class ImageBusy(OSError):
    pass


class ImageHasSnapshots(OSError):
    pass


class InvalidArgument(OSError):
    pass


class PermissionError(OSError):  # noqa: A001
    pass


class ReadOnlyImage(OSError):
    pass


class IOError(OSError):  # noqa: A001
    pass


class ConnectionShutdown(OSError):
    pass


_BY_ERRNO = {
    errno.EPERM: PermissionError,
    errno.ENOENT: ImageNotFound,
    errno.EIO: IOError,
    errno.EEXIST: ImageExists,
    errno.EINVAL: InvalidArgument,
    errno.EROFS: ReadOnlyImage,
    errno.EBUSY: ImageBusy,
    errno.ENOTEMPTY: ImageHasSnapshots,
    errno.ESHUTDOWN: ConnectionShutdown,
}


def _error(number: int, what: str) -> OSError:
    return _BY_ERRNO.get(number, OSError)(f'{what}: {os.strerror(number)}', number)


class RBD:
    def list(self, ioctx: rados.Ioctx) -> list[str]:
        _begin(ioctx, 'list')
        with ioctx.cluster.mutex:
            return list(ioctx.cluster.images)

    def create(
        self,
        ioctx: rados.Ioctx,
        name: str,
        size: int,
        order: int | None = None,
        old_format: bool = False,
        features: int | None = None,
        stripe_unit: int = 0,
        stripe_count: int = 0,
        data_pool: str | None = None,
    ) -> None:
        what = _begin(ioctx, f'create {name}')
        order = order or 22
        with ioctx.cluster.mutex:
            if name in ioctx.cluster.images:
                raise _error(errno.EEXIST, what)
            if not 12 <= order <= 25 or old_format:
                raise _error(errno.EINVAL, what)
            ioctx.cluster.lost.discard(f'rbd_id.{name}')
            ioctx.cluster.images[name] = ceph.StoredImage(
                size,
                order,
                61 if features is None else features,
                stripe_unit or 1 << order,
                stripe_count or 1,
                ceph.Content(1 << order),
                f'{ioctx.cluster.number():x}',
                data_pool=[ioctx.cluster.name, *ioctx.cluster.data_pools].index(
                    data_pool or ioctx.cluster.name
                ),
            )

    def rename(self, ioctx: rados.Ioctx, src: str, dest: str) -> None:
        what = _begin(ioctx, f'rename {src} {dest}')
        images = ioctx.cluster.images
        with ioctx.cluster.mutex:
            if src not in images:
                raise _error(errno.ENOENT, what)
            if dest in images:
                raise _error(errno.EEXIST, what)
            images[dest] = images.pop(src)

    def remove(self, ioctx: rados.Ioctx, name: str) -> None:
        what = _begin(ioctx, f'remove {name}')
        images = ioctx.cluster.images
        with ioctx.cluster.mutex:
            if name not in images:
                raise _error(errno.ENOENT, what)
            if images[name].snapshots:
                raise _error(errno.ENOTEMPTY, what)
            if images[name].watchers:
                raise _error(errno.EBUSY, what)
            del images[name]

    def trash_move(self, ioctx: rados.Ioctx, name: str, delay: int = 0) -> None:
        what = _begin(ioctx, f'trash_move {name}')
        images = ioctx.cluster.images
        with ioctx.cluster.mutex:
            if name not in images:
                raise _error(errno.ENOENT, what)
            stored = images.pop(name)
            ioctx.cluster.trash[stored.id] = name, stored

    def trash_list(self, ioctx: rados.Ioctx) -> Iterator[dict[str, Any]]:
        _begin(ioctx, 'trash_list')
        with ioctx.cluster.mutex:
            trash = ioctx.cluster.trash
            return iter([{'id': id_, 'name': name} for id_, (name, _) in trash.items()])

    def trash_restore(self, ioctx: rados.Ioctx, image_id: str, name: str) -> None:
        what = _begin(ioctx, f'trash_restore {image_id}')
        with ioctx.cluster.mutex:
            if image_id not in ioctx.cluster.trash:
                raise _error(errno.ENOENT, what)
            old_name, stored = ioctx.cluster.trash.pop(image_id)
            ioctx.cluster.images[name or old_name] = stored


def _begin(ioctx: rados.Ioctx, what: str) -> str:
    number = ioctx.cluster.hook(what)
    if ioctx.address in ioctx.cluster.blocklist and not what.startswith('close'):
        number = errno.ESHUTDOWN
    if number:
        raise _error(number, what)
    return what


class Completion:
    def __init__(self, value: int) -> None:
        self._value = value

    def get_return_value(self) -> int:
        return self._value


class Image:
    def __init__(
        self,
        ioctx: rados.Ioctx,
        name: str,
        snapshot: str | None = None,
        read_only: bool = False,
    ) -> None:
        self._ioctx = ioctx
        self._cluster = ioctx.cluster
        self.name = name
        what = _begin(ioctx, f'open {name}')
        with self._cluster.mutex:
            if name not in self._cluster.images:
                raise _error(errno.ENOENT, what)
            self._stored = self._cluster.images[name]
            header = {f'rbd_id.{name}', f'rbd_header.{self._stored.id}'}
            if header & self._cluster.lost:
                raise _error(errno.ENOENT, what)
            self._snapshot = self._find(snapshot) if snapshot is not None else None
            if self._has_lost_map():
                raise _error(errno.ENOENT, what)
            self._is_read_only = read_only or snapshot is not None
            self._handle = self._cluster.number()
            if not read_only:
                self._stored.watchers[self._handle] = ioctx.client_id
        self._is_open = True

    def __enter__(self) -> 'Image':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._cluster.mutex:
            self._stored.watchers.pop(self._handle, None)
        self._is_open = False
        self._begin('close', closed=True)

    def size(self) -> int:
        return self._snapshot.size if self._snapshot else self._stored.size

    def stat(self) -> dict[str, Any]:
        return {'size': self.size(), 'order': self._stored.order}

    def features(self) -> int:
        return self._stored.features

    def id(self) -> str:
        return self._stored.id

    def data_pool_id(self) -> int:
        return self._stored.data_pool

    def flags(self) -> int:
        if self._has_lost_map():
            return RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID
        return self._stored.flags

    def _has_lost_map(self) -> bool:
        """Nobody looks for the map of the image as it is now before it is written to."""
        if self._snapshot is None or not self._stored.features & RBD_FEATURE_OBJECT_MAP:
            return False
        map_ = f'rbd_object_map.{self._stored.id}.{self._snapshot.id:016x}'
        return map_ in self._cluster.lost

    def overlap(self) -> int:
        return 0

    def stripe_unit(self) -> int:
        return self._stored.stripe_unit

    def stripe_count(self) -> int:
        return self._stored.stripe_count

    def list_snaps(self) -> Iterator[dict[str, Any]]:
        self._begin('list_snaps')
        with self._cluster.mutex:
            found = [
                {'id': snap.id, 'name': snap.name, 'size': snap.size, 'namespace': 0}
                for snap in self._stored.snapshots
            ]
        # librbd gives no promise about their order.
        return reversed(found)

    def snap_get_id(self, snap_name: str) -> int:
        self._begin('snap_get_id')
        with self._cluster.mutex:
            # Who only reads is not told that it was removed.
            if self._snapshot is not None and self._snapshot.name == snap_name:
                return self._snapshot.id
            return self._find(snap_name).id

    def set_snap(self, name: str | None) -> None:
        self._begin('set_snap')
        with self._cluster.mutex:
            self._snapshot = self._find(name) if name is not None else None
            self._is_read_only = self._is_read_only or name is not None

    def create_snap(self, name: str) -> None:
        what = self._begin('create_snap', writes=True)
        self._cluster.worker.wait(self.name)
        stored = self._stored
        with self._cluster.mutex:
            if any(snap.name == name for snap in stored.snapshots):
                raise _error(errno.EEXIST, what)
            stored.snapshots.append(
                ceph.StoredSnapshot(
                    self._cluster.number(), name, stored.size, stored.content.copy()
                )
            )

    def rename_snap(self, srcname: str, dstname: str) -> None:
        what = self._begin('rename_snap', writes=True)
        with self._cluster.mutex:
            snapshot = self._find(srcname)
            if any(snap.name == dstname for snap in self._stored.snapshots):
                raise _error(errno.EEXIST, what)
            snapshot.name = dstname

    def remove_snap(self, name: str) -> None:
        self._begin('remove_snap', writes=True)
        with self._cluster.mutex:
            self._stored.snapshots.remove(self._find(name))

    def rollback_to_snap(self, name: str) -> None:
        self._begin('rollback_to_snap', writes=True)
        self._cluster.worker.wait(self.name)
        with self._cluster.mutex:
            snapshot = self._find(name)
            self._stored.size = snapshot.size
            self._stored.content = snapshot.content.copy()

    def resize(self, size: int) -> None:
        self._begin('resize', writes=True)
        self._cluster.worker.wait(self.name)
        with self._cluster.mutex:
            self._stored.content.truncate(size)
            self._stored.size = size

    def flush(self) -> None:
        self._begin('flush')
        self._cluster.worker.wait(self.name)

    def diff_iterate(
        self,
        offset: int,
        length: int,
        from_snapshot: str | None,
        iterate_cb: Callable[[int, int, bool], None],
        include_parent: bool = True,
        whole_object: bool = False,
    ) -> None:
        what = self._begin('diff_iterate')
        # Nobody may ask a map that says of itself that it is wrong.
        assert not (whole_object and self.flags()), 'object map used, though invalid'
        with self._cluster.mutex:
            old = None
            if from_snapshot is not None:
                start = self._find(from_snapshot)
                if self._snapshot and start.id > self._snapshot.id:
                    raise _error(errno.EINVAL, what)
                old = start.content
            end = min(offset + length, self.size())
            found = list(self._content().extents(old, whole_object))
        for at, count, exists in found:
            low, high = max(at, offset), min(at + count, end)
            if low < high:
                iterate_cb(low, high - low, exists)

    def read(self, offset: int, length: int) -> bytes:
        what = self._begin('read')
        with self._cluster.mutex:
            if offset >= self.size() and length:
                raise _error(errno.EINVAL, what)
            return self._content().read(offset, min(length, self.size() - offset))

    def aio_read(
        self, offset: int, length: int, oncomplete: Callable[[Completion, bytes | None], None]
    ) -> Completion:
        def carry_out(data: bytes | None, number: int) -> None:
            if not number and offset >= self.size():
                number = errno.EINVAL
            if number:
                oncomplete(Completion(-number), None)
                return
            with self._cluster.mutex:
                found = self._content().read(offset, min(length, self.size() - offset))
            oncomplete(Completion(len(found)), found)

        return self._submit('aio_read', None, carry_out)

    def aio_write(
        self, data: bytes, offset: int, oncomplete: Callable[[Completion], None]
    ) -> Completion:
        def carry_out(kept: bytes | None, number: int) -> None:
            if not number and kept:
                # What goes over the end of the image is left out, without a word.
                with self._cluster.mutex:
                    if offset >= self.size():
                        number = errno.EINVAL
                    else:
                        self._content().write(offset, kept[: min(length, self.size() - offset)])
            oncomplete(Completion(-number))

        length = len(data)
        return self._submit('aio_write', data, carry_out)

    def aio_write_zeroes(
        self, offset: int, length: int, oncomplete: Callable[[Completion], None]
    ) -> Completion:
        def carry_out(data: bytes | None, number: int) -> None:
            if not number:
                with self._cluster.mutex:
                    if offset >= self.size():
                        number = errno.EINVAL
                    else:
                        self._content().zero(offset, min(length, self.size() - offset))
            oncomplete(Completion(-number))

        return self._submit('aio_write_zeroes', None, carry_out)

    def metadata_get(self, key: str) -> str:
        self._begin('metadata_get')
        return self._stored.metadata[key]

    def metadata_set(self, key: str, value: str) -> None:
        self._begin('metadata_set', writes=True)
        self._stored.metadata[key] = value

    def metadata_remove(self, key: str) -> None:
        self._begin('metadata_remove', writes=True)
        del self._stored.metadata[key]

    def watchers_list(self) -> Iterator[dict[str, Any]]:
        self._begin('watchers_list')
        with self._cluster.mutex:
            return iter(
                [
                    {'addr': f'10.0.0.1:0/{client_id}', 'id': client_id, 'cookie': handle}
                    for handle, client_id in self._stored.watchers.items()
                ]
            )

    def _submit(
        self, what: str, data: bytes | None, carry_out: Callable[[bytes | None, int], None]
    ) -> Completion:
        self._check(writes=False)
        if what != 'aio_read' and self._is_read_only:
            refused = carry_out

            def carry_out(data: bytes | None, number: int) -> None:
                refused(data, errno.EROFS)

        carried_out = carry_out

        def unless_shut_out(data: bytes | None, number: int) -> None:
            if self._ioctx.address in self._cluster.blocklist:
                number = errno.ESHUTDOWN
            carried_out(data, number)

        operation = ceph._Operation(f'{what} {self.name}', data, unless_shut_out)
        self._cluster.worker.submit(operation)
        return Completion(0)

    def _content(self) -> ceph.Content:
        return self._snapshot.content if self._snapshot else self._stored.content

    def _find(self, name: str) -> ceph.StoredSnapshot:
        for snapshot in self._stored.snapshots:
            if snapshot.name == name:
                return snapshot
        raise _error(errno.ENOENT, f'{self.name}@{name}')

    def _check(self, writes: bool) -> None:
        if not self._is_open:
            raise _error(errno.EINVAL, f'{self.name} is closed')
        if writes and self._is_read_only:
            raise _error(errno.EROFS, self.name)

    def _begin(self, what: str, writes: bool = False, closed: bool = False) -> str:
        if not closed:
            self._check(writes)
        return _begin(self._ioctx, f'{what} {self.name}')
