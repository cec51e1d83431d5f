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

"""Reading and writing bytes of a stream: exact, counted, hashed, holes apart.

The files handed in are unbuffered (``open(..., buffering=0)``), because holes
of sparse files are found and left by seeking.
"""

import collections
import concurrent.futures
import contextlib
import errno
import fcntl
import hashlib
import io
import os
import stat
import typing
from collections.abc import Callable, Iterator

from osc_backup_port import errors, pipes, units

_ZEROS = bytes(units.MIB)
#: What is read in smaller pieces goes through a buffer of this size.
_PIPE_BUFFER = 64 * units.KIB


#: What is written to a file goes to its disk in steps of this size.
_FLUSH_STEP = 32 * units.MIB

#: Pieces on their way to be hashed, of at most the size of one read or write.
_HASH_AHEAD = 4
#: What is smaller is put together first: a piece costs a change of threads.
_HASH_PIECE = 256 * units.KIB
#: What is read only to be hashed is read in pieces of this size.
_PASS_STEP = 4 * units.MIB


class _Hash:
    """A sha256 that can be told of zeros, or switched off.

    It is computed in a thread of its own, which lags behind by a few pieces.
    """

    def __init__(self, wanted: bool) -> None:
        self._digest = hashlib.sha256() if wanted else None
        self._small: list[bytes] = []
        self._small_size = 0
        self._ahead: collections.deque[concurrent.futures.Future[None]] = collections.deque()
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None

    @property
    def is_wanted(self) -> bool:
        return self._digest is not None

    def update(self, data: bytes) -> None:
        if self._digest is not None:
            self._small.append(data)
            self._small_size += len(data)
            if self._small_size >= _HASH_PIECE:
                self._send_small()

    def update_zeros(self, length: int) -> None:
        if self._digest is not None and length:
            self._send_small()
            self._send(self._hash_zeros, length)

    def result(self) -> str | None:
        if self._digest is None:
            return None
        self._send_small()
        while self._ahead:
            self._ahead.popleft().result()
        return self._digest.hexdigest()

    def _send_small(self) -> None:
        pieces, self._small, self._small_size = self._small, [], 0
        if pieces:
            self._send(self._hash, pieces)

    def _send(self, work: Callable[[typing.Any], None], what: object) -> None:
        if self._thread is None:
            self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._ahead.append(self._thread.submit(work, what))
        if len(self._ahead) > _HASH_AHEAD:
            self._ahead.popleft().result()

    def _hash(self, pieces: list[bytes]) -> None:
        if self._digest is not None:
            for piece in pieces:
                self._digest.update(piece)

    def _hash_zeros(self, length: int) -> None:
        if self._digest is not None:
            for at in range(0, length, len(_ZEROS)):
                self._digest.update(_ZEROS[: length - at] if length - at < len(_ZEROS) else _ZEROS)


