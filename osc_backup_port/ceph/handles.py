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
import threading
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
    """Opens and closes the images of one pool; may be used by several threads."""

    def __init__(self, ioctx: Any, rbd: Any) -> None:
        self._ioctx = ioctx
        self._rbd = rbd
        self._aside: collections.deque[Handle] = collections.deque()
        self._mutex = threading.Lock()

    def open(self, name: str, is_writable: bool) -> Handle:
        """Open an image, which is there; raises the errors of librbd."""
        image = self._rbd.Image(self._ioctx, name, read_only=not is_writable)
        return Handle(name, is_writable, image)

    def take(self, name: str, snapshot: str | None) -> Handle | None:
        """Return an image that was opened at this snapshot just now, if there is one aside."""
        if snapshot is None:
            return None
        with self._mutex:
            for handle in self._aside:
                if handle.is_fresh_at(name, snapshot):
                    self._aside.remove(handle)
                    return handle
        return None

    def give_back(self, handle: Handle) -> None:
        """Take an image that is not used any more; what was written to is closed on return."""
        handle.used = time.monotonic()
        if handle.is_writable:
            handle.close()
            return
        with self._mutex:
            self._aside.append(handle)
        self._close_oldest(_MOST)

    def forget(self, name: str) -> None:
        """Let nobody use what is open of an image that is about to change its name, or to go."""
        with self._mutex:
            for handle in self._aside:
                if handle.name == name:
                    handle.snapshot = None

    def close(self) -> None:
        """Close all that was given back."""
        self._close_oldest(0)

    def _close_oldest(self, most: int) -> None:
        while True:
            with self._mutex:
                if len(self._aside) <= most:
                    return
                handle = self._aside.popleft()
            handle.close()
