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

"""What goes into an archive comes out of it: folder, stream, object store."""

import pathlib
import uuid

import pytest
import zstandard

from osc_backup_port import errors
from osc_backup_port.archive import catalog, remote_store, segments, store
from osc_backup_port.formats import incoming, rbd_diff, stream
from osc_backup_port.moving import verify_archive
from osc_backup_port.moving.plan import State
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import archives, chains, streams
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder


@pytest.fixture
def target() -> fake_ceph.Cluster:
    return fake_ceph.Cluster(1)


@pytest.fixture
def chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    return chains.make_chain(cluster, 3)


def expected(chain: chains.Chain) -> dict[str, chains.Blocks]:
    return {chains.snapshot(n): content for n, content in enumerate(chain.contents)}


@pytest.mark.parametrize('level', [3, None])
@pytest.mark.parametrize('kind', ['folder', 'memory', 'stream'])
def test_a_chain(
    chain: chains.Chain,
    target: fake_ceph.Cluster,
    tmp_path: pathlib.Path,
    kind: str,
    level: int | None,
) -> None:
    cinder, there = archives.with_metadata(chain), FakeCinder()
    if kind == 'stream':
        archives.import_stream_(
            there, target, archives.create_stream(cinder, chain.cluster, [IDS[2]])
        )
    else:
        where: store.Store = (
            store.Folder(tmp_path / 'a')
            if kind == 'folder'
            else remote_store.Remote(f'memory://{uuid.uuid4()}/prefix')
        )
        archives.create(cinder, chain.cluster, where, [IDS[2]], level=level)
        assert archives.is_good(where)
        steps = archives.import_(there, target, where)
        assert [step.state for step in steps] == [State.DONE] * 3
    assert archives.contents(target) == expected(chain)
    assert target.images[BASE].content.dump() == chain.contents[2]
    assert set(target.objects) == {f'backup.{key}.meta' for key in IDS[:3]}
    assert set(there.rows) == set(IDS[:3])
    assert [there.rows[key].record for key in IDS[:3]] != []
    target.close()


def test_a_second_run_writes_nothing(chain: chains.Chain, tmp_path: pathlib.Path) -> None:
    cinder, where = archives.with_metadata(chain), store.Folder(tmp_path)
    archives.create(cinder, chain.cluster, where, [IDS[1]])
    before = {path: path.stat() for path in archives.files(tmp_path)}
    steps = archives.create(cinder, chain.cluster, where, [IDS[1]])
    assert [(step.state, step.moved) for step in steps] == [(State.PRESENT, 0)] * 2
    grown = archives.create(cinder, chain.cluster, where, [IDS[2]])
    assert [step.state for step in grown] == [State.PRESENT, State.PRESENT, State.DONE]
    for path, old in before.items():
        new = path.stat()
        assert (new.st_ino, new.st_mtime_ns, new.st_size) == (
            old.st_ino,
            old.st_mtime_ns,
            old.st_size,
        )


