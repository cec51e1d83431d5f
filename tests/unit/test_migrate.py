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

"""Backups from one cluster in memory to another."""

import collections.abc
import json

import pytest

from osc_backup_port import errors, model
from osc_backup_port.ceph import compare_images
from osc_backup_port.moving import (
    cluster_sink,
    cluster_source,
    copy,
    image_session,
    job,
    plan,
    read_back,
)
from osc_backup_port.moving.plan import State
from osc_backup_port.osc import migrate
from osc_backup_port.records import import_records, rewriting, wanted_records
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.fake_cinder import FakeCinder

OPTIONS = import_records.Options(changes=rewriting.Rewriting('backups'))


class Clouds:
    """Two clouds; the first has a chain of three backups."""

    def __init__(self) -> None:
        self.source = fake_ceph.Cluster()
        self.target = fake_ceph.Cluster()
        self.chain = chains.make_chain(self.source)
        self.source_cinder = archives.with_metadata(self.chain)
        self.target_cinder = FakeCinder()

    def look(
        self,
        *numbers: int,
        single: bool = False,
        options: import_records.Options = OPTIONS,
    ) -> tuple[plan.Plan, cluster_sink.Sink]:
        wanted = [chains.IDS[number] for number in numbers]
        records = wanted_records.read(self.source_cinder, wanted, single)
        source = cluster_source.Source(self.source_cinder, self.source.pool(), records, single)
        sink = cluster_sink.Sink(self.target.pool(), self.target_cinder, options)
        return copy.plan(source, sink, all_or_nothing=True), sink

    def migrate(self, *numbers: int, single: bool = False, verify: bool = True) -> list[plan.Step]:
        planned, sink = self.look(*numbers, single=single)
        assert not planned.findings()
        copy.estimate(planned)
        copy.run(planned, sink, job.Job(verify=verify))
        for finding in planned.errors():
            raise finding
        return planned.steps


@pytest.fixture
def clouds() -> collections.abc.Iterator[Clouds]:
    both = Clouds()
    yield both
    both.source.close()
    both.target.close()


def expect_same(clouds: Clouds, *numbers: int) -> None:
    """The second cluster has these backups and nothing else."""
    found = archives.contents(clouds.target)
    assert found == {chains.snapshot(number): clouds.chain.contents[number] for number in numbers}
    assert set(clouds.target.images) == {chains.BASE}
    metas = {f'backup.{chains.IDS[number]}.meta' for number in numbers}
    assert set(clouds.target.objects) == metas


def test_a_chain(clouds: Clouds) -> None:
    steps = clouds.migrate(2)
    assert [step.state for step in steps] == [State.DONE] * 3
    assert all(0 < step.moved <= step.estimate for step in steps)
    assert [step.record_step.result for step in steps if step.record_step] == ['imported'] * 3
    expect_same(clouds, 0, 1, 2)
    assert clouds.target.images[chains.BASE].content.dump() == clouds.chain.contents[2]
    dependents = [
        clouds.target_cinder.export_record(backup.id).num_dependent_backups
        for backup in clouds.chain.backups
    ]
    assert dependents == [1, 1, 0]


def test_again_it_moves_what_is_new(clouds: Clouds) -> None:
    first = clouds.migrate(0)
    second = clouds.migrate(1)
    assert [step.state for step in second] == [State.PRESENT, State.DONE]
    assert 0 < second[1].moved < first[0].moved
    expect_same(clouds, 0, 1)
    before = clouds.target.dump()
    assert [step.moved for step in clouds.migrate(1)] == [0, 0]
    assert clouds.target.dump() == before


LEGACY = f'volume-{chains.VOLUME}.backup.base'


def set_records(clouds: Clouds, **changes: object) -> None:
    for number, backup in enumerate(clouds.chain.backups):
        record = backup.with_changes(**changes)
        clouds.chain.backups[number] = record
        clouds.source_cinder.add(record)


@pytest.mark.parametrize('named', [chains.BASE, LEGACY, None])
@pytest.mark.parametrize('lies_in', [chains.BASE, LEGACY])
def test_a_chain_that_was_moved_by_hand(clouds: Clouds, named: str | None, lies_in: str) -> None:
    """Cinder looks for the snapshot in the image that the record names, and nowhere else."""
    clouds.source.images[lies_in] = clouds.source.images.pop(chains.BASE)
    set_records(clouds, service_metadata=json.dumps({'base': named}) if named else None)
    clouds.migrate(2)
    assert list(archives.contents(clouds.target, lies_in).values()) == clouds.chain.contents
    for backup in clouds.chain.backups:
        moved = clouds.target_cinder.export_record(backup.id)
        assert moved.base_image == lies_in
        assert moved.num_dependent_backups == (backup.id != chains.IDS[2])


