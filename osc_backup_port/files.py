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

"""Files that appear whole or not at all, and only for their owner's eyes.

A file that is being written has no name (``O_TMPFILE``), or, in file systems without that,
one that nobody can guess or plant (``O_EXCL``).  It gets its name when it is complete.  A
file that must not be there is never replaced, whenever it comes.  Files and names are on
the disk when a function returns.
"""

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import re
import secrets
import stat
from collections.abc import Iterator

from osc_backup_port import errors

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Folders that this run has looked into: some get a hundred thousand files.
_swept: set[tuple[int, int]] = set()
_TEMPORARY = re.compile(r'\.osc-backup-port\.[0-9a-f]{32}\.part')
#: What file systems say that have no unnamed files, or no hard links.
_NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK)


@contextlib.contextmanager
def new_file(path: pathlib.Path, replace: bool = False) -> Iterator[io.FileIO]:
    """Give a new file, mode 0600; it becomes *path* when the block ends.

    When the block fails nothing is left of it.

    :param replace: whether *path* may be there; it is replaced as a whole then
    :raises Conflict: *path* is there, or came meanwhile
    """
    folder = os.open(path.parent, _FOLDER)
    try:
        _sweep_once(folder)
        with _temporary(folder) as temporary:
            yield temporary.file
            os.fsync(temporary.file.fileno())
            try:
                temporary.publish(path.name, replace)
            except FileExistsError:
                raise errors.Conflict(
                    f'{path}: is there already; something else wrote it meanwhile.',
                    'Remove it first, or choose another name.',
                ) from None
            _sync(folder)
    finally:
        os.close(folder)


def write_file(path: pathlib.Path, content: bytes, replace: bool = False) -> None:
    """Write a small file; as :func:`new_file`."""
    with new_file(path, replace) as file:
        _write_all(file, content)


def write_output(path: pathlib.Path, content: bytes, replace: bool = False) -> None:
    """Write a small file that the user named.

    A device or a pipe, ``/dev/stdout`` for one, is written to and not replaced.
    """
    if not is_special(path):
        write_file(path, content, replace)
        return
    with io.FileIO(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), 'w') as file:
        _write_all(file, content)


def read_file(path: pathlib.Path, limit: int) -> bytes | None:
    """Return a file; None where there is none.  Nothing else is waited for, or followed.

    :raises InvalidInput: it has more than *limit* bytes, or is a link or no file
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise errors.InvalidInput(f'{path}: is a link, expected a file.') from None
        if error.errno == errno.ENXIO:
            raise errors.InvalidInput(f'{path}: is not a file.') from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise errors.InvalidInput(f'{path}: is not a file.')
    with open(descriptor, 'rb') as file:
        # No more is asked for: so much would be allocated, whatever there is.
        content = file.read(min(status.st_size, limit) + 1)
    if len(content) > limit:
        raise errors.InvalidInput(
            f'{path}: has {status.st_size} bytes, expected at most {limit}.',
            'It is damaged, or is not one of ours.',
        )
    return content


def make_folder(path: pathlib.Path) -> None:
    """Make a folder, and those above it that are missing: to last, and for us alone."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise
        else:
            sync_folder(folder.parent)


def sync_folder(path: pathlib.Path) -> None:
    """Make names in a folder last."""
    descriptor = os.open(path, _FOLDER)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        # Some file systems have no such thing for folders.
        if error.errno != errno.EINVAL:
            raise


class _Temporary:
    """A file that is being written.

    :ivar name: in its folder; None: it has none
    """

    def __init__(self, file: io.FileIO, folder: int, name: str | None) -> None:
        self.file = file
        self._folder = folder
        self.name = name

    def publish(self, name: str, replace: bool) -> None:
        """:raises FileExistsError: the name is taken, and is not to be replaced"""
        if not replace:
            self._link_or_move(name)
        else:
            if self.name is None:
                random = _random_name()
                self._link(random)
                self.name = random
            self._move(name)

    def _link_or_move(self, name: str) -> None:
        try:
            self._link(name)
        except OSError as error:
            if error.errno not in _NO_LINKS or self.name is None:
                raise
            # The name is taken for us, empty, and then replaced.
            os.close(os.open(name, _NEW, 0o600, dir_fd=self._folder))
            self._move(name)

    def _link(self, name: str) -> None:
        source = self.name or f'/proc/self/fd/{self.file.fileno()}'
        # The folder is given so that the link of /proc is followed.
        os.link(source, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _move(self, name: str) -> None:
        os.rename(self.name or '', name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self.name = None

    def remove(self) -> None:
        if self.name is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.name, dir_fd=self._folder)


@contextlib.contextmanager
def _temporary(folder: int) -> Iterator[_Temporary]:
    """Give a file that nobody else knows of, and take its name away at the end."""
    made = _open_unnamed(folder) or _open_named(folder)
    try:
        with made.file:
            os.fchmod(made.file.fileno(), 0o600)
            yield made
    finally:
        made.remove()


def _open_unnamed(folder: int) -> _Temporary | None:
    """Return a file without a name; None: the file system has no such thing."""
    if not os.path.isdir('/proc/self/fd'):
        return None
    try:
        descriptor = os.open('.', os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_UNNAMED:
            return None
        raise
    file = io.FileIO(descriptor, 'r+')
    # It has a name for a moment when it replaces another one.
    _hold(file)
    return _Temporary(file, folder, None)


def _open_named(folder: int) -> _Temporary:
    """Return a file with a random name, locked as long as this run lives."""
    while True:
        name = _random_name()
        file = io.FileIO(os.open(name, _NEW, 0o600, dir_fd=folder), 'r+')
        _hold(file)
        # Another run may have swept it before it was locked.
        if os.fstat(file.fileno()).st_nlink:
            return _Temporary(file, folder, name)
        file.close()


def _hold(file: io.FileIO) -> None:
    """Tell other runs that this one is at work on a file, as long as it lives."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)


def _random_name() -> str:
    return f'.osc-backup-port.{secrets.token_hex(16)}.part'


def _sweep_once(folder: int) -> None:
    """Remove what runs of ours left that were killed; where a lock is held one is at work."""
    status = os.fstat(folder)
    if (status.st_dev, status.st_ino) in _swept:
        return
    _swept.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as scan:
        left = [entry.name for entry in scan if _TEMPORARY.fullmatch(entry.name)]
    for name in left:
        with contextlib.suppress(OSError):
            _sweep_one(folder, name)


def _sweep_one(folder: int, name: str) -> None:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), 'rb', buffering=0) as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder)


def _write_all(file: io.FileIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) or 0 :]


def is_special(path: pathlib.Path) -> bool:
    """Tell whether a path leads to a device or a pipe."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    # A directory is left to the rename, which says what is wrong.
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