def test_import_twice_and_half_there(
    chain: chains.Chain, target: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    cinder, where = archives.with_metadata(chain), store.Folder(tmp_path)
    archives.create(cinder, chain.cluster, where, [IDS[2]])
    # The record without the image, and then the image without the record.
    there = FakeCinder(*chain.backups)
    assert {s.state for s in archives.import_(there, target, where)} == {State.DONE}
    before = target.dump()
    there = FakeCinder()
    steps = archives.import_(there, target, where)
    assert {(s.state, s.moved) for s in steps} == {(State.PRESENT, 0)}
    assert {s.record_step.result for s in steps if s.record_step} == {'imported'}
    assert (target.dump() == before) is True
    target.close()


def test_one_backup_brings_its_ancestors(
    chain: chains.Chain, target: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    cinder, where, there = archives.with_metadata(chain), store.Folder(tmp_path), FakeCinder()
    archives.create(cinder, chain.cluster, where, [IDS[2]])
    archives.import_(there, target, where, [IDS[1]])
    assert set(archives.contents(target)) == {chains.snapshot(0), chains.snapshot(1)}
    assert set(there.rows) == set(IDS[:2])
    archives.import_(there, target, where)
    assert archives.contents(target) == expected(chain)
    assert there.export_record(IDS[1]).num_dependent_backups == 0
    target.close()


def test_deletes_in_the_middle_and_at_the_end(
    cluster: fake_ceph.Cluster, target: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    chain = chains.make_chain(cluster, 3)
    where, there = store.Folder(tmp_path), FakeCinder()
    archives.create(archives.with_metadata(chain), cluster, where, [IDS[2]])
    # Since then: the newest one was deleted, the next builds on the one before.
    with rbd.Image(cluster.connect(), BASE) as image:
        image.remove_snap(chains.snapshot(2))
        image.rollback_to_snap(chains.snapshot(1))
        chains.change(cluster.images[BASE].content, 3)
        image.create_snap(chains.snapshot(3))
    newest = chains.backup(3, parent_id=IDS[1])
    chain.contents.append(cluster.images[BASE].content.dump())
    (*_, step) = archives.create(FakeCinder(*chain.backups[:2], newest), cluster, where, [IDS[3]])
    assert (step.state, step.start) == (State.DONE, chains.snapshot(1))
    assert archives.is_good(where)
    archives.import_(there, target, where)
    assert archives.contents(target) == expected(chain)
    target.close()


def test_single(chain: chains.Chain, target: fake_ceph.Cluster, tmp_path: pathlib.Path) -> None:
    cinder, where, there = archives.with_metadata(chain), store.Folder(tmp_path), FakeCinder()
    archives.create(cinder, chain.cluster, where, [IDS[1]], single=True)
    archives.import_(there, target, where)
    own = f'volume-{chains.VOLUME}.backup.{IDS[1]}'
    assert archives.contents(target, own) == {chains.snapshot(1): chain.contents[1]}
    record = there.export_record(IDS[1])
    assert (record.parent_id, record.base_image) == (None, own)
    assert record.num_dependent_backups == 0
    # In its chain, too: then the chain is taken, whole.
    archives.create(cinder, chain.cluster, where, [IDS[2]])
    other, anew = fake_ceph.Cluster(2), FakeCinder()
    archives.import_(anew, other, where, [IDS[2]])
    assert set(other.images) == {BASE}
    other.close()
    target.close()


@pytest.mark.parametrize('sizes', [(1, 2, 3), (3, 1, 2)])
def test_a_volume_that_changed_its_size(
    cluster: fake_ceph.Cluster,
    target: fake_ceph.Cluster,
    tmp_path: pathlib.Path,
    sizes: tuple[int, ...],
) -> None:
    backups, wanted = [], {}
    with chains.make_image(cluster, BASE, sizes[0] << 30) as image:
        for number, size in enumerate(sizes):
            image.resize(size << 30)
            cluster.images[BASE].content.write((size << 30) - 5000, b'x%d' % number * 2000)
            cluster.images[BASE].content.truncate(size << 30)
            image.create_snap(chains.snapshot(number))
            backups.append(chains.backup(number, size=size))
            wanted[chains.snapshot(number)] = cluster.images[BASE].content.dump()
    where, there = store.Folder(tmp_path / 'a'), FakeCinder()
    archives.create(FakeCinder(*backups), cluster, where, [IDS[2]])
    archives.import_(there, target, where)
    assert archives.contents(target) == wanted
    contents = catalog.read(where)
    for number, backup in enumerate(contents.backups()):
        file = chains.memory_file()
        archives.extract(where, backup.id, 'raw', file, tmp_path)
        assert chains.blocks_of_file(file) == wanted[chains.snapshot(number)]
        assert file.seek(0, 2) == sizes[number] << 30
    target.close()


def test_a_volume_with_nothing_in_it(
    cluster: fake_ceph.Cluster, target: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    chain = chains.Chain(cluster, BASE, [], [])
    with chains.make_image(cluster) as image:
        for number in range(2):
            image.create_snap(chains.snapshot(number))
            chain.backups.append(chains.backup(number))
            chain.contents.append({})
    where = store.Folder(tmp_path)
    archives.create(archives.with_metadata(chain), cluster, where, [IDS[1]])
    assert archives.is_good(where)
    archives.import_(FakeCinder(), target, where)
    assert archives.contents(target) == expected(chain)
    target.close()


@pytest.mark.parametrize('legacy', [True, False])
def test_old_layouts(
    cluster: fake_ceph.Cluster, target: fake_ceph.Cluster, tmp_path: pathlib.Path, legacy: bool
) -> None:
    """``.backup.base`` with snapshots; an image with no snapshot gets one."""
    if legacy:
        name = f'volume-{chains.VOLUME}.backup.base'
        chain = chains.make_chain(cluster, 2, name)
        backups = [chains.backup(n, service_metadata=None) for n in range(2)]
        wanted = [chains.snapshot(0), chains.snapshot(1)]
    else:
        name = BASE
        chain = chains.make_chain(cluster, 1)
        cluster.images[BASE].snapshots.clear()
        backups = [chains.backup(0, service_metadata=None)]
        wanted = [chains.snapshot(0)]
    where, there = store.Folder(tmp_path), FakeCinder()
    archives.create(FakeCinder(*backups), cluster, where, [backups[-1].id])
    archives.import_(there, target, where)
    assert archives.contents(target, name) == dict(zip(wanted, chain.contents, strict=True))
    assert set(there.rows) == {backup.id for backup in backups}
    target.close()


@pytest.mark.parametrize('image_format', ['raw', 'rbd-diff'])
def test_extract(chain: chains.Chain, tmp_path: pathlib.Path, image_format: str) -> None:
    where = store.Folder(tmp_path / 'a')
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[2]])
    contents = catalog.read(where)
    for number in range(3):
        file, backup = chains.memory_file(), contents.find(IDS[number])
        archives.extract(where, backup.id, image_format, file, tmp_path)
        file.seek(0)
        if image_format == 'raw':
            assert chains.blocks_of_file(file) == chain.contents[number]
            continue
        arriving = incoming.open_stream(stream.Reader(file, 'x'), 0, incoming.RBD_DIFF)
        found = [chains.blocks_of(chains.SIZE, list(i.items)) for i in arriving.increments]
        assert found == [chain.contents[number]]


def test_segments_by_hand(
    chain: chains.Chain, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All frames one after the other are one stream of version 1."""
    monkeypatch.setattr('osc_backup_port.archive.manifest.SEGMENT_SIZE', 100_000)
    where = store.Folder(tmp_path)
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[1]])
    before: chains.Blocks = {}
    for number in range(2):
        folder = tmp_path / BASE / f'{number}-{IDS[number]}'
        pieces = sorted(folder.glob('*.rbd-diff.zst'))
        assert len(pieces) > 2
        raw = archives.expand(b''.join(path.read_bytes() for path in pieces))
        increment = rbd_diff.read(streams.reader(raw))
        assert increment.to_snap == chains.snapshot(number)
        before = chains.blocks_of(chains.SIZE, list(increment.items), before)
        assert before == chain.contents[number]
    assert archives.is_good(where)


def test_verify_against_the_cluster(chain: chains.Chain, tmp_path: pathlib.Path) -> None:
    where = store.Folder(tmp_path)
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[2]])

    def results() -> list[str]:
        pool = chain.cluster.pool()
        return [v.result for v in verify_archive.run(where, archives.SILENT, False, pool)]

    assert results() == ['good'] * 3
    chain.cluster.images[BASE].snapshots[1].content.write(900 << 20, b'other')
    assert results()[1] == 'damaged'
    chain.cluster.images.clear()
    assert results() == ['not in the cluster'] * 3


def test_a_head_without_snapshots_stands_in_the_way(
    chain: chains.Chain, target: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    where, there = store.Folder(tmp_path), FakeCinder()
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[2]])
    chains.make_image(target).close()
    with pytest.raises(errors.Conflict, match='without the snapshot'):
        archives.import_(there, target, where)
    assert not there.calls
    target.close()


def test_a_frame_that_does_not_tell_its_size() -> None:
    """Such are made by those who compress from a pipe."""
    raw = b'rbd diff v1\n' * 1000
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    assert segments.expand(frame, '00000.rbd-diff.zst', len(raw), 'x') == raw
    with pytest.raises(errors.InvalidInput, match='x: is not one whole zstd frame'):
        segments.expand(frame, '00000.rbd-diff.zst', len(raw) - 1, 'x')