@pytest.mark.parametrize('named', [chains.BASE, LEGACY])
def test_a_chain_that_became_one_of_another_volume(clouds: Clouds, named: str) -> None:
    """Imported with --for-volume: it gets an image of the volume that its records are of."""
    volume = chains.IDS[4]
    clouds.source.images[named] = clouds.source.images.pop(chains.BASE)
    set_records(clouds, volume_id=volume, service_metadata=json.dumps({'base': named}))
    clouds.migrate(2)
    name = named.replace(chains.VOLUME, volume)
    assert list(clouds.target.images) == [name]
    assert list(archives.contents(clouds.target, name).values()) == clouds.chain.contents
    for backup in clouds.chain.backups:
        assert clouds.target_cinder.export_record(backup.id).base_image == name


def test_a_volume_of_an_odd_size() -> None:
    """Cinder takes over images of any size, and says the GiB rounded up."""
    clouds, size = Clouds(), (3 << 29) + 12345
    clouds.source.images.clear()
    with chains.make_image(clouds.source, size=size) as image:
        clouds.source.images[chains.BASE].content.write(size - 5000, b'x' * 5000)
        image.create_snap(chains.snapshot(0))
    set_records(clouds, size=2)
    clouds.migrate(0)
    assert archives.contents(clouds.target) == archives.contents(clouds.source)
    assert clouds.target.images[chains.BASE].size == size
    assert clouds.target_cinder.export_record(chains.IDS[0]).size == 2
    clouds.source.close()
    clouds.target.close()


def test_one_out_of_its_chain(clouds: Clouds) -> None:
    (step,) = clouds.migrate(1, single=True)
    own = f'volume-{chains.VOLUME}.backup.{chains.IDS[1]}'
    assert archives.contents(clouds.target, own) == {chains.snapshot(1): clouds.chain.contents[1]}
    moved = clouds.target_cinder.export_record(chains.IDS[1])
    assert (moved.parent_id, moved.base_image) == (None, own)
    assert step.point.record
    assert step.point.record.parent_id is None


def test_a_target_that_has_only_the_middle_one(clouds: Clouds) -> None:
    clouds.migrate(1)
    pool = clouds.target.pool()
    with pool.open(chains.BASE, writable=True) as image:
        image.remove_snapshot(chains.snapshot(0))
    steps = clouds.migrate(2)
    assert [step.state for step in steps] == [State.DONE, State.PRESENT, State.DONE]
    expect_same(clouds, 0, 1, 2)
    assert clouds.target.images[chains.BASE].content.dump() == clouds.chain.contents[2]


