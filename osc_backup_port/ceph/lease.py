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

"""A lock that is a fence: who lost it cannot write any more.

It is a lock of RADOS on an object of its own, so that images with and without
the exclusive-lock feature are treated alike, before they exist and while they
are renamed.  It expires by itself; the living renew it.  The object goes when
the lock is released.

A run may be stopped for longer than its lock lasts, and go on as if nothing had
happened.  So each holder notes its address on the object as it takes the lock, in one
step.  Who comes next finds the note of a run that did not release the lock, and has the
cluster shut that client out (the blocklist) before it looks at the image.
"""

import contextlib
import json
import logging
import os
import socket
import struct
import threading
import time
import uuid
from typing import Any

from osc_backup_port import documents, errors
from osc_backup_port.ceph import commands, encoding
from osc_backup_port.driver import ceph as ceph_driver

LOG = logging.getLogger(__name__)

_NAME, _DESCRIPTION = 'osc_backup_port', 'osc-backup-port'
_EXCLUSIVE = 1  # ClsLockType::EXCLUSIVE
_MAY_RENEW, _MUST_RENEW = 1, 2  # LIBRADOS_LOCK_FLAG_...
#: Seconds after which the lock of a dead run is gone.  OSDs take 25 s to find out that
#: one of them died, and a lock should outlive that.
DURATION = 30
_PATIENCE = DURATION + 5
#: Renewals in the time that the lock lasts.
_RENEWALS = 6
#: Seconds for which a client is shut out: longer than anybody leaves a process stopped.
BLOCKLIST_SECONDS = 30 * 24 * 3600
#: What the names of the notes on the object begin with; a cookie follows.
_HOLDER = 'osc-backup-port.holder.'


