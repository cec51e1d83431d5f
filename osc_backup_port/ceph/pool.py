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

"""A pool with images and objects: all that is changed there goes through here."""

import contextlib
import errno
import functools
import json
import logging
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from osc_backup_port import errors, model
from osc_backup_port.ceph import commands, faults, handles, headers, image, lease, new_images

LOG = logging.getLogger(__name__)

#: Seconds: osd_client_watch_timeout is 30.
_WATCH_TIMEOUT = 40
#: Two bits for each object of an image: enough for 1 PiB.
_LARGEST_MAP = 64 << 20
#: What the cluster says of an object map that it cannot decode.
_DAMAGED = (errno.EINVAL, errno.EIO, errno.EBADMSG)
_AS_THE_OTHERS = model.NewImages()


class Trashed(NamedTuple):
    """An image in the trash of RBD.

    :param name: what it was called, and will be called again
    """

    id: str
    name: str


class Pool:
    """Images and objects by name.

    Made by :func:`osc_backup_port.ceph.cluster.open_pool`.  Every method
    raises ``CephError`` when the cluster refuses or is lost.

    :ivar commands: of Ceph, as an operator types them
    """

    def __init__(
        self,
        name: str,
        client: Any,
        ioctx: Any,
        rados: Any,
        rbd: Any,
        shell: commands.Commands | None = None,
        chosen: model.NewImages = _AS_THE_OTHERS,
    ) -> None:
        self.name = name
        self.commands = shell or commands.Commands(pool=name)
        self._client = client
        self._ioctx = ioctx
        self._rados = rados
        self._rbd = rbd
        self._handles = handles.Handles(ioctx, rbd)
        self._headers = headers.Headers(ioctx, rados)
        self._leases: set[lease.Lease] = set()
        self._faults = faults.Faults(rados, rbd, client, name, self.commands)
        self._styles = new_images.Styles(rbd, client, name, chosen, self.commands)

    def close(self) -> None:
        """Close what is open of it; nothing more may be asked."""
        with self._translated('its images'):
            self._handles.close()

    def ask(self) -> threading.Event:
        """Ask a small question; the event is set by any answer.

        May be called at any time, by any thread.
        """
        answered = threading.Event()
        try:
            self._ioctx.aio_stat('rbd_directory', lambda *_answer: answered.set())
        except self._rados.Error:
            # It is being closed.
            answered.set()
        return answered

    def free(self, data_pool: str | None = None) -> int | None:
        """Return for how many bytes of data a pool has room; None: not known.

        Copies and the quota of the pool are taken account of.

        :param data_pool: another pool of the cluster
        """
        wanted = data_pool or self.name
        command = {'prefix': 'df', 'detail': 'detail', 'format': 'json'}
        try:
            code, answer, _text = self._client.mon_command(json.dumps(command), b'')
            if code:
                return None
            [pool] = [one for one in json.loads(answer)['pools'] if one['name'] == wanted]
            told = pool['stats']
            room = int(told['max_avail'])
            if told.get('quota_bytes'):
                room = min(room, max(int(told['quota_bytes']) - int(told['stored']), 0))
        except (self._rados.Error, ValueError, TypeError, KeyError):
            return None
        return room

    def data_pool_of(self, image_name: str) -> str:
        """Return the pool that the data of an image goes to, there or yet to be made."""
        with contextlib.suppress(errors.NotFound, errors.DamagedImage):
            [style] = self._styles_of([image_name])
            return style.data_pool
        return self._style.data_pool

    def check_data_pool(self, data_pool: str) -> None:
        """:raises CephError: the user may not write there"""
        if data_pool != self.name:
            self._faults.check_may_use(data_pool)

    @functools.cached_property
    def _style(self) -> new_images.Style:
        """How images are made here; looked up once."""
        names = new_images.neighbours(self.images())
        found: list[new_images.Style] = []
        # One that cannot be read is no example; a cluster that is lost is so for the next.
        try:
            found = self._styles_of(names)
        except (errors.NotFound, errors.CephError):
            for name in names:
                with contextlib.suppress(errors.NotFound, errors.CephError):
                    found += self._styles_of([name])
        return self._styles.choose(found)

    def _styles_of(self, names: Sequence[str]) -> list[new_images.Style]:
        """Return how images were made.

        :raises NotFound: there is no such image
        """
        what = f'image {" and ".join(names)}'
        try:
            with self._translated(what):
                ids = [one.id for one in self._headers.find(names) if one.id is not None]
                if len(ids) == len(names):
                    return [self._styles.of(made) for made in self._headers.makings(ids)]
        except headers.OddAnswer:
            LOG.debug('Pool %s, %s: is opened, to see how it was made', self.name, what)
        styles = []
        for name in names:
            with self.open(name) as opened:
                styles.append(opened.style(self._styles))
        return styles

    def images(self) -> list[str]:
        """Return the names of all images."""
        with self._translated('the list of images'):
            return sorted(self._rbd.RBD().list(self._ioctx))

    def has_image(self, name: str) -> bool:
        """Tell whether there is an image of that name, without opening it."""
        with self._translated(f'image {name}'):
            # By the first librbd finds an image, by the second one of format 1.
            return any(self._headers.are_there([f'rbd_id.{name}', f'{name}.rbd']))

    def snapshots(self, name: str) -> list[model.Snapshot] | None:
        """Return the snapshots of an image in the order of their making; None: no such image.

        The image is not opened, which would take five times as long.

        :raises DamagedImage: a part of it is missing
        """
        return self.snapshots_of([name])[name]

    def snapshots_of(self, names: Sequence[str]) -> dict[str, list[model.Snapshot] | None]:
        """Return the same of several images, which are asked side by side."""
        what = f'image {" and ".join(names)}'
        try:
            with self._translated(what):
                found = dict(zip(names, self._headers.find(names), strict=True))
                ids = {name: one.id for name, one in found.items() if one.id is not None}
                listed = self._headers.snapshots(list(ids.values()))
        except (errors.NotFound, headers.OddAnswer):
            # A part is missing, or it went between two questions: librbd tells them apart.
            return {name: self._snapshots_by_opening(name) for name in names}
        known = dict(zip(ids, listed, strict=True))
        return {
            name: self._snapshots_by_opening(name) if one.is_old else known.get(name)
            for name, one in found.items()
        }

    def _snapshots_by_opening(self, name: str) -> list[model.Snapshot] | None:
        if self.has_image(name):
            with contextlib.suppress(errors.NotFound), self.open(name) as opened:
                return opened.snapshots()
        return None

    def note(self, name: str, key: str) -> str | None:
        """Return a note of ours on an image, without opening it; None: there is none."""
        with self._translated(f'image {name}'):
            [found] = self._headers.find([name])
            return self._headers.note(found.id, image.NOTES + key) if found.id else None

    @contextlib.contextmanager
    def open(
        self, name: str, snapshot: str | None = None, writable: bool = False
    ) -> Iterator[image.Image]:
        """Open an image until the block ends.

        :raises NotFound: there is no such image, or no such snapshot on it
        :raises DamagedImage: a part of it is missing
        """
        handle = self._handles.take_writable(name) if writable else None
        if not writable and snapshot is not None:
            with self._translated(f'image {name}@{snapshot}'):
                handle = self._handles.take(name, snapshot)
        # Trying to open what is not there can kill the process: librbd 16.2.15
        # frees such an image while a thread of its own still works on it.
        if handle is None and not self.has_image(name):
            raise errors.NotFound(f'Pool {self.name}, image {name}: not there.')
        ours = None
        try:
            if handle is None:
                with self._opening(name):
                    handle = self._handles.open(name, writable)
                if snapshot is not None:
                    # By itself: librbd 16 opens nothing at a snapshot whose object map is lost.
                    with self._translated(f'image {name}@{snapshot}'):
                        handle.go_to(snapshot)
            open_at = functools.partial(self.open, name)
            ours = image.Image(
                name,
                handle.image,
                self._rbd,
                self._client,
                self._faults,
                open_at,
                self.commands,
                self._headers,
                snapshot,
                writable,
            )
            yield ours
            if not writable:
                self._check_still_there(ours, snapshot)
        except BaseException:
            # A signal may come as soon as it is open, and an image that is
            # open to write cannot be removed.  The first error wins.
            with contextlib.suppress(errors.PortError):
                self._give_back(name, handle, ours)
            raise
        self._give_back(name, handle, ours)

    def _check_still_there(self, opened: image.Image, snapshot: str | None) -> None:
        """See that nobody removed what was read, which reads as zeros from then on.

        A client that only reads is not told of it: librbd has no watch for it.

        :raises NotFound: somebody did
        """
        what = f'image {opened.name}' + (f'@{snapshot}' if snapshot else '')
        number = headers.HEAD if snapshot is None else opened.snapshot_id(snapshot)
        header = f'rbd_header.{opened.id()}'
        try:
            with self._translated(what):
                self._ioctx.execute(header, 'rbd', 'get_size', struct.pack('<Q', number))
        except errors.NotFound as error:
            raise errors.NotFound(
                f'Pool {self.name}, {what}: was removed while it was read, so that what was read '
                'may be wrong. Nothing of it is kept.',
                'If its backup is still there, run the same command again.',
            ) from error

    def _give_back(
        self, name: str, handle: handles.Handle | None, opened: image.Image | None
    ) -> None:
        if opened is not None:
            opened.end_threads()
        if handle is not None:
            with self._translated(f'image {name}'):
                self._handles.give_back(handle, may_rest=bool(self._leases))

    @contextlib.contextmanager
    def _opening(self, name: str) -> Iterator[None]:
        """Tell an image that cannot be opened from one that is not there."""
        try:
            with self._translated(f'image {name}'):
                yield
        except errors.NotFound as error:
            if not self.has_image(name):
                raise
            raise errors.DamagedImage(
                f'Pool {self.name}, image {name}: is there, but cannot be opened: a part of it '
                'is missing, its header perhaps.',
                f'See what the cluster says: {self.commands.rbd("info", name)}',
            ) from error

    def trash(self) -> list[Trashed]:
        """Return the images in the trash, which are not there for anybody else."""
        with self._translated('the list of its trash'):
            found = self._rbd.RBD().trash_list(self._ioctx)
            return [Trashed(entry['id'], entry['name']) for entry in found]

    def has_lost_object_map(self, opened: image.Image) -> bool:
        """Tell whether an image should have an object map, and has none to trust.

        Opened at a snapshot librbd knows it by itself; as it is now it has not looked.
        """
        if opened.has_invalid_object_map():
            return True
        if not opened.has_object_map():
            return False
        name = f'rbd_object_map.{opened.id()}'
        try:
            with self._translated(f'object {name}'):
                self._ioctx.execute(name, 'rbd', 'object_map_load', b'', _LARGEST_MAP)
        except errors.NotFound:
            return True
        except errors.CephError as error:
            if getattr(error.__cause__, 'errno', None) in _DAMAGED:
                return True
            raise
        return False

    def create(self, name: str, layout: model.ImageLayout) -> None:
        """Create an empty image.

        :raises Conflict: there is one of that name
        """
        style = self._style
        unit, count = style.striping or (layout.stripe_unit, layout.stripe_count)
        with self._translated(f'image {name}', lambda: style.data_pool):
            self._rbd.RBD().create(
                self._ioctx,
                name,
                layout.size,
                order=layout.order,
                old_format=False,
                features=style.features if layout.features is None else layout.features,
                stripe_unit=unit,
                stripe_count=count,
                data_pool=style.data_pool,
            )
        LOG.info('Image %s: made, %d bytes, data in %s.', name, layout.size, style.data_pool)

    def rename(self, name: str, new_name: str) -> None:
        """Give an image another name.

        It may be open to write, and rest: then librbd lets that image carry it out.

        :raises Conflict: there is one of that name
        """
        # librbd would try to open what is not there.
        if not self.has_image(name):
            raise errors.NotFound(f'Pool {self.name}, image {name}: not there.')
        with self._translated(f'image {name}, to be renamed to {new_name}'):
            self._rbd.RBD().rename(self._ioctx, name, new_name)
        self._handles.rename(name, new_name)
        LOG.info('Image %s: renamed to %s.', name, new_name)

    def remove(self, name: str) -> None:
        """Remove an image with its snapshots; not being there is fine.

        The cluster counts a client that died as a user of the image for half
        a minute: wait for that.
        """
        self._handles.forget(name)
        if not self.has_image(name):
            return
        deadline = time.monotonic() + _WATCH_TIMEOUT
        while True:
            try:
                self._remove(name)
                return
            except errors.NotFound as error:
                if not self.has_image(name):
                    return
                # In a pool without room librbd cannot move it to the trash, as it does before
                # it removes it, and says that it is not there.  What it holds can go.
                if time.monotonic() > deadline:
                    raise errors.CephError(
                        f'Pool {self.name}, image {name}: is there, but cannot be removed.',
                        f'Remove it when the pool has room: {self.commands.rbd("rm", name)}',
                    ) from error
                with self.open(name, writable=True) as opened:
                    opened.resize(0)
                self._handles.close_resting()
            except errors.Conflict:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def _remove(self, name: str) -> None:
        if self.snapshots(name):
            with self.open(name, writable=True) as opened:
                for snapshot in opened.snapshots():
                    opened.remove_snapshot(snapshot.name)
            self._handles.close_resting()
        with self._translated(f'image {name}'):
            self._rbd.RBD().remove(self._ioctx, name)
        LOG.info('Image %s: removed.', name)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[lease.Lease]:
        """Be the only run of ours that makes or changes an image, until the block ends.

        :raises Conflict: another run has it
        """
        held = lease.Lease(self._client, self._ioctx, self._rados, self.commands, name)
        try:
            with self._translated(f'the lock on image {name}'):
                held.acquire()
            self._leases.add(held)
            yield held
        finally:
            self._leases.discard(held)
            try:
                # Nothing of ours may write any more when the next run begins.
                with self._translated(f'image {name}'):
                    self._handles.close_resting()
            finally:
                held.release()

    def read_object(self, name: str) -> bytes | None:
        """Return the content of a small object, None where there is none.

        :raises InvalidInput: it is larger than volume metadata can be
        """
        try:
            with self._translated(f'object {name}'):
                content: bytes = self._ioctx.read(name, model.MAX_VOLUME_METADATA + 1)
        except errors.NotFound:
            return None
        self._check_size(name, content)
        return content

    def write_object(self, name: str, content: bytes) -> None:
        """Write a small object as a whole.

        :raises InvalidInput: it is larger than what :meth:`read_object` would read
        """
        self._check_size(name, content)
        with self._translated(f'object {name}'):
            self._ioctx.write_full(name, content)
        LOG.info('Pool %s, object %s: written, %d bytes.', self.name, name, len(content))

    def _check_size(self, name: str, content: bytes) -> None:
        if len(content) > model.MAX_VOLUME_METADATA:
            raise errors.InvalidInput(
                f'Object {name} for pool {self.name}: has more than {model.MAX_VOLUME_METADATA} '
                'bytes; volume metadata has some 2 KiB.',
                f'Look at it: {self.commands.rados("get", name, "-")}',
            )

    def remove_object(self, name: str) -> None:
        """Remove an object; not being there is fine."""
        with contextlib.suppress(errors.NotFound), self._translated(f'object {name}'):
            self._ioctx.remove_object(name)
            LOG.info('Pool %s, object %s: removed.', self.name, name)

    def object_age(self, name: str) -> float | None:
        """Return the seconds since an object was last changed, None where there is none.

        By the clocks of those who change it and of this machine: a hint.
        """
        try:
            with self._translated(f'object {name}'):
                _size, changed = self._ioctx.stat(name)
        except errors.NotFound:
            return None
        return time.time() - time.mktime(changed)

    def objects(self, prefix: str) -> list[str]:
        """Return the names of all objects that begin with *prefix*."""
        with self._translated('the list of objects'):
            return sorted(
                entry.key for entry in self._ioctx.list_objects() if entry.key.startswith(prefix)
            )

    def _translated(
        self, what: str, data_pool: faults.DataPool = lambda: None
    ) -> contextlib.AbstractContextManager[None]:
        return self._faults.translated(f'Pool {self.name}, {what}', data_pool)