def test_a_killed_run_is_taken_up(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the last part of the full backup is there; it is not moved again."""
    monkeypatch.setattr(cluster_source, '_PART', 64 << 20)

    class Killed(BaseException):
        pass

    written = []
    note_parts = image_session.Session._note_parts

    def die(self: image_session.Session, identity: str, mark: int) -> None:
        note_parts(self, identity, mark)
        written.append(mark)
        if mark > 8 * (64 << 20):
            raise Killed

    monkeypatch.setattr(image_session.Session, '_note_parts', die)
    with pytest.raises(Killed):
        clouds.migrate(0)
    assert set(clouds.target.images) == {f'{chains.BASE}.part'}
    monkeypatch.setattr(image_session.Session, '_note_parts', note_parts)
    (step,) = clouds.migrate(0)
    expect_same(clouds, 0)
    assert written
    whole = Clouds()
    (undisturbed,) = whole.migrate(0)
    assert step.moved < undisturbed.moved


def test_metadata_that_cannot_be_stored(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops the records of its chain, and not the run."""

    def store(*_arguments: object) -> object:
        raise errors.CephError('Pool backups: has reached its quota.')

    planned, sink = clouds.look(0)
    monkeypatch.setattr('osc_backup_port.moving.volume_metadata.store', store)
    copy.run(planned, sink, job.Job())
    (step,) = planned.steps
    assert 'has reached its quota' in str(step.error)
    assert step.record_step is not None
    assert step.record_step.result == 'not imported'
    assert not clouds.target_cinder.rows


def test_an_image_that_is_damaged_in_the_other_cloud(clouds: Clouds) -> None:
    clouds.target.pool().create(chains.BASE, model.ImageLayout(chains.SIZE))
    clouds.target.connect().remove_object(f'rbd_header.{clouds.target.images[chains.BASE].id}')
    planned, _sink = clouds.look(0)
    (finding,) = planned.errors()
    assert 'cannot be opened' in str(finding)


def test_what_differs_is_found(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that change on their way are seen by --verify, and taken back."""
    commit = image_session.Session.commit

    def spoil(self: image_session.Session, step: plan.Step) -> None:
        (image,) = clouds.target.images.values()
        image.content.write(123, b'?')
        commit(self, step)

    monkeypatch.setattr(image_session.Session, 'commit', spoil)
    with pytest.raises(errors.PortError, match='are not the same'):
        clouds.migrate(0)
    assert not clouds.target.images
    with pytest.raises(errors.NotFound):
        clouds.target_cinder.get(chains.IDS[0])


def test_nothing_is_remembered_where_two_images_are_compared(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take memory for each piece of both chains that are under way."""
    watched: list[object] = []
    monkeypatch.setattr(read_back.Witness, 'watch', lambda self, items: watched.append(items))

    steps = clouds.migrate(2)

    assert {step.state for step in steps} == {State.DONE}
    assert watched == []


def test_reading_back_ends_when_all_is_to_end(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side, the signal comes to another thread than the one that reads for hours."""
    planned, sink = clouds.look(0)
    mover = copy._Mover(sink, job.Job(verify=True), side=2)
    read: list[object] = []
    compare = compare_images.compare

    def stopped_in_it(*arguments: object) -> object:
        mover.stop.set()
        read.append(compare(*arguments))  # type: ignore[arg-type]
        return read[-1]

    monkeypatch.setattr(compare_images, 'compare', stopped_in_it)

    with pytest.raises(errors.Interrupted):
        mover.move(planned.chains[0])

    assert read == []


def test_the_chain_is_looked_up_from_any_of_its_backups(clouds: Clouds) -> None:
    records = wanted_records.read(clouds.source_cinder, [chains.IDS[2]])
    source = cluster_source.Source(clouds.source_cinder, clouds.source.pool(), records)
    (chain,) = source.chains()
    assert [point.id for point in chain.points] == chains.IDS[:3]
    assert chain.unknown == ()


def test_a_pool_without_room(clouds: Clouds) -> None:
    before = clouds.target.dump()
    clouds.target.free = 1
    planned, _sink = clouds.look(2)
    copy.estimate(planned)
    [error] = planned.errors()
    assert 'has room for 1 B, expected' in str(error)
    needed = sum(step.estimate for step in planned.steps)
    assert needed > 1
    assert clouds.target.dump() == before
    clouds.target.free = needed
    assert not clouds.look(2)[0].findings()


def test_keys_are_mapped_in_the_metadata_too(clouds: Clouds) -> None:
    base = {'encryption_key_id': 'old', 'volume_type_id': 'kind'}
    content = json.dumps({'version': 2, 'volume-base-metadata': base}).encode()
    name = f'backup.{chains.IDS[0]}.meta'
    clouds.source.objects[name] = content
    changes = rewriting.Rewriting('backups', keys={'old': 'new'})
    options = import_records.Options(changes=changes)
    for _again in range(2):
        planned, sink = clouds.look(0, options=options)
        assert not planned.findings()
        copy.run(planned, sink, job.Job())
    written = json.loads(clouds.target.objects[name])
    assert written['volume-base-metadata'] == {
        'encryption_key_id': 'new',
        'volume_type_id': 'kind',
    }


@pytest.mark.parametrize('is_there', [True, False])
def test_the_rows_of_a_chain_whose_record_is_refused(clouds: Clouds, is_there: bool) -> None:
    """Its data is what it was before; nothing was tried, so nothing has failed."""
    if is_there:
        clouds.migrate(1)
        clouds.target_cinder.rows.clear()
    clouds.target_cinder.leave_placeholder(chains.IDS[0])

    planned, _sink = clouds.look(1)

    headings, rows = migrate._columns(planned)
    images = [row[headings.index('Image')] for row in rows]
    assert images == ['already there' if is_there else 'not migrated'] * 2
    assert planned.is_blocked
