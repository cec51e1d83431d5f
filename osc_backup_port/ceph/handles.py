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
through, so images are closed some time after their last use.  Whoever only reads need
not wait for that: the image is put aside, and closed later.
"""

import collections
import contextlib
import time
from typing import Any

#: Seconds that an image has to be left alone before it is closed.
REST = 0.3
#: Images that are put aside, at most; each takes some 100 KiB.
_MOST = 32
#: Seconds for which an image may be used again without a look at the cluster: somebody
#: may have removed the snapshot since.
_FRESH = 1.0


class Handle:
    """One image, as it is now, or at a snapshot."""

    __slots__ = ('image', 'is_writable', 'name', 'opened', 'snapshot', 'used')

    def __init__(self, name: str, is_writable: bool, image: Any) -> None:
        self.name = name
        self.snapshot: str | None = None
        self.is_writable = is_writable
        self.image = image
        self.opened = self.used = time.monotonic()

    def go_to(self, snapshot: str) -> None:
        self.image.set_snap(snapshot)
        self.snapshot = snapshot

    def is_fresh_at(self, name: str, snapshot: str) -> bool:
        """Tell whether it shows that snapshot as it is now."""
        fresh = time.monotonic() - self.opened < _FRESH
        return fresh and (self.name, self.snapshot) == (name, snapshot)

    def close(self) -> None:
        """Close it, after the time that it has to be left alone."""
        rest = self.used + REST - time.monotonic()
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

    def open(self, name: str, is_writable: bool) -> Handle:
        """Open an image, which is there; raises the errors of librbd."""
        image = self._rbd.Image(self._ioctx, name, read_only=not is_writable)
        handle = Handle(name, is_writable, image)
        if is_writable:
            self._writable.append(handle)
        return handle

    def take(self, name: str, snapshot: str | None) -> Handle | None:
        """Return an image that was opened at this snapshot just now, if there is one aside."""
        if snapshot is None:
            return None
        for handle in list(self._aside):
            if handle.is_fresh_at(name, snapshot):
                # Another thread may have taken it meanwhile.
                with contextlib.suppress(ValueError):
                    self._aside.remove(handle)
                    return handle
        return None

    def give_back(self, handle: Handle) -> None:
        """Take an image that is not used any more; what was written to is closed on return."""
        handle.used = time.monotonic()
        if handle.is_writable:
            self._close_writable(handle)
            return
        self._aside.append(handle)
        self._close_oldest(_MOST)

    def forget(self, name: str) -> None:
        """Let nobody use what is open of an image that is about to change its name, or to go.

        A signal may have come while it was given back, and an image that is open to write
        cannot be removed: it is closed now.
        """
        for handle in [handle for handle in self._writable if handle.name == name]:
            self._close_writable(handle)
        for handle in list(self._aside):
            if handle.name == name:
                handle.snapshot = None

    def close(self) -> None:
        """Close all that is open."""
        for handle in list(self._writable):
            self._close_writable(handle)
        self._close_oldest(0)

    def _close_writable(self, handle: Handle) -> None:
        """Close it and forget it, also if the cluster is lost; but not if a signal came before."""
        if handle not in self._writable:
            return
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
