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

"""Two clouds, and what the tests make there and take away again.

Without anything in the environment the clouds ``src`` and ``dst`` of
``tools/sandbox`` are used; they have to be up.  ``OS_CLOUD`` names another cloud
of clouds.yaml, in which the user is admin, and ``OS_CLOUD_DESTINATION`` a
second one; tests that need the second one are skipped without it.  Tests that stop
services or need a plain member run in the sandbox only.  All that is made has a name
that begins with ``port-test-``, and goes away at the end.
"""

import collections.abc
import contextlib
import functools
import os
import subprocess
import sys
import typing
import uuid

import pytest

from tests.functional import ceph, chains, shell


@pytest.fixture(scope='session')
def clouds() -> dict[str, shell.Cloud]:
    """The clouds by the part that they play: src, dst, src-member, dst-member."""
    own = os.environ.get('OS_CLOUD')
    sandbox = shell.sandbox_environment('src')
    config_file = os.environ.get('OS_CLIENT_CONFIG_FILE')
    if own and config_file != sandbox['OS_CLIENT_CONFIG_FILE']:
        return _clouds_of_environment(own, os.environ.get('OS_CLOUD_DESTINATION'))
    status = subprocess.run(
        [sys.executable, shell.SANDBOX, 'status'], capture_output=True, text=True, check=False
    )
    if status.returncode:
        pytest.exit(f'The sandbox is not up; run: tools/sandbox up\n{status.stdout}', 1)
    environment = {
        **shell.plain_environment(),
        'OS_CLIENT_CONFIG_FILE': sandbox['OS_CLIENT_CONFIG_FILE'],
    }
    return {
        f'{name}{who}': shell.Cloud(f'{name}{who}', environment, name)
        for name in ('src', 'dst')
        for who in ('', '-member')
    }


def _clouds_of_environment(own: str, second: str | None) -> dict[str, shell.Cloud]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ('OS_CLOUD', 'OS_CLOUD_DESTINATION')
    }
    found = {'src': shell.Cloud(own, environment)}
    if second:
        found['dst'] = shell.Cloud(second, environment)
    return found


def _cloud(clouds: dict[str, shell.Cloud], name: str) -> shell.Cloud:
    if name not in clouds:
        pytest.skip(f'the environment names no cloud to be {name}')
    return clouds[name]


@pytest.fixture(scope='session')
def src(clouds: dict[str, shell.Cloud]) -> shell.Cloud:
    """The cloud that backups come from, as admin."""
    return _cloud(clouds, 'src')


@pytest.fixture(scope='session')
def dst(clouds: dict[str, shell.Cloud]) -> shell.Cloud:
    """The cloud that backups go to, as admin."""
    return _cloud(clouds, 'dst')


@pytest.fixture(scope='session')
def src_member(clouds: dict[str, shell.Cloud]) -> shell.Cloud:
    """The first cloud, as a plain member of a project."""
    return _cloud(clouds, 'src-member')


@pytest.fixture(scope='session')
def dst_member(clouds: dict[str, shell.Cloud]) -> shell.Cloud:
    """The second cloud, as a plain member of a project."""
    return _cloud(clouds, 'dst-member')


