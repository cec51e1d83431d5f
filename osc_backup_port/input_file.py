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

"""Read a small file that a user names: a record, a map, the metadata of a volume."""

import errno
import os
import pathlib
import stat
import sys

from osc_backup_port import errors

#: The name that stands for stdin.
STDIN = '-'

_KINDS = (
    (stat.S_ISFIFO, 'a named pipe'),
    (stat.S_ISSOCK, 'a socket'),
    (stat.S_ISBLK, 'a device'),
    (stat.S_ISCHR, 'a device'),
)


def read(path: str | pathlib.Path, limit: int) -> bytes:
    """Return the content of a file, at most *limit* bytes of it.

    A pipe that a shell hands over, as in ``<(command)``, is read, and so is stdin for
    ``-``.  What else is no regular file is refused before it is waited for.

    :raises InvalidInput: it cannot be read
    :raises FileNotFoundError: there is none
    """
    if str(path) == STDIN:
        return sys.stdin.buffer.read(limit)
    try:
        # Without it, a named pipe lets us wait for a writer for good.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _no_file(path, 'a socket') from None
        raise errors.InvalidInput(f'{path}: {error.strerror or error}.') from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise _no_file(path, 'a directory')
    with open(descriptor, 'rb') as file:
        if not stat.S_ISREG(mode):
            if not _is_handed_over(path) or stat.S_ISBLK(mode):
                raise _no_file(path, next(name for test, name in _KINDS if test(mode)))
            os.set_blocking(descriptor, True)
        try:
            return file.read(limit)
        except OSError as error:
            raise errors.InvalidInput(f'{path}: {error.strerror or error}.') from error


def _is_handed_over(path: str | pathlib.Path) -> bool:
    """Tell whether a path names a descriptor that this process has already."""
    return str(path).startswith(('/dev/fd/', '/proc/self/fd/')) or str(path) == '/dev/stdin'


def _no_file(path: str | pathlib.Path, found: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{path}: is {found}, expected a file.',
        'To hand over what a command prints, pipe it into this command and name the file -.'
        if found == 'a named pipe'
        else None,
    )
