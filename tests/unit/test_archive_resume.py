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

"""Runs that are killed, and two runs at once: the same command again ends right."""

import collections.abc
import contextlib
import multiprocessing
import pathlib
import time

import pytest

from osc_backup_port import errors, model
from osc_backup_port.archive import manifest, store
from osc_backup_port.moving import endpoints, image_session, plan, verify_archive
from osc_backup_port.moving.plan import State
from osc_backup_port.transfer import writing
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('osc_backup_port.archive.manifest.SEGMENT_SIZE', 100_000)
    monkeypatch.setattr('osc_backup_port.moving.archive_source._PART', 2)


@pytest.fixture
def chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    return chains.make_chain(cluster, 2)


@pytest.fixture
def target() -> collections.abc.Iterator[fake_ceph.Cluster]:
    made = fake_ceph.Cluster(3)
    yield made
    made.close()


def stream_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob('*.rbd-diff')}


@pytest.mark.parametrize('trash', [None, b'', b'trash'])
def test_create_goes_on_behind_what_is_whole(
    chain: chains.Chain, tmp_path: pathlib.Path, trash: bytes | None
) -> None:
    cinder = archives.with_metadata(chain)
    whole = store.Folder(tmp_path / 'whole')
    archives.create(cinder, chain.cluster, whole, [IDS[1]], level=None)
    folders = [f'{BASE}/{number}-{IDS[number]}' for number in range(2)]
    for folder in folders:
        count = len(stream_of(tmp_path / 'whole' / folder))
        assert count > 2
        for kept in range(count + 1):
            root = tmp_path / f'{folders.index(folder)}-{kept}'
            for path in archives.files(tmp_path / 'whole'):
                name = path.relative_to(tmp_path / 'whole')
                if str(name).startswith(folders[1]) and folder == folders[0]:
                    continue
                if str(name) == f'{folder}/increment.json':
                    continue
                if str(name).startswith(folder) and name.name.endswith('.rbd-diff'):
                    number = int(name.name[:5])
                    if number > kept or (number == kept and trash is None):
                        continue
                copy = root / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                spoilt = name.name == f'{kept:05}.rbd-diff' and str(name).startswith(folder)
                copy.write_bytes((trash or b'') if spoilt else path.read_bytes())
            where = store.Folder(root)
            archives.create(cinder, chain.cluster, where, [IDS[1]], level=None)
            found = list(verify_archive.run(where, archives.SILENT, quick=False))
            assert [str(verdict.problem or '') for verdict in found] == ['', '']
            assert {verdict.result for verdict in found} == {'good'}
            target, there = fake_ceph.Cluster(3), FakeCinder()
            archives.import_(there, target, where)
            assert list(archives.contents(target).values()) == chain.contents
            target.close()


def test_an_increment_that_was_begun_before_the_one_it_starts_from(
    cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
) -> None:
    """Its folder has too low a number: it gets another one."""
    chain = chains.make_chain(cluster, 3)
    cinder, where = archives.with_metadata(chain), store.Folder(tmp_path)
    archives.create(cinder, cluster, where, [IDS[0]])
    where.put(f'{BASE}/1-{IDS[2]}/record.json', b'left behind')
    archives.create(cinder, cluster, where, [IDS[1]])
    archives.create(cinder, cluster, where, [IDS[2]])
    assert archives.is_good(where)
    assert not (tmp_path / BASE / f'1-{IDS[2]}').exists()


@pytest.mark.parametrize('has_metadata', [True, False])
def test_create_takes_nothing_over_that_it_does_not_know(
    chain: chains.Chain, tmp_path: pathlib.Path, has_metadata: bool
) -> None:
    """What a dead run left may be of a time when the backup had other metadata, for one."""
    cinder, where = archives.with_metadata(chain), store.Folder(tmp_path)
    if not has_metadata:
        chain.cluster.objects.clear()
    folder = f'{BASE}/0-{IDS[0]}'
    left = (
        'record.json', 'volume-metadata.json', '00000.rbd-diff', '00001.rbd-diff.zst',
        '00099.rbd-diff', '00000.proof.json', 'x.part', '.increment.json.1234.part', 'README',
    )  # fmt: skip
    where.put(f'{BASE}/image.json', manifest.encode_image(model.ImageLayout(chains.SIZE)))
    for name in left:
        where.put(f'{folder}/{name}', b'left behind')
    steps = archives.create(cinder, chain.cluster, where, [IDS[1]], level=None)
    assert [step.state for step in steps] == [State.DONE, State.DONE]
    assert archives.is_good(where)
    target = fake_ceph.Cluster(3)
    archives.import_(FakeCinder(), target, where)
    assert list(archives.contents(target).values()) == chain.contents
    assert len(target.objects) == (2 if has_metadata else 0)
    target.close()


@pytest.mark.parametrize('start', [0, 1])
def test_import_is_lost_at_any_operation(
    cluster: fake_ceph.Cluster, tmp_path: pathlib.Path, start: int
) -> None:
    """From the n-th operation on nothing answers any more; then the command again."""
    chain = chains.make_chain(cluster, 3)
    where, wanted = store.Folder(tmp_path), [IDS[0]] if start else []
    archives.create(archives.with_metadata(chain), cluster, where, [IDS[2]])

    def attempt(number: int) -> tuple[fake_ceph.Cluster, FakeCinder, int]:
        target, there, seen = fake_ceph.Cluster(number), FakeCinder(), [0]
        if start:
            archives.import_(there, target, where, wanted)

        def hook(what: str) -> int:
            seen[0] += 1
            return 5 if seen[0] >= number else 0

        target.hook = hook
        with contextlib.suppress(errors.PortError):
            archives.import_(there, target, where)
        target.hook = lambda what: 0
        return target, there, seen[0]

    target, there, total = attempt(1 << 60)
    after, writes = target.dump(), []
    target.close()
    assert total > 60
    for number in range(1, total, 3):
        target, there, _seen = attempt(number)
        target.forget_clients()
        steps = archives.import_(there, target, where)
        writes.append(sum(step.moved for step in steps))
        assert (target.dump() == after) is True, number
        assert set(there.rows) == set(IDS[:3])
        target.close()
    # The later it broke, the less is left to do: parts of a new image, increments of one that
    # is there.
    assert writes[-1] == 0
    assert len({count for count in writes if count}) > (1 if start else 3)


