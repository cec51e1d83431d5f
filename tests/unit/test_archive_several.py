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

"""Several chains: one that is broken does not stop the others, and is named."""

import collections.abc
import dataclasses
import io
import json
import pathlib
import tarfile

import pytest

from osc_backup_port import errors, model
from osc_backup_port.archive import catalog, sealed, store, tar_stream
from osc_backup_port.cinder import resources
from osc_backup_port.moving import verify_archive
from osc_backup_port.moving.plan import State
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder

OTHER_VOLUME = '9172626d-c23c-4563-8493-f34e86758634'
OTHER = f'volume-{OTHER_VOLUME}.backup.{IDS[3]}'
FIRST, SECOND = IDS[:3], IDS[3:]


@pytest.fixture
def cinder(cluster: fake_ceph.Cluster) -> FakeCinder:
    """A cloud with a chain of three and a chain of two."""
    chain = chains.make_chain(cluster, 3)
    with chains.make_image(cluster, OTHER) as image:
        for number in (3, 4):
            cluster.images[OTHER].content.write(number << 20, b'%d' % number * 300_000)
            image.create_snap(chains.snapshot(number))
            changes = {
                'volume_id': OTHER_VOLUME,
                'service_metadata': f'{{"base": "{OTHER}"}}',
                'parent_id': IDS[3] if number == 4 else None,
            }
            chain.backups.append(chains.backup(number, **changes))
    return archives.with_metadata(chain)


@pytest.fixture
def target() -> collections.abc.Iterator[fake_ceph.Cluster]:
    made = fake_ceph.Cluster(1)
    yield made
    made.close()


