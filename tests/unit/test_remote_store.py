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

"""Two writers of one archive in an object store, one of which sleeps for long."""

import contextlib
import json
import pathlib
import random
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from osc_backup_port import errors
from osc_backup_port.archive import remote_store, store
from osc_backup_port.moving import archive_segments, verify_archive
from osc_backup_port.osc import steps
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder

LOCK = f'{BASE}/lock.json'


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, '_BEAT', 0.05)
    monkeypatch.setattr(remote_store, '_LEASE', 0.4)
    monkeypatch.setattr(remote_store, '_DEAD', 0.6)
    monkeypatch.setattr('osc_backup_port.archive.manifest.SEGMENT_SIZE', 100_000)
    monkeypatch.setattr(archive_segments, '_PROOF_LENGTH', 2)


@pytest.fixture
def url() -> str:
    return f'memory://{uuid.uuid4()}/a'


@pytest.fixture
def chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    chain = chains.make_chain(cluster, 1)
    noise = random.Random(1).randbytes(400_000)
    cluster.images[BASE].snapshots[0].content.write(1 << 20, noise)
    return chain


class Sleeper(remote_store.Remote):
    """Sleeps within its n-th write, as a process that was stopped; all of its threads do."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(url)
        self.number = number
        self.count = 0
        self.sleeps = threading.Event()
        self.wakes = threading.Event()
        self._mutex = threading.Lock()

    def _write(self, path: str) -> None:
        if '/lock.' not in path:
            with self._mutex:
                self.count += 1
                if self.count == self.number:
                    self.sleeps.set()
        if self.sleeps.is_set():
            assert self.wakes.wait(60)

    def put(self, path: str, content: bytes) -> None:
        self._write(path)
        super().put(path, content)

    def create(self, path: str, content: bytes) -> None:
        self._write(path)
        super().create(path, content)

    def copy(self, old: str, new: str) -> None:
        self._write(new)
        super().copy(old, new)

    def delete(self, path: str) -> None:
        self._write(path)
        super().delete(path)


def create(chain: chains.Chain, where: store.Store, level: int = 3) -> str:
    """Return what the command would say of the backup."""
    cinder = archives.with_metadata(chain)
    try:
        (step,) = archives.create(cinder, chain.cluster, where, [IDS[0]], level=level)
    except errors.PortError as error:
        return str(error)
    return steps.data(step, 'added')


def verify(where: store.Store) -> list[verify_archive.Verdict]:
    return list(verify_archive.run(where, archives.SILENT, quick=False))


def check_whole(chain: chains.Chain, where: store.Store) -> None:
    assert [verdict.result for verdict in verify(where)] == ['good']
    target = fake_ceph.Cluster(1)
    archives.import_(FakeCinder(), target, where)
    expected = chain.cluster.images[BASE].snapshots[0].content.dump()
    assert (archives.contents(target)[chains.snapshot(0)] == expected) is True
    target.close()


def test_one_writes_while_the_other_sleeps_wherever_that_is(chain: chains.Chain, url: str) -> None:
    """Neither says "added" of what is not whole, and what is committed stays."""
    undisturbed = Sleeper(url, 1 << 30)
    assert create(chain, undisturbed) == 'added'
    # Those of the commit, which come last, and some of all others.
    last = undisturbed.count
    said = [
        sleep_within(chain, number) for number in (*range(1, last - 8, 6), *range(last - 8, last))
    ]
    assert 'added' in [second for _first, second in said]
    assert 'already there' in [second for _first, second in said]


def sleep_within(chain: chains.Chain, number: int) -> tuple[str, str]:
    """Let one run sleep within its n-th write until another has ended; return what both say."""
    url = f'memory://{uuid.uuid4()}/a'
    sleeper, other = Sleeper(url, number), remote_store.Remote(url)
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(create(chain, sleeper)))
    thread.start()
    assert sleeper.sleeps.wait(60)
    # Its segments are others than the sleeper's.
    second = create(chain, other, level=1)
    sleeper.wakes.set()
    thread.join()
    (first,) = results
    assert second in ('added', 'already there'), (number, second)
    found = {verdict.result for verdict in verify(other)}
    assert 'good' in found, (number, found)
    assert found <= {'good', 'unfinished'}, (number, found)
    if second == 'added':
        told = ('lost its lock', 'another run has written', 'already there')
        assert any(text in first for text in told), (number, first)
    # What the sleeper left is no defect, and goes with the next run.
    assert create(chain, other) == 'already there'
    check_whole(chain, other)
    return first, second


def test_a_living_owner_is_not_disturbed(url: str) -> None:
    where, other = remote_store.Remote(url), remote_store.Remote(url)
    with where.lock(BASE) as check:
        time.sleep(1)
        with pytest.raises(errors.Conflict, match='another run'), other.lock(BASE):
            pass
        check()
    assert where.entries(BASE) == []


def test_no_clock_is_compared_with_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, other = remote_store.Remote(url), remote_store.Remote(url)
    with where.lock(BASE) as check:
        monkeypatch.setattr(time, 'time', lambda: 4e9)
        with pytest.raises(errors.Conflict), other.lock(BASE):
            pass
        monkeypatch.setattr(time, 'time', lambda: 0.0)
        with pytest.raises(errors.Conflict), other.lock(BASE):
            pass
        check()


@pytest.mark.parametrize(
    'left', [b'{"owner": "x", "expires": 4e9}', b'{"owner": "ab12"}', b'', b'garbage', b'[]']
)
def test_the_lock_of_a_dead_run_is_taken_over(url: str, left: bytes) -> None:
    where = remote_store.Remote(url)
    where.put(LOCK, left)
    where.put(f'{BASE}/lock.ab12.json', b'{"beat": 3}')
    begun = time.monotonic()
    with where.lock(BASE) as check:
        check()
    assert time.monotonic() - begun >= 0.6
    assert where.get(LOCK, 999) is None


def test_a_lock_that_is_lost_is_an_error_before_every_write(url: str) -> None:
    where, other = remote_store.Remote(url), remote_store.Remote(url)
    with where.lock(BASE) as check:
        guarded = store.Guarded(where, check)
        guarded.put(f'{BASE}/file', b'mine')
        other.put(LOCK, json.dumps({'owner': 'other'}).encode())
        with pytest.raises(errors.Conflict, match='lost its lock'):
            guarded.put(f'{BASE}/file', b'late')
        with pytest.raises(errors.Conflict, match='lost its lock'):
            guarded.create(f'{BASE}/new', b'late')
        with pytest.raises(errors.Conflict, match='lost its lock'):
            guarded.commit(f'{BASE}/0-{IDS[0]}/increment.json', IDS[0], b'late')
        with pytest.raises(errors.Conflict, match='lost its lock'):
            guarded.delete(f'{BASE}/file')
        # It does not come back.
        other.put(LOCK, b'{}')
        with pytest.raises(errors.Conflict, match='lost its lock'):
            check()
        other.put(LOCK, json.dumps({'owner': 'other'}).encode())
    assert where.get(f'{BASE}/file', 99) == b'mine'
    assert json.loads(where.get(LOCK, 99) or b'') == {'owner': 'other'}


def test_a_store_that_does_not_answer_ends_the_lock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = remote_store.Remote(url)
    with where.lock(BASE) as check:
        check()
        put = where.put

        def fail(path: str, content: bytes) -> None:
            raise errors.PortError('no answer')

        monkeypatch.setattr(where, 'put', fail)
        time.sleep(0.6)
        with pytest.raises(errors.Conflict, match='lost its lock'):
            check()
        monkeypatch.setattr(where, 'put', put)


@contextlib.contextmanager
def losing_answers(where: remote_store.Remote) -> Iterator[None]:
    pipe = where._fs.pipe_file

    def lose(path: str, content: bytes, **more: str) -> None:
        pipe(path, content, **more)
        raise OSError(22, 'PreconditionFailed, to the second try')

    where._fs.pipe_file = lose
    try:
        yield
    finally:
        where._fs.pipe_file = pipe


def test_a_put_whose_answer_was_lost_is_done(url: str) -> None:
    where = remote_store.Remote(url)
    with losing_answers(where):
        where.create('file', b'mine')
    with pytest.raises(errors.Conflict, match='another run has written it'):
        where.create('file', b'other')
    assert where.get('file', 99) == b'mine'


def test_a_commit_that_a_dead_run_began_is_finished(chain: chains.Chain, url: str) -> None:
    """It had put the object that counts, and not yet increment.json."""
    where = remote_store.Remote(url)
    assert create(chain, where) == 'added'
    path = f'{BASE}/0-{IDS[0]}/increment.json'
    content = where.get(path, 1 << 20) or b''
    where.put(f'{path}.new', content)
    where.delete(path)

    assert create(chain, where) == 'already there'

    assert where.get(path, 1 << 20) == content
    assert where.get(f'{path}.new', 1 << 20) is None
    check_whole(chain, where)


def test_the_folder_of_an_archive_is_moved_away_meanwhile(
    chain: chains.Chain, tmp_path: pathlib.Path
) -> None:
    class Moved(store.Folder):
        def put(self, path: str, content: bytes) -> None:
            super().put(path, content)
            if path.endswith('00001.rbd-diff.zst'):
                (tmp_path / 'a' / BASE).rename(tmp_path / 'moved')

    said = create(chain, Moved(tmp_path / 'a'))

    assert 'was moved or removed' in said
    assert not list((tmp_path / 'a').rglob('increment.json'))


@pytest.mark.parametrize('lost', ['increment.json', ''])
def test_what_was_committed_and_is_gone_is_told_and_made_again(
    chain: chains.Chain, url: str, lost: str
) -> None:
    where = remote_store.Remote(url)
    create(chain, where)
    folder = f'{BASE}/0-{IDS[0]}'
    for entry in where.entries(folder):
        if lost in entry.name:
            where.delete(f'{folder}/{entry.name}')

    assert 'good' not in [verdict.result for verdict in verify(where)]
    assert create(chain, where) == 'added'
    check_whole(chain, where)


class Dying(remote_store.Remote):
    """Does so many writes, and then none."""

    def __init__(self, url: str, writes: int) -> None:
        super().__init__(url)
        self._left = writes

    def put(self, path: str, content: bytes) -> None:
        self._count(path)
        super().put(path, content)

    def create(self, path: str, content: bytes) -> None:
        self._count(path)
        super().create(path, content)

    def _count(self, path: str) -> None:
        if '/lock.' not in path:
            self._left -= 1
            if self._left < 0:
                raise errors.PortError(f'{path}: died')


def test_a_run_that_dies_while_it_makes_it_again_hides_no_loss(
    cluster: fake_ceph.Cluster, url: str
) -> None:
    """Wherever it stops: what is not there is told, and the next run makes it."""
    cinder = archives.with_metadata(chains.make_chain(cluster, 2))
    where = remote_store.Remote(url)
    archives.create(cinder, cluster, where, [IDS[1]])
    for writes in range(100):
        for entry in where.entries(BASE):
            if IDS[1] in entry.name and entry.is_folder:
                for left in where.entries(f'{BASE}/{entry.name}'):
                    where.delete(f'{BASE}/{entry.name}/{left.name}')
        try:
            archives.create(cinder, cluster, Dying(url, writes), [IDS[1]])
            break
        except errors.PortError:
            assert IDS[1] in [one.backup_id for one in verify(where) if one.result != 'good']
    assert writes > 3
    assert [verdict.result for verdict in verify(where)] == ['good'] * 2


def test_the_newest_that_is_gone_is_missed(cluster: fake_ceph.Cluster, url: str) -> None:
    """Nothing builds on it, but in an object store its commit stays."""
    cinder = archives.with_metadata(chains.make_chain(cluster, 2))
    where = remote_store.Remote(url)
    for backup_id in IDS[:2]:
        archives.create(cinder, cluster, where, [backup_id])
    for entry in where.entries(f'{BASE}/1-{IDS[1]}'):
        where.delete(f'{BASE}/1-{IDS[1]}/{entry.name}')
    good, gone = verify(where)
    assert (good.result, gone.result, gone.backup_id) == ('good', 'unfinished', IDS[1])
    assert 'the folder of that backup is gone' in str(gone.problem)
