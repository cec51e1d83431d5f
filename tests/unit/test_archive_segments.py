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

"""Segments that a dead run left: proven, or written anew; and threads that end in time."""

import pathlib
import random
import shutil
import time

import pytest
import zstandard

from osc_backup_port import errors
from osc_backup_port.archive import store
from osc_backup_port.moving import archive_segments, verify_archive
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder

FOLDER = f'{BASE}/0-{IDS[0]}'


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('osc_backup_port.archive.manifest.SEGMENT_SIZE', 70_000)
    monkeypatch.setattr(archive_segments, '_PROOF_LENGTH', 2)


@pytest.fixture
def chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    chain = chains.make_chain(cluster, 1)
    noise = random.Random(1).randbytes(900_000)
    cluster.images[BASE].snapshots[0].content.write(1 << 20, noise)
    return chain


class Recording(store.Folder):
    """Remembers what was put, and can be killed.

    :ivar most: segments that are put before the run is killed
    """

    def __init__(self, root: pathlib.Path, most: int = 1 << 30) -> None:
        super().__init__(root)
        self.most = most
        self.segments: list[str] = []

    def put(self, path: str, content: bytes) -> None:
        if '.rbd-diff' in path:
            if len(self.segments) >= self.most:
                raise KeyboardInterrupt
            self.segments.append(path.split('/')[-1])
        super().put(path, content)


def kill_create(chain: chains.Chain, root: pathlib.Path, level: int | None, most: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        archives.create(
            archives.with_metadata(chain),
            chain.cluster,
            Recording(root, most),
            [IDS[0]],
            level=level,
        )


def check(chain: chains.Chain, where: store.Store) -> None:
    """See that the archive is good, and holds what the pool does."""
    verdicts = list(verify_archive.run(where, archives.SILENT, quick=False))
    assert [verdict.result for verdict in verdicts] == ['good']
    target = fake_ceph.Cluster(1)
    archives.import_(FakeCinder(), target, where)
    expected = chain.cluster.images[BASE].snapshots[0].content.dump()
    assert (archives.contents(target)[chains.snapshot(0)] == expected) is True
    target.close()


@pytest.mark.parametrize('level', [3, None])
def test_what_is_proven_is_not_written_again(
    chain: chains.Chain, tmp_path: pathlib.Path, level: int | None
) -> None:
    kill_create(chain, tmp_path, level, 8)
    proofs = sorted((tmp_path / FOLDER).glob('*.proof.json'))
    assert proofs
    proven = 2 * len(proofs)

    where = Recording(tmp_path)
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[0]], level=level)

    assert min(where.segments)[:5] == f'{proven:05}'
    assert not list((tmp_path / FOLDER).glob('*.proof.json'))
    check(chain, where)


@pytest.mark.parametrize('verify', [True, False])
def test_all_but_the_commit_is_proven(
    chain: chains.Chain, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    monkeypatch.setattr(archive_segments, '_PROOF_LENGTH', 1)
    cinder = archives.with_metadata(chain)

    class Dying(store.Folder):
        def commit(self, path: str, key: str, content: bytes) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archives.create(cinder, chain.cluster, Dying(tmp_path), [IDS[0]])
    where = Recording(tmp_path)

    archives.create(cinder, chain.cluster, where, [IDS[0]], verify=verify)

    assert where.segments == []
    check(chain, where)


@pytest.mark.parametrize('level', [3, None])
@pytest.mark.parametrize('proven', [True, False])
def test_a_segment_that_rotted_is_written_anew(
    chain: chains.Chain, tmp_path: pathlib.Path, level: int | None, proven: bool
) -> None:
    """Any of them, wherever a bit is changed, with the note of the dead run or without."""
    kill_create(chain, tmp_path / 'killed', level, 6)
    left = sorted((tmp_path / 'killed' / FOLDER).glob('*.rbd-diff*'))
    for number, victim in enumerate(left[::2]):
        size = victim.stat().st_size
        for at in {size // 2, size - 1}:
            root = tmp_path / f'{number}-{at}'
            shutil.copytree(tmp_path / 'killed', root)
            spoilt = bytearray(victim.read_bytes())
            spoilt[at] ^= 1
            (root / FOLDER / victim.name).write_bytes(spoilt)
            for proof in (root / FOLDER).glob('*.proof.json'):
                if not proven:
                    proof.unlink()
            where = store.Folder(root)
            archives.create(
                archives.with_metadata(chain), chain.cluster, where, [IDS[0]], level=level
            )
            check(chain, where)


def test_a_note_of_a_dead_run_that_rotted_proves_nothing(
    chain: chains.Chain, tmp_path: pathlib.Path
) -> None:
    kill_create(chain, tmp_path, 3, 8)
    first = min((tmp_path / FOLDER).glob('*.proof.json'))
    first.write_bytes(first.read_bytes().replace(b'"size": ', b'"size": 1', 1))
    where = Recording(tmp_path)

    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[0]])

    assert '00000.rbd-diff.zst' in where.segments
    check(chain, where)


def test_another_compression_begins_anew(chain: chains.Chain, tmp_path: pathlib.Path) -> None:
    kill_create(chain, tmp_path, 3, 8)
    where = store.Folder(tmp_path)

    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[0]], level=None)

    assert not list((tmp_path / FOLDER).glob('*.zst'))
    check(chain, where)


def test_a_frame_has_a_checksum(chain: chains.Chain, tmp_path: pathlib.Path) -> None:
    archives.create(archives.with_metadata(chain), chain.cluster, store.Folder(tmp_path), [IDS[0]])
    frames = [path.read_bytes() for path in (tmp_path / FOLDER).glob('*.zst')]
    assert all(zstandard.get_frame_parameters(frame).has_checksum for frame in frames)


def test_no_thread_writes_when_the_lock_is_given_back(
    chain: chains.Chain, tmp_path: pathlib.Path
) -> None:
    """A read fails while segments are on their way into a slow archive."""
    ended: list[str] = []
    reads = [0]

    class Slow(store.Folder):
        def put(self, path: str, content: bytes) -> None:
            if '.rbd-diff' in path:
                time.sleep(0.3)
            super().put(path, content)
            ended.append(path)

    def fail(what: str) -> int:
        reads[0] += what.startswith('aio_read')
        return 5 if reads[0] > 78 else 0

    chain.cluster.hook = fail
    with pytest.raises(errors.CephError):
        archives.create(archives.with_metadata(chain), chain.cluster, Slow(tmp_path), [IDS[0]])
    before = list(ended)
    time.sleep(0.5)
    assert ended == before
    assert any('.rbd-diff' in path for path in before)
