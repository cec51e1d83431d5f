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

"""Where an archive lies: a folder here.  Elsewhere: remote_store, tar_stream."""

import contextlib
import fcntl
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from osc_backup_port import errors, files
from osc_backup_port.archive import manifest

LOG = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A file or a folder in a folder."""

    name: str
    size: int
    is_folder: bool


class Store(Protocol):
    """Files by their path below the archive, ``/`` between the parts.

    A file appears whole or not at all, and lasts when ``put`` returns.

    :ivar name: what to call the archive in messages
    :ivar takes_any_order: several threads may put at once, and what was put can be read
    :ivar keeps_locks: a lock is held until its owner gives it back or dies, however long
        it sleeps; else each run has to write into folders of its own
    """

    name: str
    takes_any_order: bool
    keeps_locks: bool

    def put(self, path: str, content: bytes) -> None: ...

    def create(self, path: str, content: bytes) -> None:
        """Put a file that nobody else has put.

        :raises Conflict: it is there, with other content
        """

    def copy(self, old: str, new: str) -> None: ...

    def commit(self, path: str, backup_id: str, content: bytes) -> None:
        """Put the file by which an increment counts.

        :raises Conflict: another run has done that for this backup
        """

    def finish_commit(self, path: str, backup_id: str) -> bool:
        """Finish the commit of a run that died within it; tell whether there was one."""

    def get(self, path: str, limit: int) -> bytes | None:
        """Return a file, None where there is none.

        :raises InvalidInput: it has more than *limit* bytes, or is no file
        """

    def entries(self, path: str) -> list[Entry]:
        """Return what is in a folder, sorted; nothing where there is none."""

    def delete(self, path: str) -> None:
        """Remove a file, and its folder with the last; not being there is fine."""

    def lock(self, path: str) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Be the only run that writes into this folder, until the block ends.

        Gives what raises ``Conflict`` if the lock was lost: to be called before
        anything that counts.

        :raises Conflict: another run does
        """


class Folder:
    """An archive in a folder of this machine."""

    takes_any_order = True
    keeps_locks = True

    def __init__(self, root: pathlib.Path) -> None:
        self.name = str(root)
        self._root = root
        LOG.info('Archive %s: a folder.', self.name)

    def put(self, path: str, content: bytes) -> None:
        files.write_file(self._place(path), content, replace=True)
        LOG.debug('Archive %s: %s written, %d bytes.', self.name, path, len(content))

    def create(self, path: str, content: bytes) -> None:
        target = self._place(path)
        try:
            files.write_file(target, content)
        except errors.Conflict as error:
            raise written_by_another(str(target)) from error
        LOG.debug('Archive %s: %s written, %d bytes.', self.name, path, len(content))

    def _place(self, path: str) -> pathlib.Path:
        """Return where to write a file; its folder is there then."""
        folder, _, name = path.rpartition('/')
        return self._make_folder(folder) / name

    def _make_folder(self, path: str) -> pathlib.Path:
        """Make a folder of the archive, if it is not there.

        :raises InvalidInput: it is a link: what is written would lie elsewhere, and nobody
            would read it
        """
        folder = self._root
        for part in pathlib.PurePath(path).parts:
            folder /= part
            if folder.is_symlink():
                raise _is_link(folder)
        files.make_folder(folder)
        return folder

    def copy(self, old: str, new: str) -> None:
        content = self.get(old, manifest.MAX_SEGMENT_SIZE)
        if content is not None:
            self.put(new, content)

    def commit(
        self,
        path: str,
        backup_id: str,
        content: bytes,
    ) -> None:
        self.create(path, content)
        LOG.info('Archive %s: backup %s is complete in %s.', self.name, backup_id, path)

    def finish_commit(self, path: str, backup_id: str) -> bool:  # noqa: ARG002 - as above
        return False

    def get(self, path: str, limit: int) -> bytes | None:
        return files.read_file(self._root / path, limit)

    def entries(self, path: str) -> list[Entry]:
        found = []
        try:
            with os.scandir(self._root / path) as scan:
                for item in scan:
                    if item.is_symlink():
                        raise _is_link(item.path)
                    found.append(Entry(item.name, item.stat().st_size, item.is_dir()))
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            place = self._root / path
            raise errors.DamagedArchive(f'{place}: is a file, expected a folder.') from None
        return sorted(found)

    def delete(self, path: str) -> None:
        target = self._root / path
        target.unlink(missing_ok=True)
        LOG.debug('Archive %s: %s removed.', self.name, path)
        with contextlib.suppress(OSError):
            target.parent.rmdir()

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[Callable[[], None]]:
        folder = self._make_folder(path)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # The kernel drops it with the process, however that ends.
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy(str(folder)) from None
            LOG.info('Archive %s/%s: lock taken.', self.name, path)
            try:
                yield functools.partial(_check_same, descriptor, folder)
            finally:
                LOG.info('Archive %s/%s: lock given back.', self.name, path)
        finally:
            os.close(descriptor)


class Guarded:
    """A store that sees before each write that a lock is still held.

    :param check: raises ``Conflict`` if it was lost
    """

    def __init__(self, store: Store, check: Callable[[], None]) -> None:
        self.name = store.name
        self.takes_any_order = store.takes_any_order
        self.keeps_locks = store.keeps_locks
        self._store = store
        self._check = check
        self.get = store.get
        self.entries = store.entries
        self.lock = store.lock

    def put(self, path: str, content: bytes) -> None:
        self._check()
        self._store.put(path, content)

    def create(self, path: str, content: bytes) -> None:
        self._check()
        self._store.create(path, content)

    def copy(self, old: str, new: str) -> None:
        self._check()
        self._store.copy(old, new)

    def commit(self, path: str, backup_id: str, content: bytes) -> None:
        self._check()
        self._store.commit(path, backup_id, content)

    def finish_commit(self, path: str, backup_id: str) -> bool:
        self._check()
        return self._store.finish_commit(path, backup_id)

    def delete(self, path: str) -> None:
        self._check()
        self._store.delete(path)


def _is_link(place: object) -> errors.InvalidInput:
    return errors.InvalidInput(f'{place}: is a link, expected a file or a folder.')


def _check_same(descriptor: int, folder: pathlib.Path) -> None:
    """See that what is locked is still what lies there under its name."""
    try:
        is_same = os.path.samestat(os.fstat(descriptor), folder.stat())
    except OSError:
        is_same = False
    if not is_same:
        raise errors.Conflict(
            f'{folder}: was moved or removed while this run was writing there.',
            'Put it back, then run the same command again.',
        )


def too_large(name: str, size: int, limit: int) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{name}: has {size} bytes, expected at most {limit}.',
        'The archive is damaged, or is not one of ours.',
    )


def written_by_another(name: str) -> errors.Conflict:
    return errors.Conflict(
        f'{name}: another run has written it meanwhile.',
        'Wait until that run has ended, then run the same command again: what is complete is '
        'kept.',
    )


def lost(name: str) -> errors.Conflict:
    return errors.Conflict(
        f'{name}: this run lost its lock: it was stopped or cut off for too long, and another '
        'run may be writing there.',
        'Run the same command again: what is complete is kept.',
    )


def busy(name: str) -> errors.Conflict:
    return errors.Conflict(
        f'{name}: another run is writing there.',
        'Wait until it has ended, then run the same command again.',
    )