@pytest.mark.parametrize('is_rolled_back', [True, False])
def test_an_image_that_was_changed_since_the_import_was_killed(
    is_rolled_back: bool,
    cluster: fake_ceph.Cluster,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By whom the doctor told to roll it back, or by a backup of Cinder that died."""

    class Killed(BaseException):
        pass

    def die(self: image_session.Session, step: plan.Step) -> None:
        raise Killed

    chain, where = chains.make_chain(cluster, 2), store.Folder(tmp_path)
    archives.create(archives.with_metadata(chain), cluster, where, [IDS[1]])
    target, there = fake_ceph.Cluster(3), FakeCinder()
    archives.import_(there, target, where, [IDS[0]])
    with monkeypatch.context() as patch:
        patch.setattr(image_session.Session, 'commit', die)
        patch.setattr(image_session.Session, 'leave', lambda self: None)
        with pytest.raises(Killed):
            archives.import_(there, target, where)
    with target.pool().open(BASE, writable=True) as image:
        if is_rolled_back:
            image.roll_back(chains.snapshot(0))
        else:
            writing.write_items(image, [model.Data(0, b'of a backup that died' * 200)])
    archives.import_(there, target, where)
    assert list(archives.contents(target).values()) == chain.contents
    target.close()


def test_a_note_of_a_run_before_another_one_means_nothing(
    chain: chains.Chain,
    tmp_path: pathlib.Path,
    target: fake_ceph.Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One archive, then another, then the first: what the first had written is gone."""
    first, other = store.Folder(tmp_path / 'first'), store.Folder(tmp_path / 'other')
    cinder = archives.with_metadata(chain)
    archives.create(cinder, chain.cluster, first, [IDS[1]])
    archives.create(cinder, chain.cluster, other, [IDS[1]], level=None)
    begin, note = image_session.Session.begin, image_session.Session._note_parts

    def dies_behind_a_note(self: image_session.Session, identity: str, mark: int) -> None:
        note(self, identity, mark)
        if self.has(plan.Step(plan.Point(IDS[0], '', 0), None)):
            target.hook = lambda what: 5

    def dies_when_it_has_begun(
        self: image_session.Session, step: plan.Step, reading: endpoints.Reading
    ) -> endpoints.Writing:
        writing = begin(self, step, reading)
        target.hook = lambda what: 5
        return writing

    for name, die, where in (
        ('_note_parts', dies_behind_a_note, first),
        ('begin', dies_when_it_has_begun, other),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(image_session.Session, name, die)
            with contextlib.suppress(errors.PortError):
                archives.import_(FakeCinder(), target, where)
        assert target.hook('') == 5
        target.hook = lambda what: 0
        target.forget_clients()
    archives.import_(FakeCinder(), target, first)
    assert (list(archives.contents(target).values()) == chain.contents) is True


def test_a_chain_with_damage_leaves_the_pool_as_it_was(
    chain: chains.Chain, tmp_path: pathlib.Path
) -> None:
    where, there, target = store.Folder(tmp_path), FakeCinder(), fake_ceph.Cluster(5)
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[1]])
    archives.import_(there, target, where, [IDS[0]])
    before = target.dump()
    last = sorted((tmp_path / BASE / f'1-{IDS[1]}').glob('*.zst'))[-1]
    last.write_bytes(last.read_bytes()[:-1] + b'x')
    with pytest.raises(errors.InvalidInput, match=last.name):
        archives.import_(there, target, where)
    assert (target.dump() == before) is True
    assert set(there.rows) == {IDS[0]}
    target.close()


def test_a_part_that_a_dead_run_still_has_open_is_waited_for(
    chain: chains.Chain, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librbd refuses to roll back what the cluster takes to be in use."""
    where, target = store.Folder(tmp_path), fake_ceph.Cluster(5)
    archives.create(archives.with_metadata(chain), chain.cluster, where, [IDS[1]])
    part = f'{BASE}.part'
    with chains.make_image(target, part) as image:
        chains.change(target.images[part].content, 0)
        image.create_snap(chains.snapshot(0))
        target.images[part].content.write(0, b'half of the next one')
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            target.forget_clients()

    rbd.Image(target.connect(), part)
    monkeypatch.setattr('osc_backup_port.moving.chain_writer.time.sleep', sleep)
    archives.import_(FakeCinder(), target, where)
    assert len(waited) == 3
    assert list(archives.contents(target).values()) == chain.contents
    target.close()


def hold(root: str, ready: 'multiprocessing.synchronize.Event') -> None:
    with store.Folder(pathlib.Path(root)).lock(BASE):
        ready.set()
        time.sleep(60)


def test_the_lock_of_a_folder(tmp_path: pathlib.Path) -> None:
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(10)
    where = store.Folder(tmp_path)
    with pytest.raises(errors.Conflict, match='another run'), where.lock(BASE):
        pass
    process.kill()
    process.join()
    with where.lock(BASE) as check:
        check()
