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

"""Archives that are not as they were written: every bit, every length, every trick."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import tarfile
import tracemalloc
import typing

import pytest
import zstandard

from osc_backup_port import errors, model
from osc_backup_port.archive import catalog, increments, sealed, store, tar_stream
from osc_backup_port.formats import rbd_diff
from osc_backup_port.moving import verify_archive
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two backups of a few bytes each, all kinds of files among them."""
    cluster = fake_ceph.Cluster()
    chain = chains.Chain(cluster, BASE, [], [])
    with chains.make_image(cluster) as image:
        for number in range(2):
            cluster.images[BASE].content.write(number << 20, b'%d' % number * 5000)
            image.create_snap(chains.snapshot(number))
            chain.backups.append(chains.backup(number))
    root = tmp_path_factory.mktemp('small')
    cinder = archives.with_metadata(chain)
    archives.create(cinder, cluster, store.Folder(root), [IDS[1]])
    (root.parent / 'stream').write_bytes(archives.create_stream(cinder, cluster, [IDS[1]]))
    cluster.close()
    return root


@contextlib.contextmanager
def memory_below(limit: int) -> typing.Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


@pytest.fixture
def stream(small: pathlib.Path) -> bytes:
    return (small.parent / 'stream').read_bytes()


def refused(root: pathlib.Path, cluster: fake_ceph.Cluster) -> bool:
    """Tell whether an import is refused, and has left nothing."""
    there = FakeCinder()
    try:
        archives.import_(there, cluster, store.Folder(root))
    except errors.PortError:
        pass
    else:
        return False
    assert not there.calls
    assert not cluster.images
    assert not cluster.objects
    return True


# All places take a minute or two.
_every = pytest.mark.parametrize('step', [13, pytest.param(1, marks=pytest.mark.long)])


@_every
def test_a_changed_bit_anywhere(
    small: pathlib.Path, cluster: fake_ceph.Cluster, step: int
) -> None:
    where = store.Folder(small)
    for path in archives.files(small):
        whole = path.read_bytes()
        for at in range(0, len(whole), step):
            bit = 1 << at % 8
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            assert not archives.is_good(where), (path, at)
            if at % 16 == 0:
                assert refused(small, cluster), (path, at)
        path.write_bytes(whole)
    assert archives.is_good(where)


@_every
def test_a_file_cut_anywhere(small: pathlib.Path, cluster: fake_ceph.Cluster, step: int) -> None:
    where = store.Folder(small)
    for path in archives.files(small):
        whole = path.read_bytes()
        for length in (*range(0, len(whole), step), len(whole) - 1):
            path.write_bytes(whole[:length])
            assert not archives.is_good(where), (path, length)
        assert refused(small, cluster)
        path.write_bytes(whole)
    assert archives.is_good(where)


def test_a_file_that_is_missing(small: pathlib.Path, cluster: fake_ceph.Cluster) -> None:
    for path in archives.files(small):
        whole = path.read_bytes()
        path.unlink()
        assert not archives.is_good(store.Folder(small)), path
        path.write_bytes(whole)


@_every
def test_a_stream_cut_anywhere(stream: bytes, step: int) -> None:
    """What was complete before the cut is there, and the cut is always told."""
    end = len(stream.rstrip(b'\0'))
    end += -end % 512 + 512
    seen = set()
    blocks = (at + around for at in range(512, end - 1, 512) for around in (-1, 0, 1))
    for length in sorted({*range(0, end, step), *blocks}):
        good = []
        try:
            source = tar_stream.Input(io.BytesIO(stream[:length]))  # type: ignore[arg-type]
            for verdict in verify_archive.run_stream(source, archives.SILENT):
                good.append(verdict.result)
        except errors.InvalidInput:
            good.append('cut')
        assert good[-1] != 'good', length
        seen.add(tuple(good))
    complete = [(), ('good',), ('good', 'good')]
    assert {(*before, 'cut') for before in complete} <= seen
    assert {(*before, 'unfinished', 'cut') for before in complete[:2]} <= seen


def test_import_of_a_stream_that_was_cut_or_changed(
    stream: bytes, cluster: fake_ceph.Cluster
) -> None:
    """Whatever record is imported: all of its backup is there, as it was written."""
    archives.import_stream_(FakeCinder(), cluster, stream)
    whole, metadata = archives.contents(cluster), dict(cluster.objects)
    clear(cluster)
    bad = bytearray(stream)
    for at in range(0, len(stream.rstrip(b'\0')), 29):
        bit = 1 << at % 8
        for content in (stream[:at], bytes(bad[:at]) + bytes([bad[at] ^ bit]) + stream[at + 1 :]):
            there = FakeCinder()
            try:
                archives.import_stream_(there, cluster, content)
            except errors.PortError:
                assert len(there.rows) < 2 or len(content) < len(stream), at
            else:
                # Bits that nothing depends on: a checksum of tar is not all of it.
                assert set(there.rows) == set(IDS[:2]), at
            found = archives.contents(cluster) if cluster.images else {}
            for row in there.rows.values():
                assert row.record is not None
                snapshot = chains.snapshot(IDS.index(row.record.id))
                assert found[snapshot] == whole[snapshot], at
                name = f'backup.{row.record.id}.meta'
                assert cluster.objects[name] == metadata[name], at
            assert len(found) == len(there.rows), at
            assert len(cluster.objects) == len(there.rows), at
            clear(cluster)


