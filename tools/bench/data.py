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

"""The images that are measured with: chains of backups as Cinder would have made them.

Half of every MiB is noise and half is text of a kind, so that compression has something to do
and does not win for nothing.
"""

import base64
import contextlib
import dataclasses
import json
import random
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .place import Cluster

MIB = 2**20
GIB = 2**30
_RUN = 32 * MIB
_TEXT = b'All work and no play. ' * (MIB // 22) + bytes(range(1, 1 + MIB % 22))
#: Noted on an image that is as it should be.
_WHOLE = 'bench-whole'
_SPACE = uuid.UUID('6f0d3c52-9d53-4a4c-8f6f-0b1d0b3d5f10')


@dataclasses.dataclass(frozen=True)
class Chain:
    """Backups of one volume, the oldest first.

    :ivar has_snapshots: False: the one backup is the image itself, as Cinder makes it of a
        volume that is not in Ceph
    """

    volume_id: str
    backups: tuple[str, ...]
    size: int
    has_snapshots: bool = True

    @property
    def image(self) -> str:
        return f'volume-{self.volume_id}.backup.{self.backups[0]}'

    def snapshot(self, number: int = -1) -> str:
        number = range(len(self.backups))[number]
        return f'backup.{self.backups[number]}.snap.{1700000000 + number}.25'

    def point(self, number: int = -1) -> str:
        return f'{self.image}@{self.snapshot(number)}' if self.has_snapshots else self.image

    def record(self, number: int, pool: str) -> str:
        """Return the ``backup_url`` of a backup."""
        number = range(len(self.backups))[number]
        fields = {
            'id': self.backups[number],
            'volume_id': self.volume_id,
            'parent_id': self.backups[number - 1] if number else None,
            'size': max(self.size // GIB, 1),
            'status': 'available',
            'service': 'cinder.backup.drivers.ceph.CephBackupDriver',
            'service_metadata': json.dumps({'base': self.image}) if self.has_snapshots else None,
            'container': pool,
            'display_name': f'bench-{number}',
            'display_description': None,
            'object_count': 0,
            'created_at': f'2024-01-01T00:00:{number % 60:02}.000000',
        }
        return base64.b64encode(json.dumps(fields).encode()).decode()


def name_chain(what: str, size: int, backups: int = 1) -> Chain:
    """Return the same ids for the same words, always."""
    return Chain(
        str(uuid.uuid5(_SPACE, what)),
        tuple(str(uuid.uuid5(_SPACE, f'{what} {number}')) for number in range(backups)),
        size,
    )


def make(
    cluster: Cluster, chain: Chain, filled: int, changed: int = 0, is_text: bool = False
) -> None:
    """Make the image of a chain, if it is not there as it should be.

    :param filled: bytes of data in the first backup, in runs all over the image
    :param changed: bytes that each later one changes, in pieces of 1 MiB
    :param is_text: let all of it be such that compression leaves nearly nothing
    """
    with _connected(cluster) as (rbd, ioctx):
        if chain.image in rbd.RBD().list(ioctx):
            with rbd.Image(ioctx, chain.image, read_only=True) as image:
                if dict(image.metadata_list()).get(_WHOLE):
                    return
            remove(cluster, chain.image)
        rbd.RBD().create(ioctx, chain.image, chain.size, features=_features(rbd))
        noise = random.Random(chain.image)
        blocks = [_TEXT] if is_text else [_block(noise) for _ in range(97)]
        with rbd.Image(ioctx, chain.image) as image:
            for number in range(len(chain.backups)):
                if number:
                    _change(image, noise, blocks, changed)
                else:
                    _fill(image, blocks, filled)
                image.flush()
                if chain.has_snapshots:
                    image.create_snap(chain.snapshot(number))
            image.metadata_set(_WHOLE, 'yes')


def remove(cluster: Cluster, *names: str) -> None:
    """Remove images with their snapshots; not being there is fine."""
    with _connected(cluster) as (rbd, ioctx):
        there = rbd.RBD().list(ioctx)
        for name in names:
            if name in there:
                with rbd.Image(ioctx, name) as image:
                    for snap in list(image.list_snaps()):
                        image.remove_snap(snap['name'])
                _remove(rbd, ioctx, name)


def _remove(rbd: Any, ioctx: Any, name: str) -> None:
    """Remove an image; who was killed counts as one who uses it, for half a minute."""
    deadline = time.monotonic() + 40
    while True:
        try:
            rbd.RBD().remove(ioctx, name)
            return
        except rbd.ImageBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def create_empty(cluster: Cluster, name: str, size: int) -> None:
    """Make an image for a peer to write to, as Cinder makes them."""
    with _connected(cluster) as (rbd, ioctx):
        rbd.RBD().create(ioctx, name, size, features=_features(rbd))


def go_back(cluster: Cluster, name: str, snapshot: str) -> bool:
    """Make an image what it was when this was its newest snapshot; False: it never was."""
    with _connected(cluster) as (rbd, ioctx):
        if name not in rbd.RBD().list(ioctx):
            return False
        with rbd.Image(ioctx, name) as image:
            names = [snap['name'] for snap in image.list_snaps()]
            if snapshot not in names:
                return False
            for later in names:
                if later != snapshot:
                    image.remove_snap(later)
            image.rollback_to_snap(snapshot)
        return True


def write_diff(cluster: Cluster, name: str, path: Path) -> None:
    """Bring a file of ``rbd export-diff`` into an image."""
    subprocess.run(
        f'{cluster.rbd} import-diff {path} {name}'.split(), check=True, capture_output=True
    )


def images(cluster: Cluster, word: str) -> Sequence[str]:
    """Return the names of images with *word* in them."""
    with _connected(cluster) as (rbd, ioctx):
        return [name for name in rbd.RBD().list(ioctx) if word in name]


def _features(rbd: Any) -> int:
    return int(
        rbd.RBD_FEATURE_LAYERING
        | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
        | rbd.RBD_FEATURE_OBJECT_MAP
        | rbd.RBD_FEATURE_FAST_DIFF
    )


def _block(noise: random.Random) -> bytes:
    half = noise.randbytes(MIB // 2)
    text = bytes(32 + byte % 16 for byte in half[: MIB // 16]) * 8
    return half + text


def _fill(image: Any, blocks: list[bytes], filled: int) -> None:
    runs = filled // _RUN
    apart = image.size() // runs // _RUN * _RUN
    for run in range(runs):
        for at in range(0, _RUN, 4 * MIB):
            first = (run * _RUN + at) // MIB
            data = b''.join(blocks[(first + more) % len(blocks)] for more in range(4))
            image.write(data, run * apart + at)


def _change(image: Any, noise: random.Random, blocks: list[bytes], changed: int) -> None:
    for place in sorted(noise.sample(range(image.size() // MIB), changed // MIB)):
        image.write(noise.choice(blocks), place * MIB)


@contextlib.contextmanager
def _connected(cluster: Cluster) -> Iterator[tuple[Any, Any]]:
    import rados
    import rbd

    with (
        rados.Rados(conffile=cluster.conf, rados_id=cluster.user) as client,
        client.open_ioctx(cluster.pool) as ioctx,
    ):
        yield rbd, ioctx
