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

"""kill -9 at any point of archive create and import, and the same command again."""

import collections.abc
import functools
import logging
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

LOG = logging.getLogger(__name__)

ARCHIVE = (*chains.BACKUP, 'archive')


@pytest.mark.long
@pytest.mark.parametrize('points', [20])
def test_killed_and_again(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    tmp_path: pathlib.Path,
    points: int,
) -> None:
    """However far they came: the same command again, and all is right."""
    chain = _make_chain(src, resources)
    chains.forget(dst, resources, chain)
    before = pool.contents()
    create = ('create', tmp_path / 'whole', chain.backups[-1])
    creating = _Span.of(src, tmp_path / 'whole', create)
    importing = _Span.of(dst, None, ('import', tmp_path / 'whole'))
    _take_away(dst, chain, pool, before)
    for number in range(points):
        LOG.info('point %s; create: %s; import: %s', number, creating, importing)
        archive = tmp_path / str(number)
        creating.kill(
            number / points,
            ('create', archive, chain.backups[-1]),
            functools.partial(shutil.rmtree, archive),
        )
        src.openstack(*ARCHIVE, 'create', archive, chain.backups[-1])
        src.openstack(*ARCHIVE, 'verify', archive)
        assert _names(archive) == _names(tmp_path / 'whole')
        importing.kill(
            number / points,
            ('import', archive),
            functools.partial(_take_away, dst, chain, pool, before),
        )
        dst.openstack(*ARCHIVE, 'import', archive)
        assert chain.sums_of(pool) == chain.sums
        assert _belongs(pool.contents() - before, chain)
        if number % 5 == 0:
            for backup, expected in zip(chain.backups, chain.sums, strict=True):
                assert chains.restore(dst, resources, backup)['checksum'] == expected
        _take_away(dst, chain, pool, before)
        shutil.rmtree(archive)
    LOG.info('create: %s; import: %s', creating, importing)


class _Span:
    """From where a command begins to write to its end, in seconds after its start."""

    def __init__(self, cloud: shell.Cloud, start: float, end: float) -> None:
        self._cloud = cloud
        self._start = start
        self._end = end
        self.misses = 0

    def __str__(self) -> str:
        return f'{self._start:.2f} to {self._end:.2f} s, {self.misses} misses'

    @classmethod
    def of(cls, cloud: shell.Cloud, folder: object, arguments: tuple[object, ...]) -> '_Span':
        """Measure a run that nobody disturbs; what it does before is the dry run."""
        begun = time.monotonic()
        cloud.openstack(*ARCHIVE, *arguments, '--dry-run')
        planned = time.monotonic() - begun
        begun = time.monotonic()
        cloud.openstack(*ARCHIVE, *arguments)
        return cls(cloud, planned * 0.9, time.monotonic() - begun)

    def kill(
        self,
        part: float,
        arguments: tuple[object, ...],
        undo: collections.abc.Callable[[], object],
    ) -> None:
        """Kill the command at this part of the span; earlier, if it has ended by then.

        :param undo: take away what a run made that has ended
        """
        while not self._kill(part, arguments):
            undo()
            part *= 0.8
            self.misses += 1

    def _kill(self, part: float, arguments: tuple[object, ...]) -> bool:
        command = self._cloud.command(*ARCHIVE, *arguments)
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._cloud.environment,
        ) as process:
            time.sleep(self._start + (self._end - self._start) * part)
            process.kill()
        return process.returncode == -signal.SIGKILL


def _make_chain(cloud: shell.Cloud, resources: Resources) -> chains.Chain:
    """Make three backups, with data enough that a run takes some seconds."""
    volumes = ceph.volume_pool(cloud)
    volume_id, name = chains.make_volume(cloud, resources)
    image = f'volume-{volume_id}'
    backups, sums = [], []
    for number in range(3):
        ceph.write_noise(volumes, image, 128 * ceph.MIB, (160 + 200 * number) * ceph.MIB)
        ceph.write_state(volumes, image, number)
        sums.append(volumes.checksum(image))
        backups.append(resources.backup(cloud, volume_id, incremental=number > 0))
    return chains.Chain(cloud, volume_id, name, backups, sums)


def _take_away(
    cloud: shell.Cloud, chain: chains.Chain, pool: ceph.Pool, before: frozenset[str]
) -> None:
    for backup in reversed(chain.backups):
        chains.delete_backup(cloud, backup)
    pool.expect(before)


def _names(root: pathlib.Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob('*')}


def _belongs(added: frozenset[str], chain: chains.Chain) -> bool:
    """Tell whether all that came into the pool is of the chain, and finished."""
    metas = {f'backup.{backup}.meta' for backup in chain.backups}
    named = {name for name in added if not name.startswith(('rbd_data.', 'rbd_object_map.'))}
    others = {
        name
        for name in named - metas
        if not name.startswith((f'image {chain.image}', 'rbd_header.', f'rbd_id.{chain.image}'))
    }
    return not others and not any('.part' in name for name in added)
