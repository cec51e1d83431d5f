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

"""One set of rules: what is refused of a folder is refused of an object store and of a stream."""

import collections.abc
import hashlib
import io
import json
import pathlib
import tarfile
import typing
import uuid

import pytest

from osc_backup_port import errors, units
from osc_backup_port.archive import catalog, remote_store, sealed, store, tar_stream
from osc_backup_port.formats import record_file
from osc_backup_port.moving import verify_archive
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder

Files = dict[str, bytes]
FOLDERS = [f'{BASE}/{number}-{IDS[number]}' for number in range(3)]
VICTIM = f'volume-{IDS[3]}.backup.{IDS[4]}'
LEGACY = f'volume-{chains.VOLUME}.backup.base'


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Three backups of a few bytes each."""
    cluster = fake_ceph.Cluster()
    chain = chains.Chain(cluster, BASE, [], [])
    with chains.make_image(cluster) as image:
        for number in range(3):
            cluster.images[BASE].content.write(number << 20, b'%d' % number * 5000)
            image.create_snap(chains.snapshot(number))
            chain.backups.append(chains.backup(number))
    root = tmp_path_factory.mktemp('small')
    archives.create(archives.with_metadata(chain), cluster, store.Folder(root), [IDS[2]])
    cluster.close()
    return {str(path.relative_to(root)): path.read_bytes() for path in archives.files(root)}


class Form(typing.NamedTuple):
    """A way in which an archive may lie somewhere, and what the commands make of it."""

    name: str
    root: pathlib.Path

    def _store(self, files: Files) -> store.Store:
        where: store.Store = store.Folder(self.root / uuid.uuid4().hex)
        if self.name == 'memory':
            where = remote_store.Remote(f'memory://{uuid.uuid4().hex}')
        for path, content in files.items():
            where.put(path, content)
        return where

    def _stream(self, files: Files) -> tar_stream.Input:
        return tar_stream.Input(io.BytesIO(pack(files)))  # type: ignore[arg-type]

    def verify(
        self, files: Files, expected: collections.abc.Collection[str] = ()
    ) -> list[tuple[str, str]]:
        """Return the id and the result of each verdict; of what ends it the class."""
        found = []
        try:
            if self.name == 'stream':
                verdicts = verify_archive.run_stream(
                    self._stream(files), archives.SILENT, expected
                )
            else:
                verdicts = verify_archive.run(
                    self._store(files), archives.SILENT, quick=False, expected=expected
                )
            for verdict in verdicts:
                known = verdict.result in ('good', 'not in the cluster')
                assert known == (verdict.problem is None)
                found.append((verdict.backup_id, verdict.result))
        except errors.InvalidInput as error:
            found.append(('', type(error).__name__))
        return found

    def listed(self, files: Files) -> tuple[list[str], int]:
        """Return the ids of the backups, and how much is damaged or lost."""
        try:
            if self.name == 'stream':
                contents = tar_stream.read_catalog(self._stream(files))
            else:
                contents = catalog.read(self._store(files))
        except errors.InvalidInput:
            return [], 1
        return [backup.id for backup in contents.backups()], len(contents.damage())

    def import_(self, files: Files, cluster: fake_ceph.Cluster) -> tuple[FakeCinder, list[str]]:
        """Return what is in the cloud then, and what went wrong."""
        there = FakeCinder()
        try:
            if self.name == 'stream':
                found = archives.import_stream_all(there, cluster, pack(files))[1]
            else:
                found = archives.import_all(there, cluster, self._store(files)).findings()
        except errors.InvalidInput as error:
            found = [error]
        return there, [str(error) for error in found]


@pytest.fixture(params=['folder', 'memory', 'stream'])
def form(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Form:
    return Form(request.param, tmp_path)


def pack(files: Files) -> bytes:
    """Return the tar stream of an archive, its files in the order in which they count."""

    def place(path: str) -> tuple[object, ...]:
        parts = path.split('/')
        number = int(parts[1].split('-')[0]) if len(parts) == 3 else -1
        kinds = ('record.json', 'volume-metadata.json', '0', '1', 'increment.json')
        kind = next((at for at, kind in enumerate(kinds) if parts[-1].startswith(kind)), 9)
        return path != 'archive.json', parts[0], number, *parts[1:-1], kind, path

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as tar:
        for path in sorted(files, key=place):
            info = tarfile.TarInfo(path)
            info.size = len(files[path])
            tar.addfile(info, io.BytesIO(files[path]))
    return file.getvalue()


def edit(files: Files, path: str, **changes: object) -> None:
    """Change a document and seal it again, as somebody may who means ill."""
    document = json.loads(files[path])
    document.pop('sha256')
    files[path] = sealed.seal({**document, **changes})


def set_record(files: Files, number: int, **changes: object) -> None:
    """Change a record, and what the increment says of it."""
    raw = record_file.write_record(chains.backup(number, **changes)).encode()
    files[f'{FOLDERS[number]}/record.json'] = raw
    edit(
        files,
        f'{FOLDERS[number]}/increment.json',
        record_sha256=hashlib.sha256(raw).hexdigest(),
    )


def twice(files: Files, **record_changes: object) -> None:
    """Put the first backup there once more, as the last one."""
    for path in [path for path in files if path.startswith(FOLDERS[0])]:
        files[path.replace('/0-', '/3-')] = files[path]
    again = FOLDERS[0].replace('/0-', '/3-')
    raw = files[f'{again}/record.json']
    if record_changes:
        raw = record_file.write_record(chains.backup(0, **record_changes)).encode()
        files[f'{again}/record.json'] = raw
    digest = hashlib.sha256(raw).hexdigest()
    edit(files, f'{again}/increment.json', number=3, record_sha256=digest)


def based_on(image: str) -> str:
    return json.dumps({'base': image})


def increment(files: Files, number: int, **changes: object) -> None:
    edit(files, f'{FOLDERS[number]}/increment.json', **changes)


FORGED: dict[str, collections.abc.Callable[[Files], object]] = {
    'a backup twice': twice,
    'a backup twice, with the image of somebody else': lambda files: twice(
        files, service_metadata=based_on(VICTIM)
    ),
    'the image of somebody else': lambda files: set_record(
        files, 0, service_metadata=based_on(VICTIM)
    ),
    'an image of nobody': lambda files: set_record(files, 1, service_metadata=based_on('x')),
    'another volume': lambda files: set_record(files, 1, volume_id=IDS[3]),
    'another volume and its image': lambda files: set_record(
        files, 2, volume_id=IDS[3], service_metadata=based_on(VICTIM)
    ),
    'another size': lambda files: set_record(files, 0, size=2),
    'another backup': lambda files: set_record(files, 0, id=IDS[4]),
    'another record': lambda files: files.update(
        {f'{FOLDERS[0]}/record.json': record_file.write_record(chains.backup(0)).encode() + b' '}
    ),
    'no record': lambda files: files.pop(f'{FOLDERS[1]}/record.json'),
    'no metadata': lambda files: files.pop(f'{FOLDERS[1]}/volume-metadata.json'),
    'other metadata': lambda files: files.update({f'{FOLDERS[1]}/volume-metadata.json': b'{}'}),
    'metadata of which nothing is said': lambda files: increment(
        files, 2, volume_metadata_sha256=None
    ),
    'from nowhere': lambda files: increment(files, 1, from_snap=chains.snapshot(4)),
    'from itself': lambda files: increment(files, 1, from_snap=chains.snapshot(1)),
    'from a later one': lambda files: increment(files, 0, from_snap=chains.snapshot(2)),
    'to another backup': lambda files: increment(files, 1, to_snap=chains.snapshot(4)),
    'another number': lambda files: edit(files, f'{FOLDERS[1]}/increment.json', number=7),
    'another image size': lambda files: increment(files, 1, size=1 << 40),
    'no segment': lambda files: files.pop(f'{FOLDERS[1]}/00000.rbd-diff.zst'),
    'no segments said': lambda files: increment(files, 1, segments=[]),
    'another segment': lambda files: files.update({f'{FOLDERS[1]}/00000.rbd-diff.zst': b'x'}),
    'a broken image.json': lambda files: files.update({f'{BASE}/image.json': b'{}'}),
    'no image.json': lambda files: files.pop(f'{BASE}/image.json'),
    'a broken increment.json': lambda files: files.update({f'{FOLDERS[0]}/increment.json': b'{'}),
    'version 2': lambda files: edit(files, 'archive.json', version=2),
}
#: In what a list does not look into.
_DATA = {'no segment', 'another segment', 'from nowhere'}


@pytest.mark.parametrize('name', FORGED)
def test_what_is_refused(form: Form, small: Files, cluster: fake_ceph.Cluster, name: str) -> None:
    files = dict(small)
    FORGED[name](files)
    results = [result for _id, result in form.verify(files)]
    assert set(results) - {'good'}, results
    if name not in _DATA:
        assert form.listed(files)[1]
    there, found = form.import_(files, cluster)
    assert found
    assert not there.calls
    assert not cluster.images
    assert not cluster.objects


def test_what_is_whole(form: Form, small: Files, cluster: fake_ceph.Cluster) -> None:
    assert form.verify(small, IDS[:3]) == [(backup_id, 'good') for backup_id in IDS[:3]]
    assert form.listed(small) == (IDS[:3], 0)
    there, found = form.import_(small, cluster)
    assert (set(there.rows), found) == (set(IDS[:3]), [])


@pytest.mark.parametrize('named', [None, LEGACY, f'volume-{chains.VOLUME}.backup.{IDS[4]}'])
def test_records_of_older_archives(
    form: Form, small: Files, cluster: fake_ceph.Cluster, named: str | None
) -> None:
    """They may name no image, or another one of their volume: the right one is put there."""
    files = dict(small)
    for number in range(3):
        set_record(files, number, service_metadata=based_on(named) if named else None)
    assert {result for _id, result in form.verify(files)} == {'good'}
    there, found = form.import_(files, cluster)
    assert not found
    assert list(cluster.images) == [BASE]
    assert {row.record.base_image for row in there.rows.values() if row.record} == {BASE}


@pytest.mark.parametrize('named', [BASE, LEGACY, None])
@pytest.mark.parametrize('lies_in', [BASE, LEGACY])
def test_a_chain_that_was_moved_by_hand(
    form: Form, cluster: fake_ceph.Cluster, named: str | None, lies_in: str
) -> None:
    """It lies in one image, and its records name another: they name the right one from then."""
    source = fake_ceph.Cluster(1)
    chain = chains.make_chain(source, 3)
    source.images[lies_in] = source.images.pop(BASE)
    chain.backups = [
        chains.backup(number, service_metadata=based_on(named) if named else None)
        for number in range(3)
    ]
    where = store.Folder(form.root / 'made')
    archives.create(archives.with_metadata(chain), source, where, [IDS[2]])
    files = {
        str(path.relative_to(form.root / 'made')): path.read_bytes()
        for path in archives.files(form.root / 'made')
    }
    for path in files:
        if path.endswith('record.json'):
            [item] = record_file.read_records(files[path], path)
            assert item.base_image == lies_in
    there, found = form.import_(files, cluster)
    assert not found
    assert list(archives.contents(cluster, lies_in).values()) == chain.contents
    for row in there.rows.values():
        assert row.record is not None
        assert row.record.base_image == lies_in
    source.close()


def test_a_chain_that_became_one_of_another_volume(form: Form, cluster: fake_ceph.Cluster) -> None:
    """Imported with --for-volume: it lies in an image of the volume that it was made of."""
    source, volume = fake_ceph.Cluster(1), IDS[4]
    chain = chains.make_chain(source, 2)
    chain.backups = [chains.backup(number, volume_id=volume) for number in range(2)]
    where = store.Folder(form.root / 'made')
    archives.create(archives.with_metadata(chain), source, where, [IDS[1]])
    files = {
        str(path.relative_to(form.root / 'made')): path.read_bytes()
        for path in archives.files(form.root / 'made')
    }
    assert {result for _id, result in form.verify(files)} == {'good'}
    there, found = form.import_(files, cluster)
    name = BASE.replace(chains.VOLUME, volume)
    assert (list(cluster.images), found) == ([name], [])
    assert list(archives.contents(cluster, name).values()) == chain.contents
    assert {row.record.base_image for row in there.rows.values() if row.record} == {name}
    source.close()


@pytest.mark.parametrize('size', [units.GIB + 1, (3 << 29) + 12345, 2 * units.GIB - 1])
def test_a_volume_of_an_odd_size(form: Form, cluster: fake_ceph.Cluster, size: int) -> None:
    """Cinder takes over images of any size, and says the GiB rounded up."""
    source = fake_ceph.Cluster(1)
    chain = chains.Chain(source, BASE, [], [])
    with chains.make_image(source, size=size) as image:
        for number in range(2):
            source.images[BASE].content.write(size - 7000 + number, b'%d' % number * 5000)
            image.create_snap(chains.snapshot(number))
            chain.backups.append(chains.backup(number, size=2))
    where = store.Folder(form.root / 'made')
    archives.create(archives.with_metadata(chain), source, where, [IDS[1]])
    files = {
        str(path.relative_to(form.root / 'made')): path.read_bytes()
        for path in archives.files(form.root / 'made')
    }
    assert {result for _id, result in form.verify(files)} == {'good'}
    there, found = form.import_(files, cluster)
    assert (set(there.rows), found) == (set(IDS[:2]), [])
    assert archives.contents(cluster) == archives.contents(source)
    assert {one.size for one in (cluster.images[BASE], *cluster.images[BASE].snapshots)} == {size}
    source.close()


# What is not there, or not whole, or does not belong there.


def without(files: Files, prefix: str) -> Files:
    return {path: content for path, content in files.items() if not path.startswith(prefix)}


def test_the_newest_is_not_finished(form: Form, small: Files, cluster: fake_ceph.Cluster) -> None:
    """A copy that was stopped leaves that, and a run that is still at work."""
    files = without(small, f'{FOLDERS[2]}/increment.json')
    good = [(IDS[0], 'good'), (IDS[1], 'good')]
    assert form.verify(files) == [*good, (IDS[2], 'unfinished')]
    assert form.listed(files) == (IDS[:2], 1)
    there, found = form.import_(files, cluster)
    assert 'was not finished' in '\n'.join(found)
    assert set(there.rows) == set(IDS[:2])


def test_the_newest_is_lost(form: Form, small: Files) -> None:
    files = without(small, FOLDERS[2])
    good = [(IDS[0], 'good'), (IDS[1], 'good')]
    assert form.verify(files) == [*good, ('', 'missing')]
    assert form.verify(files, IDS[:3]) == [*good, (IDS[2], 'missing')]
    # Who says what has to be there is not told of more.
    assert form.verify(files, IDS[:2]) == good


def test_an_ancestor_is_lost(form: Form, small: Files) -> None:
    """Every backup by itself is whole, and Cinder can restore it; its parent is not there."""
    files = dict(small)
    set_record(files, 0, parent_id=IDS[4])
    found = form.verify(files)
    assert found == [*[(backup_id, 'good') for backup_id in IDS[:3]], (IDS[4], 'missing')]


def test_the_image_is_lost(form: Form, small: Files) -> None:
    assert form.verify(without(small, BASE)) == [('', 'missing')]
    assert form.verify(without(small, BASE), [IDS[1]]) == [(IDS[1], 'missing'), ('', 'missing')]


def test_an_image_without_increments(form: Form, small: Files, cluster: fake_ceph.Cluster) -> None:
    other = f'volume-{IDS[4]}.backup.base/image.json'
    files = {**small, other: small[f'{BASE}/image.json']}
    results = [result for _id, result in form.verify(files)]
    assert results.count('good') == 3
    assert len(results) == 4
    assert form.listed(files) == (IDS[:3], 1)
    there, found = form.import_(files, cluster)
    assert len(found) == 1
    assert set(there.rows) == set(IDS[:3])


@pytest.mark.parametrize(
    'path', ['README', f'{BASE}/README', f'{FOLDERS[1]}/README', f'{FOLDERS[1]}/00001.rbd-diff']
)
def test_what_does_not_belong(form: Form, small: Files, path: str) -> None:
    results = [result for _id, result in form.verify({**small, path: b'x'})]
    if form.name == 'stream':
        assert set(results) - {'good'}
    else:
        assert sorted(results) == ['good', 'good', 'good', 'not part of the archive']


def test_what_a_file_system_puts_there(small: Files, tmp_path: pathlib.Path) -> None:
    """The archive may be all that is on a disk."""
    files = {**small, 'lost+found/x': b'', '.snapshot/x': b''}
    assert {result for _id, result in Form('folder', tmp_path).verify(files)} == {'good'}


def test_what_starts_from_what_is_damaged_is_of_no_use(form: Form, small: Files) -> None:
    files = {**small, f'{FOLDERS[0]}/00000.rbd-diff.zst': b'x'}
    assert form.verify(files) == [(backup_id, 'damaged') for backup_id in IDS[:3]]


def test_a_number_that_no_increment_has(small: Files, tmp_path: pathlib.Path) -> None:
    """Where nothing builds on it, it may have been removed because it was not finished."""
    files = dict(small)
    old, new = FOLDERS[2], FOLDERS[2].replace('/2-', '/700000000-')
    for path in [path for path in files if path.startswith(old)]:
        files[path.replace(old, new)] = files.pop(path)
    edit(files, f'{new}/increment.json', number=700_000_000)
    where = store.Folder(tmp_path)
    for path, content in files.items():
        where.put(path, content)
    shown = chains.Shown()
    found = [verdict.result for verdict in verify_archive.run(where, shown, quick=True)]
    assert found == ['good'] * 3
    assert len(shown.lines) == 10
    assert 'there is no increment 2.' in shown.lines[0]


def test_a_backup_in_two_images(small: Files, cluster: fake_ceph.Cluster) -> None:
    """Which of them is meant can be told where both are known, not where they go by."""
    single = f'volume-{chains.VOLUME}.backup.{IDS[1]}'
    files = dict(small)
    files[f'{single}/image.json'] = files[f'{BASE}/image.json']
    for path in [path for path in small if path.startswith(FOLDERS[0])]:
        files[path.replace(BASE, single)] = small[path]
    assert verify_stream(pack(files))[-1] == 'ForgedArchive'
    with pytest.raises(errors.ForgedArchive, match='there twice'):
        archives.import_stream_(FakeCinder(), cluster, pack(files))


# The end of a stream.


def verify_stream(content: bytes) -> list[str]:
    source = tar_stream.Input(io.BytesIO(content))  # type: ignore[arg-type]
    found = []
    try:
        for verdict in verify_archive.run_stream(source, archives.SILENT):
            found.append(verdict.result)
    except errors.InvalidInput as error:
        found.append(type(error).__name__)
    return found


@pytest.mark.parametrize('padding', [0, 1, 512, 10240, 3 << 20])
def test_the_padding_of_a_tape(small: Files, padding: int) -> None:
    assert verify_stream(pack(small) + bytes(padding)) == ['good'] * 3


@pytest.mark.parametrize(
    'tail',
    [b'x', bytes(511) + b'x', bytes(2 << 20) + b'x', b'\xff' * 100_000],
    ids=['x', 'in a block', 'far behind', 'much'],
)
def test_something_behind_the_end(small: Files, cluster: fake_ceph.Cluster, tail: bytes) -> None:
    content = pack(small) + tail
    assert verify_stream(content) == ['good', 'good', 'good', 'TrailingData']
    contents = tar_stream.read_catalog(
        tar_stream.Input(io.BytesIO(content))  # type: ignore[arg-type]
    )
    assert len(contents.damage()) == 1
    there = FakeCinder()
    steps, found = archives.import_stream_all(there, cluster, content)
    assert [type(error) for error in found] == [errors.TrailingData]
    assert len(steps) == len(there.rows) == 3


def test_two_archives_one_after_the_other(small: Files, cluster: fake_ceph.Cluster) -> None:
    content = pack(small) * 2
    assert verify_stream(content) == ['good', 'good', 'good', 'TrailingData']
    found = archives.import_stream_all(FakeCinder(), cluster, content)[1]
    assert 'something follows the end' in str(found[0])
    assert '--ignore-zeros' in str(found[0])


# Where nothing but the order tells.


@pytest.mark.parametrize(
    ('first', 'second'),
    [
        ('record.json', '00000.rbd-diff.zst'),
        ('volume-metadata.json', '00000.rbd-diff.zst'),
        ('00000.rbd-diff.zst', 'increment.json'),
    ],
)
def test_members_in_another_order(
    small: Files, cluster: fake_ceph.Cluster, first: str, second: str
) -> None:
    """Of a record that comes behind its data nobody could tell whose it is before."""
    members = {}
    with tarfile.open(fileobj=io.BytesIO(pack(small))) as tar:
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            members[info.name] = file.read()
    order = list(members)
    at, other = (order.index(f'{FOLDERS[1]}/{name}') for name in (first, second))
    order[at], order[other] = order[other], order[at]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as made:
        for path in order:
            info = tarfile.TarInfo(path)
            info.size = len(members[path])
            made.addfile(info, io.BytesIO(members[path]))
    assert set(verify_stream(file.getvalue())) - {'good'}
    with pytest.raises(errors.InvalidInput):
        archives.import_stream_(FakeCinder(), cluster, file.getvalue())
    assert not cluster.images


def test_increments_in_another_order(small: Files, cluster: fake_ceph.Cluster) -> None:
    """Unpacked, they would be in the other one."""
    moved = {
        path.replace('/0-', '/5-'): content
        for path, content in small.items()
        if path.startswith(FOLDERS[0])
    }
    edit(moved, f'{FOLDERS[0].replace("/0-", "/5-")}/increment.json', number=5)
    head = {path: small[path] for path in ('archive.json', f'{BASE}/image.json')}
    content = pack({**head, **moved}).rstrip(b'\0')
    content += bytes(-len(content) % 512)
    content += pack({path: small[path] for path in small if path.startswith(FOLDERS[1])})
    assert verify_stream(content)[-1] == 'ForgedArchive'
    with pytest.raises(errors.ForgedArchive, match='not expected here'):
        archives.import_stream_(FakeCinder(), cluster, content)
    assert not cluster.images


# How often Cinder is asked.


def test_a_stream_asks_as_often_as_it_has_increments() -> None:
    counts = []
    for count in (4, 8, 16):
        source, target = fake_ceph.Cluster(), fake_ceph.Cluster(1)
        ids = [f'{number:08d}-e2ee-41c6-b9c8-a7e292e02962' for number in range(count)]
        base = f'volume-{chains.VOLUME}.backup.{ids[0]}'
        items = []
        with chains.make_image(source, base) as image:
            for number, backup_id in enumerate(ids):
                source.images[base].content.write(number << 20, b'x%d' % number)
                parent = ids[number - 1] if number else None
                item = chains.backup(
                    0,
                    id=backup_id,
                    parent_id=parent,
                    service_metadata=based_on(base),
                    created_at=f'2026-11-20T00:{number:02d}:00Z',
                )
                items.append(item)
                image.create_snap(f'backup.{backup_id}.snap.{number}')
        stream = archives.create_stream(FakeCinder(*items), source, [ids[-1]])
        there = Counting()
        archives.import_stream_(there, target, stream)
        counts.append(there.asked)
        source.close()
        target.close()
    assert counts[2] - counts[1] == 2 * (counts[1] - counts[0])


class Counting(FakeCinder):
    """:ivar asked: how often it was asked for a backup"""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def get(self, backup_id: str) -> typing.Any:
        self.asked += 1
        return super().get(backup_id)
