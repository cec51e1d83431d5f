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

import contextlib
import fcntl
import io
import os
import pathlib
import stat
from collections.abc import Iterator

from osc_backup_port import errors


@contextlib.contextmanager
def part_file(path: pathlib.Path) -> Iterator[io.FileIO]:
    """Write *path* under ``<path>.part``; it gets its name when the block ends.

    Mode 0600: a backup is somebody's disk.  When the block fails the part is
    removed, and what was under the name before is as it was.

    :raises Conflict: another run is writing the same file
    """
    part = path.with_name(f'{path.name}.part')
    # A part that a dead run left behind is not trusted: it is written anew.
    file = io.FileIO(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), 'r+')
    with file:
        _lock(file, part)
        try:
            os.fchmod(file.fileno(), 0o600)
            os.ftruncate(file.fileno(), 0)
            yield file
            os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    _sync_directory(path.parent)


def write_private(path: pathlib.Path, content: bytes) -> None:
    """Write a small file, whole or not at all, mode 0600.

    A device or a pipe, ``/dev/stdout`` for one, is written to and not replaced.
    """
    if _is_special(path):
        path.write_bytes(content)
        return
    with part_file(path) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) or 0 :]


def _lock(file: io.FileIO, part: pathlib.Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between our open and our lock the other run may have finished: then
        # this is its result, under the final name by now.
        same = os.path.samestat(os.fstat(file.fileno()), part.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        raise errors.Conflict(
            f'{part}: another run is writing this file.', 'Wait for it, or choose another name.'
        )


def _is_special(path: pathlib.Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    # A directory is left to the rename, which says what is wrong.
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _sync_directory(path: pathlib.Path) -> None:
    """Make a rename last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
