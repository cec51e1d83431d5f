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

"""An archive in an object store, or wherever else fsspec can reach.

A put there is whole or not at all, as with S3.  Nothing there holds a lock for us: a run
that was stopped for an hour wakes up and goes on where it was, within a put.  So a lock
keeps runs from disturbing each other, and what makes a mistake harmless are two rules:

* A run writes into folders of its own.  Each increment that it begins gets a number that
  no folder has, and the folder is taken with a put that fails where something is.
* An increment is committed by one object for its backup, ``<backup id>.commit.json``,
  which is put in the same way: the first run wins, for good.  ``increment.json`` follows,
  by this run or, if it dies within, by the next.  What others left of the backup is
  removed only then.

S3 has such a put (If-None-Match); where a store has none, it is looked first, and
afterwards whose content is there.

The lock is an object with the name of its owner, and a second one, which only the owner
writes and changes every few seconds.  Whoever waits watches that with its own clock, which
is compared with no other; whoever cannot change it for a while has lost the lock.
"""

import contextlib
import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from osc_backup_port import documents, errors
from osc_backup_port.archive import names, sealed, secret_url
from osc_backup_port.archive import store as archive_store

LOG = logging.getLogger(__name__)

#: Seconds between two signs of life.
_BEAT = 5.0
#: Seconds without one after which the owner gives up, and after which others take over.
_LEASE = 20.0
_DEAD = 30.0


class Remote:
    """An archive below a URL.

    :param url: with a scheme that fsspec knows, ``s3://bucket/prefix`` for one
    :raises InvalidInput: the scheme is not known, or its package is missing
    """

    takes_any_order = True
    keeps_locks = False

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError:
            raise _missing(url, 'fsspec') from None
        self._url = url.rstrip('/')
        self.name = secret_url.hide(self._url, url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise _missing(url, str(error)) from None
        except Exception as error:  # every file system of fsspec has its own
            raise self._failed('', error) from None
        self._root = root.rstrip('/')
        # Others write there too.
        self._fs.use_listings_cache = False
        LOG.info('Archive %s: an object store.', self.name)

    def put(self, path: str, content: bytes) -> None:
        with self._translated(path):
            self._fs.pipe_file(self._path(path), content)
        LOG.debug('Archive %s: %s written, %d bytes.', self.name, path, len(content))

    def create(self, path: str, content: bytes) -> None:
        failure: Exception | None = None
        with self._translated(path):
            try:
                self._fs.pipe_file(self._path(path), content, mode='create')
            except Exception as error:  # every file system of fsspec has its own
                failure = error
        # The answer to a put that was done may be lost, and the put repeated.
        there = self.get(path, sealed.MAX_SIZE)
        if there is None and failure is not None:
            with self._translated(path):
                raise failure
        if there != content:
            raise archive_store.written_by_another(f'{self.name}/{path}')
        LOG.debug('Archive %s: %s written first, %d bytes.', self.name, path, len(content))

    def copy(self, old: str, new: str) -> None:
        with self._translated(new):
            self._fs.cp_file(self._path(old), self._path(new))
        LOG.debug('Archive %s: %s copied to %s.', self.name, old, new)

    def commit(self, path: str, backup_id: str, content: bytes) -> None:
        self.put(f'{path}.new', content)
        self.create(_commit_object(path, backup_id), _encode_commit(path, content))
        self.put(path, content)
        self.delete(f'{path}.new')
        LOG.info('Archive %s: backup %s is complete in %s.', self.name, backup_id, path)

    def finish_commit(self, path: str, backup_id: str) -> bool:
        committed = self.get(_commit_object(path, backup_id), sealed.MAX_SMALL_SIZE)
        content = self.get(f'{path}.new', sealed.MAX_SIZE) if committed else None
        if content is None or committed != _encode_commit(path, content):
            return False
        self.put(path, content)
        self.delete(f'{path}.new')
        LOG.info(
            'Archive %s: a run that died left backup %s committed, but not complete. It is '
            'complete now, in %s.',
            self.name,
            backup_id,
            path,
        )
        return True

    def get(self, path: str, limit: int) -> bytes | None:
        with self._translated(path):
            try:
                size = self._fs.info(self._path(path))['size'] or 0
                if size > limit:
                    raise archive_store.too_large(f'{self.name}/{path}', size, limit)
                content: bytes = self._fs.cat_file(self._path(path))
            except FileNotFoundError:
                return None
        return content

    def entries(self, path: str) -> list[archive_store.Entry]:
        with self._translated(path):
            self._fs.invalidate_cache()
            try:
                found = self._fs.ls(self._path(path), detail=True)
            except FileNotFoundError:
                return []
        return sorted(
            archive_store.Entry(
                item['name'].rstrip('/').rsplit('/', 1)[-1],
                item.get('size') or 0,
                item['type'] == 'directory',
            )
            for item in found
            if item['name'].rstrip('/') != self._path(path)
        )

    def delete(self, path: str) -> None:
        with self._translated(path), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(path))
            LOG.debug('Archive %s: %s removed.', self.name, path)

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[Callable[[], None]]:
        lock = _Lock(self, path)
        lock.acquire()
        try:
            yield lock.check
        finally:
            lock.release()

    def _path(self, path: str) -> str:
        return f'{self._root}/{path}' if path else self._root

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (errors.PortError, FileNotFoundError):
            raise
        except Exception as error:  # every file system of fsspec has its own
            # Not "from" it: its own text, which may hold secrets, would be printed by --debug.
            raise self._failed(path, error) from None

    def _failed(self, path: str, error: Exception) -> errors.PortError:
        problem = secret_url.hide(f'{type(error).__name__}: {error}', self._url)
        return errors.PortError(
            f'{self.name}/{path}: {problem}',
            'Check the URL and the credentials, then run the same command again.',
        )


