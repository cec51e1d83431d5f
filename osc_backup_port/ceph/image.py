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

"""An open RBD image."""

import collections
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from osc_backup_port import errors, model, units

#: Extents are asked for in windows of this size, so that the first data flows
#: before a large image was looked through.
_WINDOW = 64 * units.GIB
#: The same where each object has to be asked for its snapshots, so that windows
#: lie side by side: librbd lets go of the interpreter while it asks, and has
#: only some ten questions under way in each of them.
_PRECISE_WINDOW = units.GIB
_SIDE_BY_SIDE = 4
#: What our keys begin with in the metadata of an image.
_NOTES = 'osc-backup-port.'


@contextlib.contextmanager
def translated(what: str, rbd: Any, rados: Any = None) -> Iterator[None]:
    """Turn the errors of librbd and librados about *what* into ours."""
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
            'cinder-backup: ceph auth ls',
        ) from error
    except tuple(failures) as error:
        raise errors.CephError(
            f'{what}: {error}.', 'Look at the health of the cluster: ceph status'
        ) from error


class Image:
    """Made by :meth:`osc_backup_port.ceph.pool.Pool.open`.

    Opened at a snapshot, all that is read is of that snapshot.  Every method
    raises ``CephError`` when the cluster refuses or is lost.
    """

    def __init__(self, name: str, opened: Any, rbd: Any, client_id: int) -> None:
        self.name = name
        self._client_id = client_id
        self._image = opened
        self._rbd = rbd
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    def end_threads(self) -> None:
        """Wait for what threads of ours still ask the image; before it is closed."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def size(self) -> int:
        with self._translated():
            return int(self._image.size())

    def layout(self) -> model.ImageLayout:
        with self._translated():
            return model.ImageLayout(
                size=self._image.size(),
                order=self._image.stat()['order'],
                features=self._image.features(),
                stripe_unit=self._image.stripe_unit(),
                stripe_count=self._image.stripe_count(),
            )

    def snapshots(self) -> list[model.Snapshot]:
        """Return the snapshots, in the order in which they were made."""
        with self._translated():
            found = [
                model.Snapshot(snap['id'], snap['name'], snap['size'])
                for snap in self._image.list_snaps()
            ]
        return sorted(found)

    def note(self, key: str) -> str | None:
        """Return a note of ours on this image, None where there is none."""
        try:
            with self._translated():
                value: str = self._image.metadata_get(_NOTES + key)
        except (KeyError, errors.NotFound):
            return None
        return value

    def set_note(self, key: str, value: str | None) -> None:
        """Leave a note of ours on this image, or take it away."""
        with contextlib.suppress(KeyError, errors.NotFound), self._translated():
            if value is None:
                self._image.metadata_remove(_NOTES + key)
            else:
                self._image.metadata_set(_NOTES + key, value)

    def create_snapshot(self, name: str) -> None:
        with self._translated(f'@{name}'):
            self._image.create_snap(name)

    def remove_snapshot(self, name: str) -> None:
        with self._translated(f'@{name}'):
            self._image.remove_snap(name)

    def roll_back(self, snapshot: str) -> None:
        """Make size and content what they were at *snapshot*."""
        with self._translated(f'@{snapshot}'):
            self._image.rollback_to_snap(snapshot)

    def resize(self, size: int) -> None:
        with self._translated():
            self._image.resize(size)

    def flush(self) -> None:
        with self._translated():
            self._image.flush()

    def other_writers(self) -> list[str]:
        """Return the addresses of other clients that have it open to write."""
        with self._translated():
            return [
                watcher['addr']
                for watcher in self._image.watchers_list()
                if watcher['id'] != self._client_id
            ]

    def extents(self, from_snapshot: str | None = None) -> Iterator[model.Extent]:
        """Yield where the image has data, or what changed since a snapshot.

        From the beginning of time the object map answers, where there is one
        that can be trusted: it names whole objects, so zeros may be among what
        it calls data.  Between snapshots the answer is precise, since whole
        objects were wrongly reported there by several releases of librbd.
        """
        whole_object = from_snapshot is None and self._has_object_map()
        for found in self._windows(from_snapshot, whole_object):
            yield from found

    def _windows(
        self, from_snapshot: str | None, whole_object: bool
    ) -> Iterator[list[model.Extent]]:
        """Yield the extents of each window in order, several of them asked for at once."""
        size, window = self.size(), _WINDOW if whole_object else _PRECISE_WINDOW
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(_SIDE_BY_SIDE)
        ahead: collections.deque[concurrent.futures.Future[list[model.Extent]]]
        ahead = collections.deque()
        try:
            for offset in range(0, size, window):
                length = min(window, size - offset)
                asked = (offset, length, from_snapshot, whole_object)
                ahead.append(self._threads.submit(self._extents, *asked))
                if len(ahead) > _SIDE_BY_SIDE:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def used(self, from_snapshot: str | None = None) -> int | None:
        """Return how many bytes it takes, or took more than a snapshot before.

        Counted in whole objects, as ``rbd du`` does: an upper bound that only
        the object map has to be asked for.  None where there is none to trust.
        """
        if not self._has_object_map():
            return None
        return sum(
            extent.length
            for found in self._windows(from_snapshot, True)
            for extent in found
            if extent.exists
        )

    def _extents(
        self, offset: int, length: int, from_snapshot: str | None, whole_object: bool
    ) -> list[model.Extent]:
        found: list[model.Extent] = []

        def add(at: int, count: int, exists: bool) -> None:
            found.append(model.Extent(at, count, exists))

        with self._translated():
            self._image.diff_iterate(
                offset, length, from_snapshot, add, include_parent=True, whole_object=whole_object
            )
        # Objects go by in order, which is not the order of offsets in an image
        # with striping of its own.
        return sorted(found)

    def _has_object_map(self) -> bool:
        rbd = self._rbd
        wanted = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
        invalid = rbd.RBD_FLAG_OBJECT_MAP_INVALID | rbd.RBD_FLAG_FAST_DIFF_INVALID
        with self._translated():
            has_it = self._image.features() & wanted == wanted
            return bool(has_it and not self._image.flags() & invalid)

    def read(self, offset: int, length: int) -> bytes:
        with self._translated():
            data: bytes = self._image.read(offset, length)
        return data

    def aio_read(self, offset: int, length: int, oncomplete: Callable[[Any, Any], None]) -> None:
        with self._translated():
            self._image.aio_read(offset, length, oncomplete)

    def aio_write(self, data: bytes, offset: int, oncomplete: Callable[[Any], None]) -> None:
        with self._translated():
            self._image.aio_write(data, offset, oncomplete)

    def aio_write_zeroes(
        self, offset: int, length: int, oncomplete: Callable[[Any], None]
    ) -> None:
        with self._translated():
            self._image.aio_write_zeroes(offset, length, oncomplete)

    @contextlib.contextmanager
    def _translated(self, more: str = '') -> Iterator[None]:
        with translated(f'Image {self.name}{more}', self._rbd):
            yield
