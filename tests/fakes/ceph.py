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

"""One pool of a Ceph cluster, in memory, with what can go wrong there.

The modules ``rados`` and ``rbd`` beside this one have the shape of Ceph's own
bindings, as far as the package uses them; what they do is held against the
real ones by ``tests/contract``.
"""

import dataclasses
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from osc_backup_port import model
from osc_backup_port.ceph import commands, pool

BLOCK = 4096
_ZERO = bytes(BLOCK)

#: What was changed or asked for: ``aio_write volume-1``, for one.
Hook = Callable[[str], int]


class Content:
    """What an image or a snapshot holds: blocks of bytes, object by object.

    Blocks are never changed, only replaced: two points in time differ where
    they do not have the very same block, as with librbd, which does not
    compare bytes either.
    """

    def __init__(self, object_size: int) -> None:
        self.object_size = object_size
        self.objects: dict[int, dict[int, bytes]] = {}

    def copy(self) -> 'Content':
        other = Content(self.object_size)
        other.objects = {number: dict(blocks) for number, blocks in self.objects.items()}
        return other

    def read(self, offset: int, length: int) -> bytes:
        result = bytearray(length)
        for number, start, end in _cut(offset, length, self.object_size):
            blocks = self.objects.get(number)
            if not blocks:
                continue
            base = number * self.object_size
            for block, low, high in _cut(base + start, end - start, BLOCK):
                if block in blocks:
                    at = block * BLOCK - offset
                    result[at + low : at + high] = blocks[block][low:high]
        return bytes(result)

    def write(self, offset: int, data: bytes) -> None:
        for block, start, end in _cut(offset, len(data), BLOCK):
            at = block * BLOCK - offset
            blocks = self.objects.setdefault(block * BLOCK // self.object_size, {})
            new = bytearray(blocks.get(block, _ZERO))
            new[start:end] = data[at + start : at + end]
            blocks[block] = bytes(new)

    def zero(self, offset: int, length: int) -> None:
        """Make zeros, as librbd does: remove, truncate or overwrite an object."""
        first, last = offset // self.object_size, (offset + length - 1) // self.object_size
        for number in [n for n in self.objects if first <= n <= last]:
            base = number * self.object_size
            start = max(offset - base, 0)
            end = min(offset + length - base, self.object_size)
            blocks = self.objects[number]
            if start == 0 and end == self.object_size:
                del self.objects[number]
                continue
            for block, low, high in list(_cut(base + start, end - start, BLOCK)):
                if block not in blocks:
                    continue
                if high - low == BLOCK and end == self.object_size:
                    del blocks[block]
                else:
                    new = bytearray(blocks[block])
                    new[low:high] = bytes(high - low)
                    blocks[block] = bytes(new)

    def truncate(self, size: int) -> None:
        end = (max(self.objects, default=0) + 1) * self.object_size
        if end > size:
            self.zero(size, end - size)

    def extents(
        self, old: 'Content | None', whole_object: bool
    ) -> Iterator[tuple[int, int, bool]]:
        """Yield offset, length and whether there is data, in ascending order."""
        before = old.objects if old is not None else {}
        for number in sorted({*self.objects, *before}):
            blocks, base = self.objects.get(number, {}), number * self.object_size
            if whole_object:
                if old is None or blocks != before.get(number, {}):
                    yield base, self.object_size, number in self.objects
            elif old is not None:
                yield from _changed_blocks(before.get(number, {}), blocks)
            elif blocks:
                # From the start of the object to its end, holes or not.
                yield base, (max(blocks) + 1) * BLOCK - base, True

    def dump(self) -> dict[int, bytes]:
        """Return all that is not zero, to be compared."""
        return {
            block: data
            for blocks in self.objects.values()
            for block, data in blocks.items()
            if data != _ZERO
        }


def _changed_blocks(
    old: dict[int, bytes], new: dict[int, bytes]
) -> Iterator[tuple[int, int, bool]]:
    end = max(new, default=-1)
    changed = [
        (block, block <= end)
        for block in sorted({*old, *new})
        if old.get(block) is not new.get(block)
    ]
    for (_, exists), group in itertools.groupby(
        enumerate(changed), lambda pair: (pair[1][0] - pair[0], pair[1][1])
    ):
        run = [block for _, (block, _) in group]
        yield run[0] * BLOCK, len(run) * BLOCK, exists


def _cut(offset: int, length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end inside of each piece of *size* that a range touches."""
    end = offset + length
    while offset < end:
        number, start = divmod(offset, size)
        stop = min(size, start + end - offset)
        yield number, start, stop
        offset += stop - start


@dataclasses.dataclass
class StoredSnapshot:
    id: int
    name: str
    size: int
    content: Content


@dataclasses.dataclass
class StoredImage:
    size: int
    order: int
    features: int
    stripe_unit: int
    stripe_count: int
    content: Content
    #: What the names of its objects are made of.
    id: str = ''
    flags: int = 0
    data_pool: int = 0
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    snapshots: list[StoredSnapshot] = dataclasses.field(default_factory=list)
    #: The clients that have it open to write, by a number of each opening.
    watchers: dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class StoredLock:
    owner: tuple[int, str, str]
    expires: float


@dataclasses.dataclass
class _Operation:
    """An asynchronous request; *data* is not ours, but the caller's to keep."""

    what: str
    data: bytes | None
    carry_out: Callable[[bytes | None, int], None]


def _count_references(operation: _Operation) -> int:
    return sys.getrefcount(operation.data)


#: Of a buffer that nobody but the operation knows.
_UNOWNED = _count_references(_Operation('', bytes(7) + b'x', lambda data, error: None))


class Worker(threading.Thread):
    """Carries requests out, in an order of its own, like the threads of librbd."""

    def __init__(self, hook: Hook, seed: int) -> None:
        super().__init__(daemon=True)
        self._hook = hook
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: list[_Operation] = []
        self._stopped = False
        #: The most requests that were under way at once, and who used a
        #: buffer that its owner had given up.
        self.most = 0
        self.lost_buffers: list[str] = []
        #: Set: nothing is carried out until it is cleared.
        self.held = False

    def submit(self, operation: _Operation) -> None:
        with self._changed:
            self._waiting.append(operation)
            self.most = max(self.most, len(self._waiting))
            self._changed.notify()

    def wait(self, name: str) -> None:
        """Wait for all writes to one image, as librbd does before it changes the image."""
        with self._changed:
            while any(' ' + name in operation.what for operation in self._writes()):
                self._changed.wait(10)

    def _writes(self) -> list[_Operation]:
        return [one for one in self._waiting if not one.what.startswith('aio_read')]

    def let_go(self) -> None:
        with self._changed:
            self.held = False
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self.join()

    def run(self) -> None:
        while (operation := self._next()) is not None:
            self._carry_out(operation)
            del operation

    def _next(self) -> _Operation | None:
        with self._changed:
            while not self._stopped and (self.held or not self._waiting):
                self._changed.wait()
            if self._stopped:
                return None
            if len(self._waiting) < 4:
                # Give them the time to overtake each other.
                self._changed.wait(0.0003)
        return self._waiting[self._random.randrange(len(self._waiting))]

    def _carry_out(self, operation: _Operation) -> None:
        error = self._hook(operation.what)
        if operation.data is not None and _count_references(operation) <= _UNOWNED:
            self.lost_buffers.append(operation.what)
            operation.data = b'\xde\xad' * (len(operation.data) // 2 + 1)
        operation.carry_out(operation.data, error)
        with self._changed:
            self._waiting.remove(operation)
            self._changed.notify_all()


class Cluster:
    """The pool: what is stored in it, who uses it, what fails next.

    :ivar hook: told each operation before it is carried out; returns the
        errno to fail with, or 0
    """

    name = 'backups'

    def __init__(self, seed: int = 0) -> None:
        self.images: dict[str, StoredImage] = {}
        self.objects: dict[str, bytes] = {}
        #: Images in the trash, by their ids: name and image.
        self.trash: dict[str, tuple[str, StoredImage]] = {}
        #: Objects without which an image cannot be opened, or only slowly, that are lost.
        self.lost: set[str] = set()
        #: When an object was changed last, in seconds since 1970; else: just now.
        self.changed: dict[str, float] = {}
        self.locks: dict[str, StoredLock] = {}
        self.attributes: dict[str, dict[str, bytes]] = {}
        #: Addresses of clients that the cluster answers no more.
        self.blocklist: set[str] = set()
        self.mutex = threading.RLock()
        self.hook: Hook = lambda what: 0
        self.free = 1 << 40
        #: The room in other pools, which may hold the data of images.
        self.data_pools: dict[str, int] = {}
        #: Pools in which nobody may do anything.
        self.refused: set[str] = set()
        self.configuration: dict[str, str] = {}
        #: Set: small questions are not answered.
        self.silent = False
        #: What the monitors answer, by command.
        self.monitors: dict[str, object] = {}
        self.worker = Worker(lambda what: self.hook(what), seed)
        self.worker.start()
        self.number_from(4100)

    def number_from(self, first: int) -> None:
        """Give ids from there on: what was copied out of another cluster has its own."""
        self._numbers = itertools.count(first)

    def number(self) -> int:
        return next(self._numbers)

    def connect(self) -> Any:
        """Return a new client's way into the pool."""
        from tests.fakes import rados

        return rados.Ioctx(self, self.number())

    def pool(self, **chosen: Any) -> pool.Pool:
        from tests.fakes import rados, rbd

        ioctx, new = self.connect(), model.NewImages(**chosen)
        client = rados.Client(ioctx)
        shell = commands.Commands(user='cinder-backup', pool=self.name)
        return pool.Pool(self.name, client, ioctx, rados, rbd, shell, new)

    def forget_clients(self) -> None:
        """Let the time pass after which nobody counts as alive who is dead."""
        self.expire_locks()
        for image in self.images.values():
            image.watchers.clear()

    def expire_locks(self) -> None:
        for lock in self.locks.values():
            lock.expires = time.monotonic() - 1

    def dump(self) -> dict[str, Any]:
        """Return all that is stored, to be compared."""
        with self.mutex:
            return {
                'images': {name: self.dump_image(name) for name in self.images},
                'objects': dict(self.objects),
            }

    def dump_image(self, name: str) -> dict[str, Any]:
        image = self.images[name]
        return {
            'size': image.size,
            'order': image.order,
            'features': image.features,
            'metadata': dict(image.metadata),
            'head': image.content.dump(),
            'snapshots': {
                snapshot.name: (snapshot.size, snapshot.content.dump())
                for snapshot in image.snapshots
            },
        }

    def close(self) -> None:
        self.worker.stop()


def copy_image(image: StoredImage) -> StoredImage:
    """Return an image of the same content that changes by itself."""
    return dataclasses.replace(
        image,
        content=image.content.copy(),
        metadata=dict(image.metadata),
        snapshots=[
            dataclasses.replace(snapshot, content=snapshot.content.copy())
            for snapshot in image.snapshots
        ],
        watchers={},
    )