class Reader:
    """Reads exactly what is asked for from a stream, and knows where it is.

    :param file: where the bytes come from
    :param name: what to call it in an error
    :param checksum: whether to hash what is read
    :param moved: told the number of bytes of each read
    """

    def __init__(
        self,
        file: io.RawIOBase,
        name: str,
        checksum: bool = True,
        moved: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._file = _buffered(file)
        self.name = name
        self.position = 0
        self._hash = _Hash(checksum)
        self._moved = moved
        self._head = b''
        # Where byte 0 of the stream lies in a file that has holes.
        self._start = os.lseek(file.fileno(), 0, os.SEEK_CUR) if _is_regular(file) else None

    @property
    def sha256(self) -> str | None:
        """The hash of all that was read so far; None where it is not wanted."""
        return self._hash.result()

    def do_not_hash(self) -> None:
        """Leave the hash away after all; before anything was read."""
        self._hash = _Hash(False)

    def identity(self) -> tuple[int, ...]:
        """Return what tells the stream from every other one; nothing, if it cannot come again."""
        if self._start is None:
            return ()
        told = os.fstat(self._file.fileno())
        # "cp -p" over a file leaves it with the inode, the size and the mtime of another.
        when = told.st_mtime_ns, told.st_ctime_ns
        return told.st_dev, told.st_ino, told.st_size, *when, self._start

    @property
    def size(self) -> int | None:
        """The bytes of the whole stream, where that can be known."""
        if self._start is None:
            return None
        return os.fstat(self._file.fileno()).st_size - self._start

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end, and leave them in place."""
        if self._start is not None:
            return os.pread(self._file.fileno(), count, self._start + self.position)
        while len(self._head) < count:
            more = self._file.read(count - len(self._head))
            if not more:
                break
            self._head += more
        return self._head[:count]

    def peek_end(self, count: int) -> bytes:
        """Return the last bytes, where the stream has an end that can be looked at."""
        if self._start is None or self.size is None:
            return b''
        at = max(self.size - count, 0)
        return os.pread(self._file.fileno(), count, self._start + at)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return bytes of a file, fewer only at its end; the stream stays where it is.

        They are not hashed: see :meth:`pass_over`.
        """
        if self._start is None:
            raise io.UnsupportedOperation(f'{self.name}: is a pipe')
        # The kernel takes no number that is larger than a file may be.
        if offset >= (self.size or 0):
            return b''
        pieces = []
        while count and (piece := os.pread(self._file.fileno(), count, self._start + offset)):
            pieces.append(piece)
            offset, count = offset + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else b''.join(pieces)

    def is_hole_at(self, offset: int, count: int) -> bool:
        """Tell whether a part of a file is in a hole; the stream stays where it is."""
        if self._start is None:
            return False
        descriptor, at = self._file.fileno(), self._start + offset
        here = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            return _next_data(descriptor, at) >= at + count
        finally:
            os.lseek(descriptor, here, os.SEEK_SET)

    def pass_over(self) -> None:
        """Go to the end of a file of which bytes were read here and there.

        All of it is read once more where it is to be hashed, and only there.
        """
        total = self.size or 0
        if self._hash.is_wanted:
            while self.skip_hole(total) or self.read(_PASS_STEP):
                pass
        else:
            self.position = total

    def read(self, count: int) -> bytes:
        """Return *count* bytes, fewer only where the stream ends."""
        first, self._head = self._head[:count], self._head[count:]
        pieces = [first] if first else []
        missing = count - len(first)
        while missing:
            more = self._file.read(missing)
            if not more:
                break
            pieces.append(more)
            missing -= len(more)
        result = pieces[0] if len(pieces) == 1 else b''.join(pieces)
        self.position += len(result)
        self._hash.update(result)
        self._moved(len(result))
        return result

    def read_exactly(self, count: int) -> bytes:
        """Return *count* bytes.

        :raises TruncatedStream: the stream ended before
        """
        data = self.read(count)
        if len(data) != count:
            raise errors.TruncatedStream(
                f'{self.name}: ends after {self.position} bytes, in the middle of a record '
                f'of which {count - len(data)} bytes are missing.',
                'The file was cut short: copy or export it again.',
            )
        return data

    def skip_hole(self, most: int) -> int:
        """Pass over a hole of a sparse file; return its length, 0 for none."""
        if self._start is None:
            return 0
        descriptor, here = self._file.fileno(), self._start + self.position
        length = min(most, max(_next_data(descriptor, here) - here, 0))
        os.lseek(descriptor, here + length, os.SEEK_SET)
        self.position += length
        self._hash.update_zeros(length)
        return length

    def expect_end(self) -> None:
        """Make sure that nothing follows.

        :raises InvalidInput: something does
        """
        if self.peek(1):
            raise errors.InvalidInput(
                f'{self.name}: more bytes follow the end mark at byte {self.position}.',
                'This is not the output of one export: give each file by itself.',
            )


class Writer:
    """Counts and hashes what goes into a stream.

    :param file: where the bytes go; holes are left where it can have them
    :param checksum: whether to hash what is written
    :param name: what to call it in an error
    """

    def __init__(
        self, file: io.RawIOBase, checksum: bool = True, name: str = 'the output'
    ) -> None:
        self._file = pipes.patient(file)
        self.name = name
        pipes.widen(file)
        self._hash = _Hash(checksum)
        self._is_sparse = _can_have_holes(file)
        self._flushed = 0
        self.position = 0
        self.written = 0

    @property
    def sha256(self) -> str | None:
        """The hash of the stream so far, its zeros with it."""
        return self._hash.result()

    def free(self) -> int | None:
        """Return for how many bytes the disk has room; None: not known, or it is no file."""
        if not _is_regular(self._file):
            return None
        told = os.fstatvfs(self._file.fileno())
        # Some file systems do not tell.
        return told.f_bavail * told.f_frsize if told.f_blocks else None

    def write(self, data: bytes) -> None:
        self._write_all(data)
        self._hash.update(data)

    def write_zeros(self, length: int) -> None:
        """Leave a hole of *length* bytes, or write zeros where that cannot be."""
        if self._is_sparse:
            os.lseek(self._file.fileno(), length, os.SEEK_CUR)
            self.position += length
        else:
            for at in range(0, length, len(_ZEROS)):
                self._write_all(_ZEROS[: length - at])
        self._hash.update_zeros(length)

    @property
    def has_places(self) -> bool:
        """Whether it is an empty file, so that bytes can go to any place: :meth:`write_at`."""
        return self._is_sparse and os.fstat(self._file.fileno()).st_size == 0

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write to a place in a file; :meth:`finish_places` has to follow at the end."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[count:], offset + count
        self.written += len(data)
        if self.written - self._flushed >= _FLUSH_STEP:
            self._flush(self.written)

    def finish_places(self) -> None:
        """Count the whole file, and hash it where that is wanted: it is read once for that.

        Where the file cannot be read by us there is no hash.
        """
        descriptor = self._file.fileno()
        if self._hash.is_wanted:
            self._hash = _hash_of(descriptor)
        self.position = os.fstat(descriptor).st_size

    def resize(self, size: int) -> None:
        """Let a file that was written with :meth:`write_at` have so many bytes; no hash of it."""
        os.ftruncate(self._file.fileno(), size)
        self.position = size

    @contextlib.contextmanager
    def read_back(self) -> Iterator[Reader]:
        """Open what was written to a regular file, to read it from its disk."""
        descriptor = self._file.fileno()
        os.fsync(descriptor)
        # Else it would come out of the memory of this machine.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        with open(f'/proc/self/fd/{descriptor}', 'rb', buffering=0) as file:
            yield Reader(file, self.name, checksum=False)

    def finish(self) -> None:
        """Make a hole at the end count."""
        if self._is_sparse:
            descriptor = self._file.fileno()
            os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # A pipe may take a part only.
            view = view[self._file.write(view) or 0 :]
        self.position += len(data)
        self.written += len(data)
        if self._is_sparse and self.position - self._flushed >= _FLUSH_STEP:
            self._flush(self.position)

    def _flush(self, reached: int) -> None:
        """Let the kernel begin to write what it keeps, and let go of what it has written.

        Else all of that waits for the end, and what others need is pushed out of the memory.
        """
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._flushed = reached


def _hash_of(descriptor: int) -> _Hash:
    """Return the hash of a whole file; where we may not read it, one that is not wanted."""
    try:
        # It may have no name, and be open for writing only.
        file = io.FileIO(f'/proc/self/fd/{descriptor}')
    except OSError:
        return _Hash(False)
    with file:
        whole = Reader(file, 'the output')
        whole.pass_over()
        return whole._hash


def _buffered(file: io.RawIOBase) -> io.RawIOBase | io.BufferedReader:
    """Return what gathers the small pieces that a pipe gives into large ones.

    Asked itself for 4 MiB it gets memory for as many each time, and fills some KiB of it.
    """
    patient = pipes.patient(file)
    return io.BufferedReader(patient, _PIPE_BUFFER) if pipes.widen(file) else patient


def _can_have_holes(file: io.RawIOBase) -> bool:
    """Tell whether seeking ahead in an output leaves zeros.

    Not where it appends, and not where something is in the way already; a
    shell can hand us either as stdout.
    """
    if not _is_regular(file):
        return False
    descriptor = file.fileno()
    appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    return not appends and os.fstat(descriptor).st_size <= os.lseek(descriptor, 0, os.SEEK_CUR)


def _next_data(descriptor: int, position: int) -> int:
    """Return where the first data from *position* is in a file, its end if there is none.

    The file is left anywhere.
    """
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(descriptor).st_size


def _is_regular(file: io.RawIOBase) -> bool:
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:
        return False
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
