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

"""The stock tools of Ceph, as the judge of what lies in a cluster.

Nothing of the package is used here: ``rbd`` and ``rados`` say what is there, and
every checksum is of what ``rbd export`` gives.  Only the volumes, which no
virtual machine writes to in a test, are filled through librbd.
"""

import collections.abc
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import subprocess
import time
import typing

import pytest

from tests.functional import shell

MIB = 1 << 20
_PIECE = 4 * MIB
_ZEROS = bytes(_PIECE)

#: What RBD itself keeps in every pool that ever had an image.
_FURNITURE = ('rbd_children', 'rbd_directory', 'rbd_info', 'rbd_trash', 'rbd_mirroring')


def release() -> int:
    """Return the number of the release of Ceph that is installed here, 16 for one."""
    told = subprocess.run(['rbd', '--version'], capture_output=True, check=True, text=True).stdout
    return int(told.split()[2].partition('.')[0])


def checksum_of(stream: typing.IO[bytes]) -> str:
    """Return the checksum of a whole stream, told by its size and what in it is not zero.

    To hash a GiB of zeros takes seconds, and the tests do it a hundred times.
    """
    digest = hashlib.sha256()
    size = 0
    while piece := stream.read(_PIECE):
        if piece != _ZEROS:
            digest.update(size.to_bytes(8, 'big') + piece)
        size += len(piece)
    digest.update(size.to_bytes(8, 'big'))
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Pool:
    """A pool, seen by one user of the cluster."""

    conf: str
    user: str
    name: str

    def rbd(self, *arguments: object, stdin: bytes | None = None) -> bytes:
        """Run ``rbd`` in this pool and return what it printed."""
        return self._run(['rbd', *map(str, arguments)], stdin)

    def rados(self, *arguments: object, stdin: bytes | None = None) -> bytes:
        """Run ``rados`` in this pool and return what it printed."""
        return self._run(['rados', *map(str, arguments)], stdin)

    def _run(self, command: list[str], stdin: bytes | None = None) -> bytes:
        process = subprocess.run(
            [*command, *self._options],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=shell.plain_environment(),
            check=False,
        )
        if process.returncode:
            raise AssertionError(f'{" ".join(command)}: {process.stderr.decode()}')
        return process.stdout

    @property
    def _options(self) -> list[str]:
        return ['--conf', self.conf, '--id', self.user, '--pool', self.name]

    def images(self) -> list[str]:
        """Return the names of all images."""
        return list(json.loads(self.rbd('ls', '--format', 'json')))

    def snapshots(self, image: str) -> list[str]:
        """Return the names of the snapshots of an image, oldest first."""
        listed = json.loads(self.rbd('snap', 'ls', image, '--format', 'json'))
        return [snapshot['name'] for snapshot in listed]

    def snapshot_of(self, image: str, backup_id: str) -> str:
        """Return ``image@snapshot`` of a backup."""
        (found,) = (
            name for name in self.snapshots(image) if name.startswith(f'backup.{backup_id}.snap.')
        )
        return f'{image}@{found}'

    def checksum(self, image: str) -> str:
        """Return the checksum of an image, or of ``image@snapshot``, from end to end."""
        command = ['rbd', 'export', '--no-progress', image, '-', *self._options]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=shell.plain_environment()
        ) as export:
            assert export.stdout is not None
            found = checksum_of(export.stdout)
        assert export.returncode == 0, command
        return found

    def contents(self) -> frozenset[str]:
        """Return the name of everything in the pool: images, snapshots, objects."""
        objects = self.rados('ls').decode().splitlines()
        found = {name for name in objects if not name.startswith(_FURNITURE)}
        for image in self.images():
            found.add(f'image {image}')
            found.update(f'image {image}@{name}' for name in self.snapshots(image))
        return frozenset(found)

    def expect(self, wanted: frozenset[str], timeout: float = 60) -> None:
        """Wait until the pool holds just that.

        The data of what was removed goes some seconds later; of what is in
        *wanted*, too, so that data need not be there.
        """
        deadline = time.monotonic() + timeout
        named = {name for name in wanted if not name.startswith('rbd_data.')}
        while not named <= (found := self.contents()) <= wanted:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f'pool {self.name}: too much: {sorted(found - wanted)[:20]}; '
                    f'missing: {sorted(named - found)[:20]}'
                )
            time.sleep(0.5)

    @contextlib.contextmanager
    def unchanged(self) -> collections.abc.Iterator[None]:
        """Make sure that the block leaves the pool as it was."""
        before = self.contents()
        yield
        self.expect(before)

    def clear(self, volume_id: str, backups: collections.abc.Iterable[str]) -> None:
        """Remove all that a failed test may have left of these backups."""
        for image in self.images():
            if volume_id in image:
                self.rbd('snap', 'purge', '--no-progress', image)
                self.rbd('rm', '--no-progress', image)
        for name in self.rados('ls').decode().splitlines():
            if volume_id in name or name in {f'backup.{backup}.meta' for backup in backups}:
                self.rados('rm', name)

    @contextlib.contextmanager
    def open_image(self, image: str) -> collections.abc.Iterator[typing.Any]:
        """Open an image to write to it, through librbd."""
        import rados
        import rbd

        with (
            rados.Rados(conffile=self.conf, rados_id=self.user) as cluster,
            cluster.open_ioctx(self.name) as ioctx,
            rbd.Image(ioctx, image) as opened,
        ):
            yield opened