class _Lock:
    """The lock of one folder, and the signs of life of its owner."""

    def __init__(self, store: Remote, path: str) -> None:
        self._store = store
        self._name = f'{store.name}/{path}'
        self._path = path
        self._place = f'{path}/{names.LOCK}'
        self._owner = uuid.uuid4().hex
        self._beats = 0
        self._confirmed = _now()
        self._is_lost = False
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def acquire(self) -> None:
        """:raises Conflict: its owner lives"""
        self._wait_for_death()
        self._beat()
        self._store.create(self._place, json.dumps({'owner': self._owner}).encode())
        LOG.info('Archive %s: lock taken as %s.', self._name, self._owner)
        self._keeper.start()

    def check(self) -> None:
        """:raises Conflict: the lock was lost"""
        if not self._is_lost and (
            _now() - self._confirmed > _LEASE or self._owner_there() != self._owner
        ):
            self._is_lost = True
            LOG.warning('Archive %s: lock lost: another run may have it.', self._name)
        if self._is_lost:
            raise archive_store.lost(self._name)

    def release(self) -> None:
        self._stop.set()
        self._keeper.join()
        # What cannot be removed now is taken for dead by the next run.
        with contextlib.suppress(errors.PortError):
            self._store.delete(self._sign(self._owner))
        with contextlib.suppress(errors.PortError):
            self.check()
            self._store.delete(self._place)
            LOG.info('Archive %s: lock given back.', self._name)

    def _wait_for_death(self) -> None:
        """Return when there is no lock, or its owner gave no sign of life for long."""
        seen, since = self._signs(), time.monotonic()
        while seen is not None and time.monotonic() - since < _DEAD:
            time.sleep(min(1.0, _DEAD / 10))
            signs = self._signs()
            if signs is not None and signs != seen:
                raise archive_store.busy(self._name)
            seen = signs
        if seen is not None:
            owner = self._owner_there()
            LOG.warning(
                'Archive %s: taking over the lock of run %s: no sign of life for %.0f s.',
                self._name,
                owner,
                _DEAD,
            )
            self._store.delete(self._place)
            if owner:
                self._store.delete(self._sign(owner))

    def _signs(self) -> tuple[bytes, bytes | None] | None:
        """Return what changes while the owner lives; None: there is no lock."""
        lock = self._store.get(self._place, 4096)
        if lock is None:
            return None
        owner = _owner_in(lock)
        return lock, self._store.get(self._sign(owner), 4096) if owner else None

    def _owner_there(self) -> str | None:
        return _owner_in(self._store.get(self._place, 4096) or b'')

    def _sign(self, owner: str) -> str:
        return f'{self._path}/lock.{owner}.json'

    def _beat(self) -> None:
        begun = _now()
        self._beats += 1
        self._store.put(self._sign(self._owner), json.dumps({'beat': self._beats}).encode())
        self._confirmed = begun

    def _keep(self) -> None:
        while not self._stop.wait(_BEAT):
            # Whatever fails here: without a beat check() finds that the lock is lost.
            with contextlib.suppress(errors.PortError):
                self.check()
                self._beat()
                LOG.debug('Archive %s: lock renewed.', self._name)


def _now() -> float:
    """Return seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _owner_in(content: bytes) -> str | None:
    try:
        owner = documents.read_json(content)['owner']
    except (ValueError, KeyError, TypeError):
        return None
    return owner if isinstance(owner, str) and owner.isalnum() else None


def _commit_object(path: str, backup_id: str) -> str:
    return f'{path.split("/")[0]}/{names.commit(backup_id)}'


def _encode_commit(path: str, content: bytes) -> bytes:
    """Return the content of the object that commits the increment *content* at *path*."""
    return sealed.seal({'path': path, 'increment': hashlib.sha256(content).hexdigest()})


def _missing(url: str, problem: str) -> errors.InvalidInput:
    scheme = url.split(':', 1)[0]
    return errors.InvalidInput(
        secret_url.hide(f'{url}: the scheme {scheme} cannot be used: {problem}.', url),
        f"Install what it needs: pip install 'osc-backup-port[{scheme}]'",
    )
