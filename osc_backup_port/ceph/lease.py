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

"""A lock that a dead run does not keep.

It is a lock of RADOS on an object of its own, so that images with and without
the exclusive-lock feature are treated alike, before they exist and while they
are renamed.  It expires by itself; the living renew it.  The object goes when
the lock is released.
"""

import contextlib
import threading
import time
import uuid
from typing import Any

from osc_backup_port import errors
from osc_backup_port.ceph import naming

_NAME = 'osc_backup_port'
_RENEW_FLAG = 1  # LIBRADOS_LOCK_FLAG_MAY_RENEW
#: Seconds after which the lock of a dead run is gone.
DURATION = 20
_PATIENCE = DURATION + 5


class Lease:
    """The right to change an image, held until :meth:`release`."""

    def __init__(self, ioctx: Any, rados: Any, image: str) -> None:
        self._ioctx = ioctx
        self._rados = rados
        self._object = naming.lock_object(image)
        self._image = image
        self._cookie = uuid.uuid4().hex
        self._stop = threading.Event()
        self._lost = False
        self._may_hold = False
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def acquire(self) -> None:
        """Take the lock, after waiting as long as a dead run would keep it.

        :raises Conflict: a living run has it
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._lock()
                break
            except self._rados.ObjectBusy:
                if time.monotonic() > deadline:
                    raise errors.Conflict(
                        f'Image {self._image}: another import into it is running.',
                        'Wait until it has ended, then run the same command again.',
                    ) from None
                time.sleep(0.5)
        self._keeper.start()

    def check(self) -> None:
        """Raise ``Conflict`` if the lock could not be kept.

        To be called before anything that cannot be undone.
        """
        if self._lost:
            raise errors.Conflict(
                f'Image {self._image}: the lock on it was lost, so that another run may be '
                'writing to it.',
                'Look at the health of the cluster (ceph status), then try again.',
            )

    def release(self) -> None:
        """Give it back, if it was taken.

        A signal may have come before we knew: what is renewed just before is
        ours.  Removing the object while it is locked leaves no gap in which
        somebody else's lock could be removed.
        """
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        if self._may_hold and not self._lost:
            with contextlib.suppress(self._rados.Error):
                self._lock()
                self._ioctx.remove_object(self._object)

    def _lock(self) -> None:
        self._may_hold = True
        try:
            self._ioctx.lock_exclusive(
                self._object, _NAME, self._cookie, 'osc-backup-port', DURATION, _RENEW_FLAG
            )
        except self._rados.ObjectBusy:
            self._may_hold = False
            raise

    def _keep(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(DURATION / 4):
            try:
                self._lock()
                renewed = time.monotonic()
            except self._rados.Error:
                if time.monotonic() - renewed > DURATION / 2:
                    self._lost = True
                    return