class Lease:
    """The right to change an image, held until :meth:`release`.

    :param client: of RADOS, which the image is written with
    :param shell: commands that reach the cluster, for hints
    """

    def __init__(
        self, client: Any, ioctx: Any, rados: Any, shell: commands.Commands, image: str
    ) -> None:
        self._client = client
        self._ioctx = ioctx
        self._rados = rados
        self._shell = shell
        self._object = ceph_driver.lock_object(image)
        self._image = image
        self._cookie = uuid.uuid4().hex
        self._to_take, self._to_renew = map(self._encode, (_MAY_RENEW, _MUST_RENEW))
        self._stop = threading.Event()
        self._is_lost = False
        self._is_only_holder = False
        self._others: list[str] = []
        self._renewed = time.monotonic()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def acquire(self) -> None:
        """Take the lock, after waiting as long as a dead run would keep it.

        A run that held it before and did not release it can write no more after this.

        :raises Conflict: a living run has it
        :raises CephError: the cluster does not let us shut out the run before
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._lock_with(self._note())
                break
            except self._rados.ObjectBusy:
                if time.monotonic() > deadline:
                    raise errors.Conflict(
                        f'Image {self._image}: another import into it is running.',
                        'Wait until it has ended, then run the same command again.',
                    ) from None
                LOG.debug('Image %s: another run has the lock. Waiting.', self._image)
                time.sleep(0.5)
        self._keeper.start()
        before = self._holders()
        # From here on the next run finds us, if the lock was ours until now.
        self.check()
        self._shut_out(before)
        self._is_only_holder = True
        self.check()
        LOG.info('Image %s: lock taken as %s.', self._image, self._cookie)

    @property
    def is_lost(self) -> bool:
        """Tell whether another run may have the lock by now.  Costs no round trip."""
        return self._is_lost or time.monotonic() - self._renewed >= DURATION

    def check(self) -> None:
        """Raise ``Conflict`` if the lock could not be kept.

        To be called before anything that is written.
        """
        if self.is_lost:
            raise errors.Conflict(
                f'Image {self._image}: the lock on it expired before it was renewed. This run was '
                'stopped, or the cluster did not answer, for too long; another run may have taken '
                'over. Nothing more is written.',
                'If no other run has imported the same: run the same command again. Health of the '
                f'cluster: {self._shell.ceph("status")}',
            )

    def release(self) -> None:
        """Give it back, if it was taken; when nothing of ours writes any more.

        A signal may have come before we knew that we have it: what can be renewed
        is ours.  Removing the object while it is locked leaves no gap in which
        somebody else's lock could be removed.
        """
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        with contextlib.suppress(self._rados.Error):
            if self._is_only_holder and not self.is_lost:
                if self._others:
                    self._lock(_MUST_RENEW)
                    # librbd shuts out a client whose exclusive-lock it breaks, too, but for
                    # an hour, and that counts then.
                    self._blocklist()
                self._remove_with_lock()
                LOG.info('Image %s: lock given back.', self._image)
                return
            # The object may be another run's, or have the note of one that is not shut out.
            # No more writes of ours come: no need to shut us out.
            self._ioctx.rm_xattr(self._object, _HOLDER + self._cookie)
            self._ioctx.unlock(self._object, _NAME, self._cookie)
            LOG.info('Image %s: lock, which was lost or not yet ours alone, left.', self._image)

    def _lock(self, flags: int) -> None:
        asked = time.monotonic()
        self._ioctx.lock_exclusive(
            self._object, _NAME, self._cookie, _DESCRIPTION, DURATION, flags
        )
        self._renewed = asked

    def _lock_with(self, note: bytes) -> None:
        """Take the lock and leave the note, or do neither."""
        asked = time.monotonic()
        with self._rados.WriteOpCtx() as operation:
            operation.execute('lock', 'lock', self._to_take)
            operation.set_xattr(_HOLDER + self._cookie, note)
            self._ioctx.operate_write_op(operation, self._object)
        self._renewed = asked

    def _remove_with_lock(self) -> None:
        """Remove the object, if the lock is ours until then."""
        with self._rados.WriteOpCtx() as operation:
            operation.execute('lock', 'lock', self._to_renew)
            operation.remove()
            self._ioctx.operate_write_op(operation, self._object)

    def _encode(self, flags: int) -> bytes:
        """Return what the lock is asked for with, as ``lock_exclusive`` of librados does."""
        return encoding.versioned(
            encoding.text(_NAME)
            + struct.pack('<B', _EXCLUSIVE)
            + encoding.text(self._cookie)
            + encoding.text('')
            + encoding.text(_DESCRIPTION)
            + struct.pack('<IIB', DURATION, 0, flags)
        )

    def _keep(self) -> None:
        while not self._stop.wait(DURATION / _RENEWALS):
            try:
                self._lock(_MUST_RENEW)
            except (self._rados.ObjectBusy, self._rados.ObjectNotFound):
                self._is_lost = True
                LOG.warning('Image %s: lock lost: another run may have it.', self._image)
                return
            except self._rados.Error as error:
                # Perhaps the next one is answered; the clock decides.
                LOG.info('Image %s: lock not renewed, trying again: %s', self._image, error)
                continue
            LOG.debug('Image %s: lock renewed.', self._image)

    def _note(self) -> bytes:
        holder = {
            'address': self._client.get_addrs(),
            'host': socket.gethostname(),
            'process': os.getpid(),
            'time': time.time(),
        }
        return json.dumps(holder).encode()

    def _holders(self) -> dict[str, str]:
        """Return the addresses of those who held the lock and did not release it, by note."""
        ours = _HOLDER + self._cookie
        found = {}
        for name, content in self._ioctx.get_xattrs(self._object):
            if name.startswith(_HOLDER) and name != ours:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    found[name] = str(documents.read_json(content)['address'])
        return found

    def _shut_out(self, holders: dict[str, str]) -> None:
        """Let the cluster refuse all that clients still write which lost the lock."""
        self._others = sorted(set(holders.values()) - {self._client.get_addrs()})
        try:
            self._blocklist()
        except self._rados.Error as error:
            raise self._may_not_shut_out(self._others, error) from error
        if self._others:
            LOG.warning(
                'Image %s: taking over the lock of a run that did not give it back. Its client '
                'is on the blocklist now: %s.',
                self._image,
                ', '.join(self._others),
            )
            # What we ask for from now on is answered by OSDs that know of it.
            self._client.wait_for_latest_osdmap()
        for name in holders:
            self._ioctx.rm_xattr(self._object, name)

    def _blocklist(self) -> None:
        for address in self._others:
            self._client.blocklist_add(address, BLOCKLIST_SECONDS)

    def _may_not_shut_out(self, addresses: list[str], error: Exception) -> errors.CephError:
        shell = self._shell.for_admin()
        steps = [shell.ceph('osd', 'blocklist', 'add', one) for one in addresses]
        steps.append(shell.rados('rm', self._object))
        user = f'client.{self._shell.user or "admin"}'
        allow = shell.ceph('auth', 'caps', user, 'mon', 'profile rbd', 'osd', '<as before>')
        return errors.CephError(
            f'Image {self._image}: a run that was importing into it ended without releasing its '
            f'lock, and might go on. Its client ({", ".join(addresses)}) has to be shut out '
            f'first, which the cluster refuses: {error}.',
            "The user needs the capability mon 'profile rbd', as Ceph's documentation gives it to "
            f'cinder-backup: {allow}. Or run, as a user who may: {"; ".join(steps)}',
        )