def backup_pool(cloud: shell.Cloud) -> Pool:
    """Return where a cloud keeps its backups, from the keys that the commands use too."""
    config = cloud.config
    try:
        return Pool(
            config['backup_ceph_conf'], config['backup_ceph_user'], config['backup_ceph_pool']
        )
    except KeyError as error:
        pytest.skip(f'clouds.yaml has no {error} for cloud {cloud.name}')


def volume_pool(cloud: shell.Cloud) -> Pool:
    """Return where a cloud keeps its volumes, which only the tests have to know."""
    config = cloud.config
    if cloud.sandbox:
        config = {'rbd_user': 'cinder', 'rbd_pool': 'volumes', **config}
    try:
        return Pool(config['backup_ceph_conf'], config['rbd_user'], config['rbd_pool'])
    except KeyError as error:
        pytest.skip(f'clouds.yaml has no {error} for cloud {cloud.name}')


def write_state(pool: Pool, image: str, number: int) -> None:
    """Bring a volume into the next of three states, which differ everywhere it hurts.

    Blocks of random bytes, some of them over the border of an object; bytes
    replaced by zeros; ranges discarded, a whole object among them.
    """
    noise = random.Random(f'{image} {number}')
    with pool.open_image(image) as opened:
        last = opened.size() // MIB - 8
        for _ in range(4 - number):
            opened.write(noise.randbytes(3 * MIB + 12345), noise.randrange(last) * MIB + 777)
        if number == 0:
            opened.write(noise.randbytes(32 * MIB), 64 * MIB)
            opened.write(noise.randbytes(4 * MIB), opened.size() - 4 * MIB)
        elif number == 1:
            opened.write(bytes(5 * MIB), 66 * MIB)
            opened.discard(72 * MIB, 4 * MIB)
        else:
            opened.write(noise.randbytes(MIB), 67 * MIB)
            opened.discard(80 * MIB + 4096, 65536)
            opened.discard(opened.size() - 4 * MIB, 4 * MIB)
        opened.flush()


def write_noise(pool: Pool, image: str, size: int, offset: int) -> None:
    """Write random bytes, the same for the same volume and place."""
    noise = random.Random(f'{image} {offset}')
    with pool.open_image(image) as opened:
        for at in range(offset, offset + size, 8 * MIB):
            opened.write(noise.randbytes(min(8 * MIB, offset + size - at)), at)
        opened.flush()


def conf_with(pool: Pool, folder: pathlib.Path, **options: object) -> str:
    """Return a copy of the cluster's configuration with other options for clients."""
    path = folder / 'ceph.conf'
    text = pathlib.Path(pool.conf).read_text()
    lines = [f'{key} = {value}' for key, value in options.items()]
    path.write_text(os.linesep.join([text, '[client]', *lines, '']))
    return str(path)
