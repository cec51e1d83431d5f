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

"""Images that are open, and closed when it is safe.

librbd kills the process, now and then, when an image is closed soon after it was
opened or refreshed: it tells the caller that it is done, and locks the state of the
image once more afterwards.  Where that thread has to wait for a processor, the image
may be closed, and its memory given back, before.  Nothing tells when the thread is
through, so images are closed some time after they were opened, and those that are open to
write, which librbd refreshes when it likes, after their last use.  Whoever only reads need
not wait for that: the image is put aside, and closed later.  Whoever writes need not, either,
as long as a lock keeps others out: the image rests while other things are done.
"""

import collections
import contextlib
import time
from typing import Any

#: Seconds that an image has to be left alone before it is closed: it is not opened,
#: refreshed, or set to a snapshot.
REST = 0.3
#: Images that are put aside, at most; each takes some 100 KiB.
_MOST = 32
#: Seconds for which an image may be used again without a look at the cluster: somebody
#: may have removed the snapshot since.
_FRESH = 1.0


class Handle:
    """One image, as it is now, or at a snapshot."""

    __slots__ = ('image', 'is_writable', 'name', 'opened', 'snapshot', 'touched')

    def __init__(self, name: str, is_writable: bool) -> None:
        self.name = name
        self.snapshot: str | None = None
        self.is_writable = is_writable
        #: None until it is open.
        self.image: Any = None
        self.opened = self.touched = time.monotonic()

    def go_to(self, snapshot: str) -> None:
        self.image.set_snap(snapshot)
        self.snapshot = snapshot
        self.touched = time.monotonic()

    def is_fresh(self, name: str) -> bool:
        """Tell whether it is of that image, and knows its snapshots as they are now."""
        return self.name == name and time.monotonic() - self.opened < _FRESH

    def close(self) -> None:
        """Close it, after the time that it has to be left alone."""
        if self.image is None:
            return
        rest = self.touched + REST - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        self.image.close()


class Handles:
    """Opens and closes the images of one pool; may be used by several threads.

    There is no lock: a signal, which may come between any two steps, would leave it held.
    One step of a deque or a list is whole by itself.
    """

    def __init__(self, ioctx: Any, rbd: Any) -> None:
        self._ioctx = ioctx
        self._rbd = rbd
        self._aside: collections.deque[Handle] = collections.deque()
        self._writable: list[Handle] = []
        #: Those of them that were given back.
        self._resting: list[Handle] = []

    def open(self, name: str, is_writable: bool) -> Handle:
        """Open an image, which is there; raises the errors of librbd."""
        handle = Handle(name, is_writable)
        if is_writable:
            # A signal may come as soon as it is open: it is known by then.
            self._writable.append(handle)
        try:
            handle.image = self._rbd.Image(self._ioctx, name, read_only=not is_writable)
        except self._rbd.Error:
            if is_writable:
                self._writable.remove(handle)
            raise
        handle.opened = handle.touched = time.monotonic()
        return handle

    def take(self, name: str, snapshot: str) -> Handle | None:
        """Return an image at this snapshot, if one that was opened just now is aside."""
        fresh = [handle for handle in list(self._aside) if handle.is_fresh(name)]
        for handle in sorted(fresh, key=lambda handle: handle.snapshot != snapshot):
            try:
                self._aside.remove(handle)
            except ValueError:
                # Another thread took it.
                continue
            if handle.snapshot == snapshot:
                return handle
            try:
                handle.go_to(snapshot)
            except self._rbd.ImageNotFound:
                self._put_aside(handle)
                continue
            except BaseException:
                self._put_aside(handle)
                raise
            return handle
        return None

    def take_writable(self, name: str) -> Handle | None:
        """Return an image that is open to write, if it rests."""
        for handle in list(self._resting):
            if handle.name == name and self._ends_to_rest(handle):
                return handle
        return None

    def _ends_to_rest(self, handle: Handle) -> bool:
        """Tell whether it rested until now; another thread may have taken it."""
        with contextlib.suppress(ValueError):
            self._resting.remove(handle)
            return True
        return False

    def give_back(self, handle: Handle, may_rest: bool = False) -> None:
        """Take an image that is not used any more.

        :param may_rest: one that was written to need not be closed on return:
            :meth:`close_resting` is called before anybody else may write to it
        """
        if not handle.is_writable:
            self._put_aside(handle)
            return
        handle.touched = time.monotonic()
        if may_rest and handle in self._writable:
            self._resting.append(handle)
        else:
            self._close_writable(handle)

    def close_resting(self) -> None:
        """Close what was given back and may be written to."""
        for handle in list(self._resting):
            if self._ends_to_rest(handle):
                self._close_writable(handle)

    def rename(self, name: str, new_name: str) -> None:
        """Know an image by its new name; what is open of it to read is not used any more."""
        for handle in [*self._writable, *self._aside]:
            if handle.name == name:
                handle.name = new_name if handle.is_writable else ''
                # What is open to write has carried it out, and looked at the image anew.
                handle.touched = time.monotonic()

    def _put_aside(self, handle: Handle) -> None:
        self._aside.append(handle)
        self._close_oldest(_MOST)

    def forget(self, name: str) -> None:
        """Let nobody use what is open of an image that is about to go.

        A signal may have come while it was given back, and an image that is open to write
        cannot be removed: it is closed now.
        """
        for handle in [handle for handle in self._writable if handle.name == name]:
            # What was written is not wanted any more.
            with contextlib.suppress(self._rbd.Error):
                self._close_writable(handle)
        for handle in list(self._aside):
            if handle.name == name:
                handle.name = ''

    def close(self) -> None:
        """Close all that is open."""
        for handle in list(self._writable):
            self._close_writable(handle)
        self._close_oldest(0)

    def _close_writable(self, handle: Handle) -> None:
        """Close it and forget it, also if the cluster is lost; but not if a signal came before."""
        if handle not in self._writable:
            return
        self._ends_to_rest(handle)
        try:
            handle.close()
        except self._rbd.Error:
            self._writable.remove(handle)
            raise
        self._writable.remove(handle)

    def _close_oldest(self, most: int) -> None:
        while len(self._aside) > most:
            # Another thread may have taken the last one meanwhile.
            with contextlib.suppress(IndexError):
                self._aside.popleft().close()