def clear(cluster: fake_ceph.Cluster) -> None:
    cluster.images.clear()
    cluster.objects.clear()


def test_import_of_a_cut_stream_keeps_what_is_complete(
    stream: bytes, cluster: fake_ceph.Cluster
) -> None:
    there = FakeCinder()
    with pytest.raises(errors.TruncatedStream):
        archives.import_stream_(there, cluster, stream[: stream.rindex(b'"record_sha256"')])
    assert set(archives.contents(cluster)) == {chains.snapshot(0)}
    assert set(there.rows) == {IDS[0]}


# What somebody may have put there who can compute a checksum.


def edit(path: pathlib.Path, **changes: typing.Any) -> None:
    document = json.loads(path.read_bytes())
    document.pop('sha256')
    path.write_bytes(sealed.seal({**document, **changes}))


@pytest.fixture
def hostile(small: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy to be tampered with."""
    for path in archives.files(small):
        target = tmp_path / 'archive' / path.relative_to(small)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / 'archive'


def folder(root: pathlib.Path, number: int = 0) -> pathlib.Path:
    return root / BASE / f'{number}-{IDS[number]}'


VALUES: list[typing.Any] = [
    None, True, -1, 1.5, 1 << 70, '', 'x', '\0', '../..', [], [[]], {}, [None], [1],
    ['x'], [{}], 'a' * 5000,
]  # fmt: skip


@pytest.mark.parametrize(
    'document', ['archive.json', f'{BASE}/image.json', f'{BASE}/1-{IDS[1]}/increment.json']
)
def test_wrong_types_everywhere(
    hostile: pathlib.Path, cluster: fake_ceph.Cluster, document: str
) -> None:
    path = hostile / document
    whole = path.read_bytes()
    # What is only told, or has a default.
    free: dict[str, list[typing.Any]] = {
        'volume_metadata_sha256': [None],
        'stripe_unit': ['x'],
        'from_snap': [],
    }
    for key in json.loads(whole):
        for value in VALUES:
            if key == 'sha256' or value in free.get(key, []):
                continue
            edit(path, **{key: value})
            try:
                ok = refused(hostile, cluster)
            except AssertionError:
                raise AssertionError(f'{key}: {value!r}') from None
            assert ok or (key == 'from_snap' and value is None), (key, value)
            path.write_bytes(whole)


@pytest.mark.parametrize(
    'changes',
    [
        {'backup_id': IDS[0]},
        {'number': 7},
        {'from_snap': chains.snapshot(1)},
        {'from_snap': chains.snapshot(4)},
        {'to_snap': chains.snapshot(0)},
        {'to_snap': f'backup.{IDS[1]}.snap.1\n'},
        {'to_snap': f'backup.{IDS[1]}.snap.../..'},
        {'to_snap': 'backup.x.snap.1'},
        {'size': 1 << 50},
        {'size': 5},
    ],
    ids=str,
)
def test_an_increment_that_lies(
    hostile: pathlib.Path, cluster: fake_ceph.Cluster, changes: dict[str, typing.Any]
) -> None:
    edit(folder(hostile, 1) / 'increment.json', **changes)
    assert refused(hostile, cluster)
    assert not archives.is_good(store.Folder(hostile))


def test_an_unknown_version(hostile: pathlib.Path) -> None:
    edit(hostile / 'archive.json', version=2)
    with pytest.raises(errors.InvalidInput, match='version 2, known here: 1'):
        catalog.read(store.Folder(hostile))


def set_segment(path: pathlib.Path, content: bytes, raw_size: int) -> None:
    (path / '00000.rbd-diff.zst').write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    entry = {'name': '00000.rbd-diff.zst', 'size': len(content), 'sha256': digest}
    edit(path / 'increment.json', segments=[{**entry, 'raw_size': raw_size}])


@pytest.mark.parametrize('tells_size', [True, False])
def test_a_segment_that_expands_to_far_more(
    hostile: pathlib.Path, cluster: fake_ceph.Cluster, tells_size: bool
) -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=tells_size).compress(bytes(1 << 30))
    for raw_size in (100, 63 << 20):
        set_segment(folder(hostile), bomb, raw_size)
        with memory_below(2 * raw_size + (16 << 20)):
            assert refused(hostile, cluster)
        with memory_below(2 * raw_size + (16 << 20)):
            assert not archives.is_good(store.Folder(hostile))


def test_a_segment_of_a_stream_that_expands_to_far_more(
    small: pathlib.Path, cluster: fake_ceph.Cluster
) -> None:
    """What it says of itself comes behind it: it may expand to what any segment may."""
    bomb = zstandard.compress(b'rbd diff v1\n' + bytes(1 << 30), 3)
    path = f'{BASE}/0-{IDS[0]}'
    content = b''.join(
        member(name, (small / name).read_bytes())
        for name in ('archive.json', f'{BASE}/image.json', f'{path}/record.json')
    )
    content += member(f'{path}/00000.rbd-diff.zst', bomb) + bytes(1024)
    with memory_below(160 << 20), pytest.raises(errors.InvalidInput):
        archives.import_stream_(FakeCinder(), cluster, content)
    assert not cluster.images


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'x',
        zstandard.compress(b'') * 2,
        zstandard.compress(b'rbd diff v1\n') * 2,
        zstandard.compress(b'rbd diff v1\n') + b'x',
        zstandard.compress(b'rbd diff v1\n')[:-1],
        zstandard.compress(b'rbd diff v1\n'),
        zstandard.compress(b'rbd diff v1\nw' + b'\xff' * 16),
        zstandard.compress(b'rbd diff v1\ns' + bytes(8) + b'e'),
        zstandard.compress(b'rbd diff v1\nt' + b'\xff' * 4 + b'x' * 100),
    ],
)
def test_segments_with_rubbish(
    hostile: pathlib.Path, cluster: fake_ceph.Cluster, content: bytes
) -> None:
    try:
        size = len(archives.expand(content))
    except zstandard.ZstdError:
        size = 1
    set_segment(folder(hostile), content, size)
    assert refused(hostile, cluster)


@pytest.mark.parametrize(
    'more',
    [
        # Zeros over data, data over data, and back to where nothing was.
        [model.Zero(8192, 100)],
        [model.Data(8191, b'y')],
        [model.Zero(0, 4096), model.Data(4095, b'y')],
        [model.Data(0, b'y')],
    ],
)
def test_records_that_go_back(
    hostile: pathlib.Path, cluster: fake_ceph.Cluster, more: list[model.Item]
) -> None:
    """Imported in their order and extracted from the end they would not be the same bytes."""
    items: list[model.Item] = [model.Data(4096, b'x' * 8192), *more]
    document = json.loads((folder(hostile) / 'increment.json').read_bytes())
    size, name = document['size'], document['to_snap']
    content = b''.join(rbd_diff.encode(model.Increment(None, name, size, iter(items))))
    set_segment(folder(hostile), zstandard.compress(content), len(content))
    assert refused(hostile, cluster)
    assert not archives.is_good(store.Folder(hostile))
    with pytest.raises(errors.InvalidInput, match='goes back'):
        list(increments.read(store.Folder(hostile), first_backup(hostile)))


def first_backup(root: pathlib.Path) -> catalog.Backup:
    (image,) = catalog.read(store.Folder(root)).images
    return image.backups[0]


def test_documents_that_want_memory(hostile: pathlib.Path) -> None:
    for content in (b'[' * 100_000, b'[' + b'{},' * 200_000 + b'{}]', b'{"a":' * 50_000):
        (folder(hostile) / 'increment.json').write_bytes(content)
        with memory_below(8 << 20):
            damage = catalog.read(store.Folder(hostile)).damage()
        assert [one.backup_id for one in damage] == [IDS[0], IDS[1]]
    (hostile / 'archive.json').write_bytes(bytes(1 << 20))
    with pytest.raises(errors.InvalidInput, match='expected at most'):
        catalog.read(store.Folder(hostile))


def test_links_pipes_and_folders(hostile: pathlib.Path, cluster: fake_ceph.Cluster) -> None:
    path = folder(hostile) / '00000.rbd-diff.zst'
    whole = path.read_bytes()
    path.unlink()
    makers: list[typing.Callable[[], object]] = [
        lambda: path.symlink_to('/etc/passwd'),
        lambda: os.mkfifo(path),
        path.mkdir,
    ]
    for make in makers:
        make()
        assert refused(hostile, cluster)
        assert not archives.is_good(store.Folder(hostile))
        path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(whole)
    assert archives.is_good(store.Folder(hostile))
    (hostile / BASE).rename(hostile.parent / 'elsewhere')
    (hostile / BASE).symlink_to(hostile.parent / 'elsewhere')
    assert refused(hostile, cluster)
    (hostile / BASE).unlink()
    (hostile / BASE).write_bytes(b'')
    assert not archives.is_good(store.Folder(hostile))


def test_nothing_is_written_through_a_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'elsewhere').mkdir()
    where = store.Folder(tmp_path / 'archive')
    where.put('archive.json', b'{}')
    (tmp_path / 'archive' / BASE).symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(errors.InvalidInput, match='is a link'):
        where.put(f'{BASE}/image.json', b'{}')
    with pytest.raises(errors.InvalidInput, match='is a link'), where.lock(BASE):
        pass
    assert list((tmp_path / 'elsewhere').iterdir()) == []


def test_a_record_of_somebody_elses_image(
    hostile: pathlib.Path, cluster: fake_ceph.Cluster
) -> None:
    """A record decides what a restore reads, and what a deletion deletes."""
    from osc_backup_port.formats import record_file

    for changes in (
        {'service_metadata': f'{{"base": "volume-{IDS[3]}.backup.{IDS[3]}"}}'},
        {'volume_id': IDS[3]},
        {'size': 2},
        {'id': IDS[3]},
    ):
        raw = record_file.write_record(chains.backup(0, **changes)).encode()
        (folder(hostile) / 'record.json').write_bytes(raw)
        digest = hashlib.sha256(raw).hexdigest()
        edit(folder(hostile) / 'increment.json', record_sha256=digest)
        assert refused(hostile, cluster), changes


def member(name: str, content: bytes = b'', **fields: typing.Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    head = info.tobuf(tarfile.GNU_FORMAT)
    return head + content + bytes(-len(content) % 512)


BAD_MEMBERS = {
    'climbs': member('../../etc/passwd', b'x'),
    'absolute': member('/etc/passwd', b'x'),
    'climbs inside': member(f'{BASE}/../x', b'x'),
    'NUL': member(f'{BASE}/0-\0', b'x'),
    'link': member(f'{BASE}/image.json', type=tarfile.SYMTYPE, linkname='/etc/passwd'),
    'hard link': member(f'{BASE}/image.json', type=tarfile.LNKTYPE, linkname='/etc/passwd'),
    'device': member(f'{BASE}/image.json', type=tarfile.CHRTYPE),
    'pipe': member(f'{BASE}/image.json', type=tarfile.FIFOTYPE),
    'sparse': member(f'{BASE}/image.json', type=tarfile.GNUTYPE_SPARSE),
    'for all that follow': member('x', b'11 path=xx\n', type=tarfile.XGLTYPE),
    'unknown type': member(f'{BASE}/image.json', type=b'Z'),
    'huge': member(f'{BASE}/image.json', b'x')[:124] + b'77777777777\0' + bytes(376),
    'huge name': member('x', type=tarfile.GNUTYPE_LONGNAME)[:124] + b'77777777777\0' + bytes(376),
    'huge image.json': member(f'{BASE}/image.json', bytes(1 << 20)),
    'archive.json twice': member('archive.json', b'{}'),
    'unknown file': member('README', b'x'),
}


def fixed(block: bytes) -> bytes:
    """Give a header its right checksum."""
    head = bytearray(block[:512])
    head[148:156] = b' ' * 8
    head[148:156] = b'%06o\0 ' % sum(head)
    return bytes(head) + block[512:]


@pytest.mark.parametrize('name', BAD_MEMBERS)
def test_hostile_members(
    small: pathlib.Path, cluster: fake_ceph.Cluster, name: str, stream: bytes
) -> None:
    mark = member('archive.json', (small / 'archive.json').read_bytes())
    content = mark + fixed(BAD_MEMBERS[name]) + stream[len(mark) :]
    with memory_below(32 << 20), pytest.raises(errors.InvalidInput):
        archives.import_stream_(FakeCinder(), cluster, content)
    assert not cluster.images


def test_members_twice_or_out_of_order(small: pathlib.Path, cluster: fake_ceph.Cluster) -> None:
    members = {
        str(path.relative_to(small)): member(str(path.relative_to(small)), path.read_bytes())
        for path in archives.files(small)
    }
    order = ['archive.json', f'{BASE}/image.json']
    for number in range(2):
        order += [
            f'{BASE}/{number}-{IDS[number]}/{name}'
            for name in (
                'record.json', 'volume-metadata.json', '00000.rbd-diff.zst', 'increment.json'
            )
        ]  # fmt: skip
    end = bytes(1024)
    whole = b''.join(members[name] for name in order) + end
    assert len(archives.import_stream_(FakeCinder(), cluster, whole)) == 2
    for number in range(1, len(order)):
        for changed in (
            [*order[: number + 1], *order[number:]],
            [*order[:number], *order[number + 1 :], order[number]],
        ):
            if changed == order:
                continue
            cluster.images.clear()
            cluster.objects.clear()
            content = b''.join(members[name] for name in changed) + end
            with pytest.raises(errors.InvalidInput):
                archives.import_stream_(FakeCinder(), cluster, content)
