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

"""The way into a Ceph cluster and one of its pools."""

import contextlib
import dataclasses
import logging
import time
import types
from collections.abc import Iterator
from typing import Any

from osc_backup_port import errors, model
from osc_backup_port.ceph import commands, memory, pool

LOG = logging.getLogger(__name__)

#: Seconds after which an operation without an answer is an error; Ceph itself
#: waits forever.  Only where the cluster's own configuration says nothing.
_TIMEOUTS = {
    'client_mount_timeout': '30',
    'rados_mon_op_timeout': '30',
    'rados_osd_op_timeout': '120',
}
#: How many questions librbd has under way by itself, about the objects of an image, in each
#: of our calls; it has ten by default, and they are small.
_QUESTIONS = {'rbd_concurrent_management_ops': '64'}
#: Many writes are under way anyhow, so that the cache of librbd only takes memory, and tells
#: of an error when nobody knows any more what it was about.
_CACHE = {'rbd_cache': 'false'}
#: The pools that are in use, in all threads.
_OPEN: set[pool.Pool] = set()
_AS_THE_OTHERS = model.NewImages()


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Where a cluster is and who asks; None: what Ceph itself falls back to.

    :param new_images: how images are made there
    """

    conf: str | None = None
    user: str | None = None
    new_images: model.NewImages = _AS_THE_OTHERS

    @property
    def client_id(self) -> str:
        """The user without "client.", as librados and ``--id`` take it."""
        return (self.user or 'admin').removeprefix('client.')

    def commands(self, pool: str | None = None) -> commands.Commands:
        return commands.Commands(self.conf, self.client_id if self.user else None, pool)


@contextlib.contextmanager
def open_pool(settings: Settings, name: str) -> Iterator[pool.Pool]:
    """Connect to a cluster and open a pool of it, until the block ends.

    :raises CephError: the bindings are missing, the cluster does not answer,
        the user or the pool is refused
    """
    rados, rbd = _bindings()
    memory.use_one_arena()
    client = _connect(rados, settings)
    try:
        try:
            ioctx = client.open_ioctx(name)
        except rados.ObjectNotFound:
            raise _no_such_pool(client, name, settings) from None
        except rados.Error as error:
            raise errors.CephError(f'Pool {name}: cannot be opened: {error}.') from error
        # A pool without room refuses what is written, instead of letting it wait.
        ioctx.set_osdmap_full_try()
        shell = settings.commands(name)
        opened = pool.Pool(name, client, ioctx, rados, rbd, shell, settings.new_images)
        _OPEN.add(opened)
        LOG.info('%s: pool %s is open.', _describe(settings), name)
        try:
            yield opened
        finally:
            opened.close()
            _OPEN.discard(opened)
            ioctx.close()
            LOG.debug('%s: pool %s is closed.', _describe(settings), name)
    finally:
        client.shutdown()


def silent_pools(seconds: float) -> list[str]:
    """Return the names of open pools whose cluster does not answer in so many seconds."""
    asked = [(one.name, one.ask()) for one in list(_OPEN)]
    deadline = time.monotonic() + seconds
    return [
        name for name, answered in asked if not answered.wait(max(deadline - time.monotonic(), 0))
    ]


def _bindings() -> tuple[types.ModuleType, types.ModuleType]:
    """Import Ceph's bindings, which only commands with images need."""
    try:
        import rados
        import rbd
    except ImportError as error:
        raise errors.CephError(
            f"Ceph's Python bindings cannot be imported: {error}.",
            'They come with the distribution, not from PyPI: install python3-rados and '
            'python3-rbd (apt-get install python3-rados python3-rbd), and let the virtual '
            'environment of openstack see them (python3 -m venv --system-site-packages).',
        ) from error
    return rados, rbd


def _connect(rados: Any, settings: Settings) -> Any:
    where = _describe(settings)
    try:
        client = rados.Rados(conffile=settings.conf or '', rados_id=settings.client_id)
    except rados.Error as error:
        raise errors.CephError(
            f'{where}: the configuration cannot be read: {error}.',
            'Name another file: --ceph-conf <path>, or the key backup_ceph_conf in clouds.yaml',
        ) from error
    for option, seconds in _TIMEOUTS.items():
        if float(client.conf_get(option) or 0) in (0.0, 300.0):
            client.conf_set(option, seconds)
    for option, value in (_QUESTIONS | _CACHE).items():
        # Not every release knows all of them.
        with contextlib.suppress(rados.Error):
            client.conf_set(option, value)
    try:
        client.connect()
    except rados.Error as error:
        client.shutdown()
        raise errors.CephError(
            f'{where}: the cluster cannot be reached: {error}.', _advice(rados, error, settings)
        ) from error
    return client


def _advice(rados: Any, error: Exception, settings: Settings) -> str:
    user, admin = settings.client_id, commands.Commands(settings.conf)
    if isinstance(error, rados.PermissionError | rados.PermissionDeniedError):
        return (
            f'The cluster refuses the key of client.{user}. Compare the keyring with what an '
            f'admin of the cluster is told by: {admin.ceph("auth", "get", f"client.{user}")}'
        )
    if isinstance(error, rados.ObjectNotFound):
        return (
            f'Perhaps there is no keyring for client.{user}, or no such configuration file. '
            'Options: --ceph-conf, --ceph-user; keys in clouds.yaml: backup_ceph_conf, '
            'backup_ceph_user'
        )
    return f'Try: {settings.commands().ceph("status")}'


def _describe(settings: Settings) -> str:
    conf = settings.conf or 'the default ceph.conf'
    return f'Ceph cluster of {conf} as client.{settings.client_id}'


def _no_such_pool(client: Any, name: str, settings: Settings) -> errors.NotFound:
    with contextlib.suppress(Exception):
        there = ', '.join(sorted(client.list_pools()))
        return errors.NotFound(
            f'{_describe(settings)}: there is no pool {name}; there are: {there}.',
            'Name the pool of backup_ceph_pool in cinder.conf: --ceph-pool <pool>',
        )
    return errors.NotFound(f'{_describe(settings)}: there is no pool {name}.')
