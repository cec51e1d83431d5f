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

"""Bytes that are needed later, and may be too many for memory."""

import os
import tempfile
import threading
from typing import IO

from osc_backup_port import units

#: More than this goes to the file.
_MOST_IN_MEMORY = 4 * units.KIB


class Spooled:
    """Bytes that were put aside.

    A few stay in memory.  More go to one file for all, in ``TMPDIR``, that has no name, so that
    nobody else opens it and nothing of it is left behind.

    :raises OSError: there is no room for them
    """

    __slots__ = ('_content', '_hash', '_size', '_start')

    def __init__(self, content: bytes) -> None:
        self._size = len(content)
        self._hash = hash(content)
        self._content = content if self._size <= _MOST_IN_MEMORY else None
        self._start = 0 if self._content is not None else _FILE.append(content)

    @property
    def is_in_memory(self) -> bool:
        return self._content is not None

    def __len__(self) -> int:
        return self._size

    def read(self) -> bytes:
        """Return them."""
        if self._content is not None:
            return self._content
        return _FILE.read(self._start, self._size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Spooled):
            return NotImplemented
        return self._hash == other._hash and self.read() == other.read()

    def __hash__(self) -> int:
        return self._hash


class _File:
    """A file without a name, made when it is needed, that only grows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._end = 0

    def append(self, content: bytes) -> int:
        """Return where it begins."""
        with self._lock:
            start = self._end
            try:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - to the end
                rest = memoryview(content)
                while rest:
                    written = os.pwrite(self._file.fileno(), rest, self._end)
                    self._end, rest = self._end + written, rest[written:]
            except OSError as error:
                self._end = start
                raise OSError(
                    error.errno,
                    f'{error.strerror}. Free space there, or name another folder: '
                    'export TMPDIR=<folder>',
                    tempfile.gettempdir(),
                ) from error
            return start

    def read(self, start: int, size: int) -> bytes:
        found = bytearray()
        while self._file is not None and len(found) < size:
            piece = os.pread(self._file.fileno(), size - len(found), start + len(found))
            if not piece:
                raise OSError(f'{tempfile.gettempdir()}: a file of this run was cut short.')
            found += piece
        return bytes(found)


_FILE = _File()