class Resources:
    """Makes volumes and backups, and removes them, newest first."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()

    def volume(self, cloud: shell.Cloud, size: int = 1, **options: typing.Any) -> str:
        """Make an empty volume and return its id."""
        body = {'volume': {'name': f'port-test-{uuid.uuid4()}', 'size': size, **options}}
        volume_id: str = cloud.rest('POST', '/volumes', body)['volume']['id']
        self.forget_volume(cloud, volume_id)
        cloud.wait(f'/volumes/{volume_id}')
        return volume_id

    def backup(self, cloud: shell.Cloud, volume_id: str, **options: typing.Any) -> str:
        """Back a volume up and return the id of the backup."""
        name = f'port-test-{uuid.uuid4()}'
        body = {'backup': {'volume_id': volume_id, 'name': name, **options}}
        backup_id: str = cloud.rest('POST', '/backups', body)['backup']['id']
        self.forget_backup(cloud, backup_id)
        cloud.wait(f'/backups/{backup_id}')
        return backup_id

    def snapshot(self, cloud: shell.Cloud, volume_id: str) -> str:
        """Take a snapshot of a volume and return its id."""
        body = {'snapshot': {'volume_id': volume_id, 'name': f'port-test-{uuid.uuid4()}'}}
        snapshot_id: str = cloud.rest('POST', '/snapshots', body)['snapshot']['id']
        self._undo.callback(_delete, cloud, f'/snapshots/{snapshot_id}')
        cloud.wait(f'/snapshots/{snapshot_id}')
        return snapshot_id

    def forget_volume(self, cloud: shell.Cloud, volume_id: str) -> None:
        """Delete this volume at the end, if it is there then."""
        self._undo.callback(_delete, cloud, f'/volumes/{volume_id}')

    def forget_backup(self, cloud: shell.Cloud, backup_id: str) -> None:
        """Delete this backup at the end, if it is there then."""
        self._undo.callback(_delete, cloud, f'/backups/{backup_id}')

    def callback(self, function: collections.abc.Callable[..., object], *args: object) -> None:
        """Call this at the end."""
        self._undo.callback(function, *args)

    def close(self) -> None:
        self._undo.close()


def _delete(cloud: shell.Cloud, path: str) -> None:
    if cloud.status(path) != 404:
        cloud.rest('DELETE', path)
        cloud.wait(path, None)


@pytest.fixture
def resources() -> collections.abc.Iterator[Resources]:
    """Makes what one test needs."""
    made = Resources()
    yield made
    made.close()


@pytest.fixture(scope='module')
def module_resources() -> collections.abc.Iterator[Resources]:
    """Makes what the tests of one file share."""
    made = Resources()
    yield made
    made.close()


@pytest.fixture(scope='module')
def chain(src: shell.Cloud, module_resources: Resources) -> list[str]:
    """A full backup and two increments of one (empty) volume: their ids, oldest first."""
    volume_id = module_resources.volume(src)
    return [module_resources.backup(src, volume_id, incremental=number > 0) for number in range(3)]


@pytest.fixture(scope='session')
def session_resources() -> collections.abc.Iterator[Resources]:
    """Makes what several files share."""
    made = Resources()
    yield made
    made.close()


@pytest.fixture(scope='session')
def filled(src: shell.Cloud, session_resources: Resources) -> chains.Chain:
    """A full backup and two increments of one volume, each with content of its own."""
    return chains.make_chain(src, session_resources)


@pytest.fixture(scope='session')
def diffs(filled: chains.Chain, tmp_path_factory: pytest.TempPathFactory) -> list[chains.Export]:
    """The filled chain as rbd diffs: each from the one before."""
    folder = tmp_path_factory.mktemp('diffs')
    steps = ((0, None), (1, 0), (2, 1))
    return chains.side_by_side(
        *(
            functools.partial(chains.export, filled, number, 'rbd-diff', folder, since)
            for number, since in steps
        )
    )


@pytest.fixture(scope='session')
def raws(filled: chains.Chain, tmp_path_factory: pytest.TempPathFactory) -> list[chains.Export]:
    """Each of the filled chain as a raw image."""
    folder = tmp_path_factory.mktemp('raws')
    return chains.side_by_side(
        *(functools.partial(chains.export, filled, number, 'raw', folder) for number in range(3))
    )


@pytest.fixture(scope='session')
def whole(filled: chains.Chain, tmp_path_factory: pytest.TempPathFactory) -> chains.Export:
    """All of the filled chain in one file."""
    return chains.export(filled, 2, 'rbd', tmp_path_factory.mktemp('whole'))


@pytest.fixture
def pool(dst: shell.Cloud) -> ceph.Pool:
    """Where dst keeps its backups."""
    return ceph.backup_pool(dst)
