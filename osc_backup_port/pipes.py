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

"""Pipes: that they carry much at once, and that a pause is not their end."""

import contextlib
import fcntl
import io
import os
import select
import stat
from typing import TYPE_CHECKING

from osc_backup_port import units

#: What Linux lets anybody have, by default; a pipe is born with 64 KiB.
_SIZE = units.MIB


if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Patient(io.RawIOBase):
    """Waits for a file that may have nothing yet, or take nothing yet.

    Whoever shares a pipe or a terminal with us can make it one that does not wait, at
    any time: it gives None then, which is not the end.

    :param file: is not closed with this
    """

    def __init__(self, file: io.RawIOBase) -> None:
        super().__init__()
        self._file = file

    def fileno(self) -> int:
        return self._file.fileno()

    def readable(self) -> bool:
        return self._file.readable()

    def writable(self) -> bool:
        return self._file.writable()

    def read(self, size: int = -1) -> bytes:
        while (data := self._file.read(size)) is None:
            self._wait(select.POLLIN)
        return data

    def readinto(self, buffer: 'WriteableBuffer') -> int:
        while (count := self._file.readinto(buffer)) is None:
            self._wait(select.POLLIN)
        return int(count)

    def write(self, data: 'ReadableBuffer') -> int:
        while (count := self._file.write(data)) is None:
            self._wait(select.POLLOUT)
        return count

    def _wait(self, event: int) -> None:
        waiting = select.poll()
        waiting.register(self._file, event)
        waiting.poll()


def patient(file: io.RawIOBase) -> io.RawIOBase:
    """Return what waits for *file* where that might not wait by itself."""
    try:
        mode = os.fstat(file.fileno()).st_mode
    except io.UnsupportedOperation:
        return file
    return file if stat.S_ISREG(mode) else Patient(file)


def widen(file: io.RawIOBase) -> bool:
    """Let a pipe hold more; tell whether it is one.

    Whoever is at its other end is woken once for a MiB then, instead of 16 times.
    """
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        return False
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return False
    # Where that is more than the machine allows, it works as it is.
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _SIZE)
    return True
