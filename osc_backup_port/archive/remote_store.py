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

A put there is whole or not at all, as with S3.  Locks are objects that expire:
object stores of all ages have no better way.  Two runs that take one at the same
moment notice after a second which of them was last, and look once more before
they commit.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from osc_backup_port import errors
from osc_backup_port.archive import names
from osc_backup_port.archive import store as archive_store

#: Seconds after which the lock of a dead run is gone.
_DURATION = 60
_SETTLE = 1.0


class Remote:
    """An archive below a URL.

    :param url: with a scheme that fsspec knows, ``s3://bucket/prefix`` for one
    :raises InvalidInput: the scheme is not known, or its package is missing
    """

    takes_any_order = True

    def __init__(self, url: str) -> None:
        try:
            import fsspec  # type: ignore[import-untyped]
        except ImportError:
            raise _missing(url, 'fsspec') from None
        self.name = url.rstrip('/')
        try:
            self._fs, root = fsspec.core.url_to_fs(self.name)
        except (ImportError, ValueError) as error:
            raise _missing(url, str(error)) from error
        self._root = root.rstrip('/')
        # Others write there too.
        self._fs.use_listings_cache = False

    def put(self, path: str, content: bytes) -> None:
        with self._translated(path):
            self._fs.pipe_file(self._path(path), content)

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

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[Callable[[], None]]:
        place, mine = f'{path}/{names.LOCK}', uuid.uuid4().hex
        self._refuse_if_locked(place)
        self._write_lock(place, mine)
        # If another run did the same at the same time, the last one has it.
        time.sleep(_SETTLE)
        if self._read_lock(place).get('owner') != mine:
            raise archive_store.busy(f'{self.name}/{path}')
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(place, mine, stop), daemon=True)
        keeper.start()

        def check() -> None:
            if self._read_lock(place).get('owner') != mine:
                raise archive_store.busy(f'{self.name}/{path}')

        try:
            yield check
        finally:
            stop.set()
            keeper.join()
            if self._read_lock(place).get('owner') == mine:
                self.delete(place)

    def _refuse_if_locked(self, place: str) -> None:
        expires = self._read_lock(place).get('expires')
        if isinstance(expires, int | float) and expires > time.time():
            raise archive_store.busy(f'{self.name}/{place}')

    def _read_lock(self, place: str) -> dict[str, Any]:
        try:
            found = json.loads(self.get(place, 4096) or b'{}')
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _write_lock(self, place: str, owner: str) -> None:
        content = {'owner': owner, 'expires': time.time() + _DURATION}
        self.put(place, json.dumps(content).encode())

    def _keep(self, place: str, owner: str, stop: threading.Event) -> None:
        while not stop.wait(_DURATION / 4):
            with contextlib.suppress(errors.PortError):
                if self._read_lock(place).get('owner') != owner:
                    return  # somebody else has it; check() tells
                self._write_lock(place, owner)

    def _path(self, path: str) -> str:
        return f'{self._root}/{path}' if path else self._root

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (errors.PortError, FileNotFoundError):
            raise
        except Exception as error:  # every file system of fsspec has its own
            raise errors.PortError(
                f'{self.name}/{path}: {type(error).__name__}: {error}',
                'Check the URL and the credentials, then run the same command again.',
            ) from error


def _missing(url: str, problem: str) -> errors.InvalidInput:
    scheme = url.split(':', 1)[0]
    return errors.InvalidInput(
        f'{url}: the scheme {scheme} cannot be used: {problem}.',
        f"Install what it needs: pip install 'osc-backup-port[{scheme}]'",
    )
