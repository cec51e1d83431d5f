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

"""Small private files that appear whole or not at all."""

import contextlib
import os
import pathlib
import stat
import tempfile


def write_private(path: 'str | os.PathLike[str]', data: bytes) -> None:
    """Write *data* to *path*, readable for its owner only.

    A regular file is replaced in one step, after its content is on the disk;
    whoever reads *path* meanwhile sees the old content or the new.  A link is
    followed.  A device or a pipe, ``/dev/stdout`` for one, is written to.

    :raises OSError: nothing was changed then
    """
    path = pathlib.Path(path)
    if _is_special(path):
        path.write_bytes(data)
        return
    path = pathlib.Path(os.path.realpath(path))
    # mkstemp makes the file with mode 0600, under a name that no other run has.
    descriptor, part = tempfile.mkstemp(
        prefix=f'.{path.name[:64]}.', suffix='.part', dir=path.parent
    )
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    sync_directory(path.parent)


def sync_directory(path: 'str | os.PathLike[str]') -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_special(path: pathlib.Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    # A directory is left to os.replace, which says what is wrong.
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
