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

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from osc_backup_port import errors, model
from osc_backup_port.ceph import commands, faults, headers, new_images, survey

LOG = logging.getLogger(__name__)

#: What our keys begin with in the metadata of an image.
NOTES = 'osc-backup-port.'


OpenAt = Callable[[str], contextlib.AbstractContextManager['Image']]


class Image:
    """Made by :meth:`osc_backup_port.ceph.pool.Pool.open`.

    Opened at a snapshot, all that is read is of that snapshot.  Every method
    raises ``CephError`` when the cluster refuses or is lost.

    :param header: asks without librbd
    :ivar commands: of Ceph, as an operator types them
    """

    def __init__(
        self,
        name: str,
        opened: Any,
        rbd: Any,
        client: Any,
        explainer: faults.Faults,
        open_at: OpenAt,
        shell: commands.Commands,
        header: headers.Headers,
        snapshot: str | None,
        is_writable: bool,
    ) -> None:
        self.name = name
        self.commands = shell
        self._client = client
        self._image = opened
        self._rbd = rbd
        self._open_at = open_at
        self._faults = explainer
        self._headers = header
        self._is_writable = is_writable
        self._survey = survey.Survey(opened, rbd, self._translated, open_at, header, snapshot)

    def end_threads(self) -> None:
        """Wait for what threads of ours still ask the image; before it is closed."""
        self._survey.end_threads()

    def id(self) -> str:
        """Return what its objects are called after, which its name is not."""
        with self._translated():
            found: str = self._image.id()
        return found

    def snapshot_id(self, name: str) -> int:
        """Return the id of a snapshot that was there when the image was opened."""
        with self._translated(f'@{name}'):
            return int(self._image.snap_get_id(name))

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
        # librbd would read anew all that it knows, after each change.
        if self._is_writable:
            with contextlib.suppress(headers.OddAnswer), self._translated():
                return self._headers.snapshots([self._image.id()])[0]
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
                return self._headers.note(self._image.id(), NOTES + key)
        except errors.NotFound:
            return None

    def set_note(self, key: str, value: str | None) -> None:
        """Leave a note of ours on this image, or take it away."""
        if not self._is_writable:
            raise errors.CephError(f'Image {self.name}: is open to read alone.')
        with contextlib.suppress(errors.NotFound), self._translated():
            self._headers.set_note(self._image.id(), NOTES + key, value)

    def create_snapshot(self, name: str) -> None:
        with self._translated(f'@{name}'):
            self._image.create_snap(name)
        LOG.info('Image %s@%s: snapshot made.', self.name, name)

    def rename_snapshot(self, name: str, new_name: str) -> None:
        with self._translated(f'@{name}'):
            self._image.rename_snap(name, new_name)
        LOG.info('Image %s@%s: snapshot renamed to %s.', self.name, name, new_name)

    def remove_snapshot(self, name: str) -> None:
        with self._translated(f'@{name}'):
            self._image.remove_snap(name)
        LOG.info('Image %s@%s: snapshot removed.', self.name, name)

    def roll_back(self, snapshot: str) -> None:
        """Make size and content what they were at *snapshot*."""
        with self._translated(f'@{snapshot}'):
            self._image.rollback_to_snap(snapshot)
        LOG.info('Image %s: rolled back to %s.', self.name, snapshot)

    def resize(self, size: int) -> None:
        with self._translated():
            self._image.resize(size)
        LOG.info('Image %s: has %d bytes now.', self.name, size)

    def flush(self) -> None:
        with self._translated():
            self._image.flush()

    def open_at(self, snapshot: str) -> contextlib.AbstractContextManager['Image']:
        """Open the same image at one of its snapshots."""
        return self._open_at(snapshot)

    def other_writers(self) -> list[str]:
        """Return the addresses of other clients that have it open to write."""
        with self._translated():
            return [
                watcher['addr']
                for watcher in self._image.watchers_list()
                if watcher['id'] != self._client.get_instance_id()
            ]

    def extents(self, from_snapshot: str | None = None) -> Iterator[model.Extent]:
        """Yield where the image has data, or what changed since a snapshot.

        In the order of their offsets.  Zeros may be among what is called data.
        """
        return self._survey.extents(from_snapshot)

    def has_object_map(self) -> bool:
        """Tell whether a map, which can be trusted, says what objects there are."""
        return self._survey.has_object_map()

    def has_invalid_object_map(self) -> bool:
        """Tell whether there should be a map, which librbd knows to be wrong or lost."""
        return self._survey.has_invalid_object_map()

    def used(self, from_snapshot: str | None = None) -> int | None:
        """Return how many bytes it takes, or took more than a snapshot before.

        Counted in whole objects, as ``rbd du`` does: an upper bound that only
        the object map has to be asked for.  None where there is none to trust.
        """
        return self._survey.used(from_snapshot)

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

    def explain(self, what: str, code: int) -> errors.CephError:
        """Return the error for a request to this image that failed.

        :param what: *the read of 3 bytes*, for one
        :param code: errno
        """
        whole = f'Image {self.name}: {what} failed'
        return self._faults.explain(whole, code, os.strerror(abs(code)), self.data_pool())

    def style(self, styles: new_images.Styles) -> new_images.Style:
        """Return how this image was made."""
        with self._translated():
            return styles.of_image(self._image)

    def data_pool(self) -> str | None:
        """Return the pool with its data; None where that is not known.

        For the words of an error, which must not become another one.
        """
        try:
            found: str = self._client.pool_reverse_lookup(self._image.data_pool_id())
        except Exception:
            return None
        return found

    def _translated(self, more: str = '') -> contextlib.AbstractContextManager[None]:
        return self._faults.translated(f'Image {self.name}{more}', self.data_pool)