@pytest.fixture
def archive(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> pathlib.Path:
    root = tmp_path / 'archive'
    archives.create(cinder, cluster, store.Folder(root), [IDS[2], IDS[4]])
    return root


def folder(root: pathlib.Path, number: int) -> pathlib.Path:
    return next(root.glob(f'*/?-{IDS[number]}'))


def lose_image(cinder: FakeCinder, cluster: fake_ceph.Cluster, where: store.Store) -> None:
    del cluster.images[OTHER]


def lose_record(cinder: FakeCinder, cluster: fake_ceph.Cluster, where: store.Store) -> None:
    del cinder.rows[IDS[3]]


def have_another_driver(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, where: store.Store
) -> None:
    made = cinder.rows[IDS[3]].record
    assert made is not None
    service = 'cinder.backup.drivers.nfs.NFSBackupDriver'
    cinder.rows[IDS[3]].record = dataclasses.replace(made, backup_service=service)


def damage_what_is_archived(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, where: store.Store
) -> None:
    archives.create(cinder, cluster, where, [IDS[3]])
    where.put(f'{OTHER}/image.json', b'{}')


BROKEN = [lose_image, lose_record, have_another_driver, damage_what_is_archived]


@pytest.mark.parametrize('order', [[IDS[2], IDS[4]], [IDS[4], IDS[2]]], ids=['last', 'first'])
@pytest.mark.parametrize('break_it', BROKEN)
def test_create_goes_on_with_the_other_chains(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    tmp_path: pathlib.Path,
    break_it: collections.abc.Callable[[FakeCinder, fake_ceph.Cluster, store.Store], None],
    order: list[str],
) -> None:
    where = store.Folder(tmp_path / 'archive')
    break_it(cinder, cluster, where)
    planned = archives.create_all(cinder, cluster, where, order)
    assert {step.point.id: step.state for step in planned.steps} == dict.fromkeys(
        FIRST, State.DONE
    )
    assert {key for key, _error in planned.findings()} == set(SECOND)
    image = catalog.read_image(where, BASE)
    assert image is not None
    assert [backup.id for backup in image.backups] == FIRST


def test_a_backup_whose_snapshot_is_lost_keeps_its_ancestors(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    stored = cluster.images[BASE]
    stored.snapshots = [one for one in stored.snapshots if one.name != chains.snapshot(1)]
    planned = archives.create_all(cinder, cluster, store.Folder(tmp_path), [IDS[2], IDS[4]])
    assert {step.point.id for step in planned.steps} == {IDS[0], *SECOND}
    told = dict(planned.findings())
    assert 'no snapshot' in str(told[IDS[1]])
    assert f'its parent {IDS[1]} is unavailable' in str(told[IDS[2]])
    assert archives.is_good(store.Folder(tmp_path))


def test_a_chain_that_another_run_writes(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    where = store.Folder(tmp_path)
    with where.lock(BASE):
        planned = archives.create_all(cinder, cluster, where, [IDS[2], IDS[4]])
    results = {step.point.id: step.state for step in planned.steps}
    assert results == {
        **dict.fromkeys(FIRST, State.FAILED),
        **dict.fromkeys(SECOND, State.DONE),
    }
    assert {key for key, _error in planned.findings()} == set(FIRST)


@pytest.mark.parametrize('number', [3, 4])
def test_a_stream_passes_over_what_could_not_be_finished(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, target: fake_ceph.Cluster, number: int
) -> None:
    """The chain that fails comes first; what was complete of it is imported."""
    file = chains.memory_file()
    output = tar_stream.Output(file)
    put = output.put

    def fail_there(path: str, content: bytes) -> None:
        if path.startswith(OTHER) and IDS[number] in path and path.endswith('increment.json'):
            raise errors.CephError('the cluster was lost')
        put(path, content)

    output.put = fail_there  # type: ignore[method-assign]
    planned = archives.create_all(cinder, cluster, output, [IDS[4], IDS[2]])
    output.close()
    assert {step.point.id for step in planned.steps if step.error} == set(SECOND[number - 3 :])

    file.seek(0)
    there = FakeCinder()
    steps, found = archives.import_stream_all(there, target, file.readall())
    (error,) = found
    assert isinstance(error, errors.TruncatedStream)
    assert set(there.rows) == {*FIRST, *SECOND[: number - 3]}
    assert len(steps) == len(there.rows)
    assert set(target.images) == ({BASE} if number == 3 else {BASE, OTHER})


def cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def remove(path: pathlib.Path) -> None:
    if path.is_dir():
        for inner in path.iterdir():
            inner.unlink()
        path.rmdir()
    else:
        path.unlink()


DAMAGE = {
    'image.json cut': lambda root: cut(root / OTHER / 'image.json'),
    'image.json missing': lambda root: remove(root / OTHER / 'image.json'),
    'increment.json cut': lambda root: cut(folder(root, 4) / 'increment.json'),
    'first increment.json cut': lambda root: cut(folder(root, 3) / 'increment.json'),
    'first increment.json missing': lambda root: remove(folder(root, 3) / 'increment.json'),
    'record cut': lambda root: cut(folder(root, 4) / 'record.json'),
    'metadata missing': lambda root: remove(folder(root, 4) / 'volume-metadata.json'),
    'segment cut': lambda root: cut(folder(root, 4) / '00000.rbd-diff.zst'),
    'segment missing': lambda root: remove(folder(root, 3) / '00000.rbd-diff.zst'),
    'first increment missing': lambda root: remove(folder(root, 3)),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_damaged_chain_does_not_stop_the_others(
    archive: pathlib.Path, target: fake_ceph.Cluster, damage: str
) -> None:
    DAMAGE[damage](archive)
    where, there = store.Folder(archive), FakeCinder()
    planned = archives.import_all(there, target, where)
    assert any(OTHER in str(error) for error in planned.findings())
    assert set(there.rows) == set(FIRST)
    assert set(target.images) == {BASE}
    assert set(target.objects) == {f'backup.{key}.meta' for key in FIRST}
    assert {step.point.id for step in planned.steps if step.error} <= set(SECOND)
    verdicts = list(verify_archive.run(where, archives.SILENT, quick=False))
    assert {one.backup_id for one in verdicts if one.result == 'good'} >= set(FIRST)
    assert {one.image for one in verdicts if one.result != 'good'} == {OTHER}


def test_a_backup_can_be_asked_for_whose_child_is_damaged(
    archive: pathlib.Path, target: fake_ceph.Cluster
) -> None:
    cut(folder(archive, 1) / 'increment.json')
    there = FakeCinder()
    (step,) = archives.import_(there, target, store.Folder(archive), [IDS[0]])
    assert step.state == State.DONE
    assert set(there.rows) == {IDS[0]}
    for wanted in (IDS[1], IDS[2]):
        with pytest.raises(errors.DamagedArchive):
            archives.import_(there, target, store.Folder(archive), [wanted])


def edit(path: pathlib.Path, **changes: object) -> None:
    document = json.loads(path.read_bytes())
    document.pop('sha256')
    path.write_bytes(sealed.seal({**document, **changes}))


def make_a_loop(root: pathlib.Path) -> None:
    edit(folder(root, 3) / 'increment.json', from_snap=chains.snapshot(4))


def make_a_twin(root: pathlib.Path) -> None:
    whole, twin = folder(root, 4), root / OTHER / f'7-{IDS[4]}'
    twin.mkdir()
    for path in whole.iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    edit(twin / 'increment.json', number=7)


def climb_out(root: pathlib.Path) -> None:
    path = folder(root, 4) / 'increment.json'
    segments = json.loads(path.read_bytes())['segments']
    edit(path, segments=[{**segments[0], 'name': '../../../etc/passwd'}])


def link(root: pathlib.Path) -> None:
    path = folder(root, 4) / 'record.json'
    path.unlink()
    path.symlink_to('/etc/passwd')


@pytest.mark.parametrize('forge', [make_a_loop, make_a_twin, climb_out, link])
def test_a_forged_archive_is_refused_as_a_whole(
    archive: pathlib.Path,
    target: fake_ceph.Cluster,
    forge: collections.abc.Callable[[pathlib.Path], None],
) -> None:
    forge(archive)
    there = FakeCinder()
    with pytest.raises(errors.InvalidInput):
        archives.import_all(there, target, store.Folder(archive))
    assert not there.calls
    assert not target.images
    assert not target.objects


def test_what_stands_in_the_way_of_one_chain(
    archive: pathlib.Path, target: fake_ceph.Cluster
) -> None:
    there = FakeCinder()
    there.leave_placeholder(IDS[4])
    planned = archives.import_all(there, target, store.Folder(archive))
    assert set(target.images) == {BASE}
    assert [there.get(key).status for key in FIRST] == ['available'] * 3
    results = {step.point.id: step.state for step in planned.steps}
    assert results == {
        **dict.fromkeys(FIRST, State.DONE),
        **dict.fromkeys(SECOND, State.LEFT_OUT),
    }
    with pytest.raises(errors.NotFound):
        there.get(IDS[3])


def test_an_image_that_is_damaged_in_the_cloud(
    archive: pathlib.Path, target: fake_ceph.Cluster
) -> None:
    there = FakeCinder()
    target.pool().create(OTHER, model.ImageLayout(chains.SIZE))
    target.connect().remove_object(f'rbd_header.{target.images[OTHER].id}')
    planned = archives.import_all(there, target, store.Folder(archive))
    results = {step.point.id: step.state for step in planned.steps}
    assert results == {
        **dict.fromkeys(FIRST, State.DONE),
        **dict.fromkeys(SECOND, State.LEFT_OUT),
    }
    assert set(there.rows) == set(FIRST)
    assert any('cannot be opened' in str(finding) for finding in planned.findings())


@pytest.mark.parametrize('first', [IDS[2], IDS[4]], ids=['behind', 'before'])
def test_a_damaged_chain_in_a_stream(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, target: fake_ceph.Cluster, first: str
) -> None:
    """Whatever file of it is changed: the other chain is imported, and nothing of it."""
    order = [first, *({IDS[2], IDS[4]} - {first})]
    stream = archives.create_stream(cinder, cluster, order)
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        places = {one.name: one.offset_data for one in tar if one.name.startswith(OTHER)}
    assert len(places) == 9
    for name, at in places.items():
        bad = bytearray(stream)
        bad[at + 20] ^= 1
        there = FakeCinder()
        _steps, found = archives.import_stream_all(there, target, bytes(bad))
        assert found, name
        assert set(there.rows) == set(FIRST), name
        assert set(target.images) == {BASE}, name
        assert set(target.objects) == {f'backup.{key}.meta' for key in FIRST}, name
        source = tar_stream.Input(io.BytesIO(bad))
        verdicts = list(verify_archive.run_stream(source, archives.SILENT))
        assert len(verdicts) == 5
        assert {one.image for one in verdicts if one.problem} == {OTHER}, name
        contents = tar_stream.read_catalog(tar_stream.Input(io.BytesIO(bad)))
        assert bool(contents.damage()) == ('rbd-diff' not in name), name
        target.images.clear()
        target.objects.clear()


class Asked(FakeCinder):
    """Counts how often the cloud is asked for a backup that is not there yet."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, backup_id: str) -> resources.Backup:
        if backup_id not in self.rows:
            self.asked.append(backup_id)
        return super().get(backup_id)


def test_a_record_of_a_stream_is_planned_once(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, target: fake_ceph.Cluster
) -> None:
    stream, there = archives.create_stream(cinder, cluster, [IDS[2], IDS[4]]), Asked()
    archives.import_stream_(there, target, stream)
    assert sorted(there.asked) == sorted([*FIRST, *SECOND])
    dependents = [there.export_record(key).num_dependent_backups for key in (*FIRST, *SECOND)]
    assert dependents == [1, 1, 0, 1, 0]


def test_a_chain_that_stays_out_needs_no_room(
    archive: pathlib.Path, target: fake_ceph.Cluster
) -> None:
    """Its record is refused, and the other has just the room that it needs."""
    there, where = FakeCinder(), store.Folder(archive)
    there.leave_placeholder(IDS[0])
    images = {image.name: image for image in catalog.read(where).images}
    target.free = sum(
        segment.raw_size
        for backup in images[OTHER].backups
        for segment in backup.increment.segments
    )

    planned = archives.import_all(there, target, where)

    assert [step.state for step in planned.steps if step.point.id in SECOND] == [State.DONE] * 2
    assert not any('has room for' in str(error) for error in planned.errors())
    assert list(target.images) == [OTHER]


def test_what_is_archived_is_told_as_it_is_there(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, archive: pathlib.Path
) -> None:
    """Also where the pool has no longer what the increment starts from."""
    image, alone = cluster.images[OTHER], cinder.rows[IDS[4]]
    assert alone.record is not None
    alone.record = alone.record.with_changes(parent_id=None)
    image.snapshots[:] = [one for one in image.snapshots if one.name != chains.snapshot(3)]

    [step] = archives.create(cinder, cluster, store.Folder(archive), [IDS[4]])

    assert step.state is State.PRESENT
    assert step.start == chains.snapshot(3)
