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

"""Files that appear whole or not at all, and only for their owner's eyes."""

import collections.abc
import contextlib
import fcntl
import io
import os
import pathlib
import stat

from osc_backup_port import errors


@contextlib.contextmanager
def part_file(path: 'str | os.PathLike[str]') -> collections.abc.Iterator[io.FileIO]:
    """Write *path* under ``<path>.part``; it gets its name when the block ends.

    Mode 0600: a backup is somebody's disk.  When the block fails the part is
    removed, and what was under the name before is as it was.  A link is
    followed.  A device or a pipe, ``/dev/stdout`` for one, is written to.

    :raises Conflict: another run is writing the same file
    """
    if _is_special(path):
        with io.FileIO(path, 'w') as file:
            yield file
        return
    target = pathlib.Path(os.path.realpath(path))
    part = target.with_name(f'{target.name}.part')
    # A part that a dead run left behind is not trusted: it is written anew.
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with io.FileIO(descriptor, 'r+') as file:
        _lock(file, part)
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            yield file
            os.fsync(descriptor)
            part.replace(target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            raise
    sync_directory(target.parent)


def write_private(path: 'str | os.PathLike[str]', data: bytes) -> None:
    """Write a small file, as :func:`part_file` does."""
    with part_file(path) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]


def sync_directory(path: 'str | os.PathLike[str]') -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(file: io.FileIO, part: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.Conflict(
            f'{part}: another run is writing this file.', 'Wait for it, or choose another name.'
        ) from None


def _is_special(path: 'str | os.PathLike[str]') -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    # A directory is left to the rename, which says what is wrong.
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
