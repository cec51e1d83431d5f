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

"""Bringing whole clouds up and down."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial

from . import (
    ceph,
    cinder,
    clouds_yaml,
    database,
    keyrings,
    keystone,
    process,
    rabbit,
    rgw,
    state,
    waiting,
)
from .errors import CancelledError, SandboxError
from .model import Cloud
from .process import Daemon
from .progress import say
from .settings import Settings, make_private


def daemons(cloud: Cloud) -> list[Daemon]:
    """Return all daemons of CLOUD in the order in which they start."""
    return [
        *ceph.daemons(cloud),
        database.daemon(cloud),
        *rabbit.daemons(cloud),
        keystone.daemon(cloud),
        *cinder.daemons(cloud),
    ]


def up(settings: Settings, names: Sequence[str]) -> None:
    """Bring the clouds NAMES up. When one fails, nothing that this call started stays."""
    clouds = state.find_or_make(settings, names)
    make_private(settings.sockets)
    for cloud in clouds:
        make_private(cloud.sockets)
    clouds_yaml.save(settings, state.known(settings))
    ours = [daemon for cloud in clouds for daemon in daemons(cloud)]
    stopped = [daemon for daemon in ours if not process.running(daemon)]
    try:
        together([partial(_up, cloud) for cloud in clouds])
    except BaseException:
        say('sandbox', 'not up; stopping what this run started')
        together([partial(process.stop, daemon) for daemon in stopped])
        raise


def _up(cloud: Cloud) -> None:
    if not missing(cloud):
        say(cloud.name, 'is up')
        return
    cinder.configure(cloud)
    together(
        [
            partial(ceph.start, cloud),
            partial(rabbit.start, cloud),
            partial(_start_databases, cloud),
        ]
    )
    cinder.start(cloud)
    say(cloud.name, 'is up')


def _start_databases(cloud: Cloud) -> None:
    database.start(cloud)
    together([partial(keystone.start, cloud), partial(cinder.sync_database, cloud)])


def missing(cloud: Cloud) -> str:
    """Return what is missing until CLOUD can be used, in words; nothing when all is well."""
    for daemon in daemons(cloud):
        if not process.running(daemon):
            return f'{daemon.name} does not run'
    with ThreadPoolExecutor() as pool:
        for daemon, what in zip(
            daemons(cloud), pool.map(lambda daemon: daemon.missing(), daemons(cloud)), strict=True
        ):
            if what:
                return f'{daemon.name}: {what}'
    return ''


def down(clouds: Sequence[Cloud]) -> None:
    """Stop CLOUDS, the users of a thing before the thing."""
    together([partial(_down, cloud) for cloud in clouds])


def _down(cloud: Cloud) -> None:
    users = [*cinder.daemons(cloud), keystone.daemon(cloud), rgw.daemon(cloud)]
    servers = [database.daemon(cloud), *rabbit.daemons(cloud)]
    monitor, *others = ceph.daemons(cloud)
    for group in (users, [*servers, *others], [monitor]):
        together([partial(process.stop, daemon) for daemon in group])
    say(cloud.name, 'is down')


def purge(settings: Settings, clouds: Sequence[Cloud]) -> None:
    """Delete the data of CLOUDS, which are down."""
    for cloud in clouds:
        keyrings.remove(cloud)
        for folder in (cloud.root, cloud.sockets):
            if folder.exists():
                shutil.rmtree(folder)
    state.forget(settings, [cloud.name for cloud in clouds])
    rest = state.known(settings)
    if rest:
        clouds_yaml.save(settings, rest)
        return
    for file in (settings.clouds_yaml, settings.state_file):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        settings.sockets.rmdir()


def together(tasks: Sequence[Callable[[], object]]) -> None:
    """Run TASKS at once, to the end of the last; raise what failed first.

    When one fails or the user gives up, whatever the others wait for is cancelled.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(tasks))) as pool:
        futures = [pool.submit(_guarded, task) for task in tasks]
        try:
            wait(futures)
        except BaseException:
            waiting.cancelled.set()
            raise
    errors = [error for future in futures if (error := future.exception())]
    # A cancelled task is a consequence, not the cause.
    for error in sorted(errors, key=lambda error: isinstance(error, CancelledError)):
        raise error


def _guarded(task: Callable[[], object]) -> None:
    try:
        task()
    except BaseException:
        waiting.cancelled.set()
        raise


def find_daemon(cloud: Cloud, name: str) -> Daemon:
    """Return the daemon NAME of CLOUD; raise SandboxError with the names there are."""
    for daemon in daemons(cloud):
        if daemon.name == name:
            return daemon
    names = ' '.join(daemon.name for daemon in daemons(cloud))
    raise SandboxError(f'there is no service {name!r}; there are: {names}')
