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

"""An import ends as if the backup had been made here, or as if it had not begun."""

import io
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.ceph import lease
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import rbd_diff, rbd_export
from osc_backup_port.moving import chain_writer, image_info, image_session
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import chains
from tests.unit.chains import BASE, IDS, SIZE
from tests.unit.records import make_record

FORMATS = ['raw', 'rbd', 'rbd-diff']
PART = ceph_driver.temporary_image(BASE)
META = f'backup.{IDS[0]}.meta'


@pytest.fixture(scope='module')
def source() -> Iterator[chains.Chain]:
    """Where the backups come from; nothing changes it."""
    cluster = fake_ceph.Cluster()
    yield chains.make_chain(cluster)
    cluster.close()


Streams = dict[Any, io.FileIO]


@pytest.fixture(scope='module')
def streams(source: chains.Chain) -> Streams:
    """Streams by format and number, or by the numbers of two that an increment connects."""
    made: Streams = {
        (image_format, number): chains.export(source, number, image_format)[0]
        for image_format in FORMATS
        for number in range(3)
    }
    for base, number in ((0, 1), (1, 2), (0, 2)):
        made[base, number] = chains.export(source, number, 'rbd-diff', base)[0]
    return made


def contents(cluster: fake_ceph.Cluster, name: str = BASE) -> dict[str, chains.Blocks]:
    """Return what the snapshots of an image hold, and HEAD."""
    found = cluster.dump_image(name)
    return {**{key: value[1] for key, value in found['snapshots'].items()}, 'HEAD': found['head']}


def expected(source: chains.Chain, *numbers: int) -> dict[str, chains.Blocks]:
    """Return what has to be there when these backups are: HEAD is the newest."""
    return {
        **{chains.snapshot(number): source.contents[number] for number in numbers},
        'HEAD': source.contents[max(numbers)],
    }


def check(cluster: fake_ceph.Cluster, source: chains.Chain, *numbers: int) -> None:
    assert list(cluster.images) == [BASE]
    assert (contents(cluster) == expected(source, *numbers)) is True
    assert [name for name in cluster.objects if 'lock' in name] == []
    assert not cluster.images[BASE].watchers


@pytest.fixture
def imported(
    cluster: fake_ceph.Cluster, source: chains.Chain, streams: Streams
) -> Callable[..., chains.Result]:
    """Import the stream of that key as the backup of that number."""

    def run(key: tuple[Any, int], **options: Any) -> chains.Result:
        return chains.import_(cluster, source.backups[key[1]], streams[key], **options)

    return run


Imported = Callable[..., chains.Result]


class TestANewImage:
    @pytest.mark.parametrize('image_format', ['raw', 'rbd-diff'])
    @pytest.mark.parametrize('number', [0, 2])
    def test_one_backup(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        imported: Imported,
        image_format: str,
        number: int,
    ) -> None:
        result = imported((image_format, number))

        check(cluster, source, number)
        stored = cluster.dump_image(BASE)
        assert (stored['size'], stored['order'], stored['features']) == (SIZE, 22, 29)
        assert (result.state, result.image, result.format) == ('imported', BASE, image_format)
        assert (result.snapshot, result.size) == (chains.snapshot(number), SIZE)

    def test_a_chain_with_its_snapshots(
        self, cluster: fake_ceph.Cluster, source: chains.Chain, imported: Imported
    ) -> None:
        result = imported(('rbd', 2))

        check(cluster, source, 0, 1, 2)
        assert (result.snapshot, result.format) == (chains.snapshot(2), 'rbd')

    @pytest.mark.parametrize('name', ['elsewhere', f'volume-{chains.VOLUME}.backup.base'])
    def test_where_cinder_would_not_look(
        self, cluster: fake_ceph.Cluster, imported: Imported, name: str
    ) -> None:
        with pytest.raises(errors.InvalidInput, match=f'looks for it in {BASE}, and --image-name'):
            imported(('raw', 0), image_name=name)
        assert not cluster.images

    def test_old_records_name_no_image(
        self, cluster: fake_ceph.Cluster, source: chains.Chain
    ) -> None:
        old = chains.backup(0, service_metadata=None)
        legacy = f'volume-{chains.VOLUME}.backup.base'
        file, _result = chains.export(source, 0, 'raw')
        with pytest.raises(
            errors.InvalidInput, match=f'{BASE} and {legacy}, and --image-name is x'
        ):
            chains.import_(cluster, old, file, image_name='x')
        assert chains.import_(cluster, old, file, image_name=legacy).image == legacy
        assert (contents(cluster, legacy) == expected(source, 0)) is True

    def test_an_image_of_another_volume(
        self, cluster: fake_ceph.Cluster, source: chains.Chain
    ) -> None:
        victim = f'volume-{IDS[3]}.backup.{IDS[4]}'
        evil = chains.backup(0, service_metadata=f'{{"base": "{victim}"}}')
        parent = chains.backup(3, service_metadata=f'{{"base": "{victim}"}}')
        child = chains.backup(0, service_metadata=None, parent_id=IDS[3])
        file, _result = chains.export(source, 0, 'raw')
        for item, its_parent in ((evil, None), (child, parent)):
            with pytest.raises(errors.InvalidInput, match='--allow-foreign-image'):
                chains.import_(cluster, item, file, its_parent)
            assert not cluster.images
        assert chains.import_(cluster, evil, file, allow_foreign_image=True).image == victim

    def test_order_and_striping_of_the_stream_are_kept(self, cluster: fake_ceph.Cluster) -> None:
        layout = model.ImageLayout(0, 20, 1 | 2 | 64, 65536, 4)
        whole = model.Increment(None, chains.snapshot(0), SIZE, iter([model.Data(5, b'x')]))
        head = model.Increment(chains.snapshot(0), None, SIZE, iter([]))
        file = chains.memory_file()
        for piece in rbd_export.encode(layout, 2, [whole, head]):
            file.write(piece)

        chains.import_(cluster, chains.backup(0), file)

        stored = cluster.images[BASE]
        assert (stored.order, stored.stripe_unit, stored.stripe_count) == (20, 65536, 4)
        assert stored.features == 29
        assert contents(cluster)['HEAD'] == {0: b'\0' * 5 + b'x' + bytes(4090)}

    def test_a_part_that_a_dead_run_left_is_made_anew(
        self, cluster: fake_ceph.Cluster, source: chains.Chain, imported: Imported
    ) -> None:
        with chains.make_image(cluster, PART) as image:
            cluster.images[PART].content.write(12345, b'of the dead' * 1000)
            image.create_snap(chains.snapshot(0))

        imported(('raw', 0))

        check(cluster, source, 0)

    def test_a_part_that_still_counts_as_open_is_waited_for(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        imported: Imported,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                cluster.images[PART].watchers.clear()

        chains.make_image(cluster, PART)
        monkeypatch.setattr('osc_backup_port.ceph.pool.time.sleep', sleep)

        imported(('raw', 0))

        assert len(waited) == 3
        check(cluster, source, 0)

    def test_a_stream_that_is_only_an_increment(
        self, cluster: fake_ceph.Cluster, imported: Imported
    ) -> None:
        with pytest.raises(errors.InvalidInput, match='is not on it; there: none') as caught:
            imported((0, 1))

        assert f'Import backup {IDS[0]} first' in str(caught.value)
        assert cluster.dump() == {'images': {}, 'objects': {}}


class TestAChainThatIsThere:
    @pytest.mark.parametrize('key', [(0, 1), ('raw', 1), ('rbd-diff', 1), ('rbd', 1)], ids=str)
    def test_the_next_backup(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        imported: Imported,
        key: tuple[Any, int],
    ) -> None:
        imported(('rbd-diff', 0))

        result = imported(key)

        check(cluster, source, 0, 1)
        assert result.state == 'imported'

    @pytest.mark.parametrize('image_format', FORMATS)
    def test_twice_changes_nothing(
        self, cluster: fake_ceph.Cluster, imported: Imported, image_format: str
    ) -> None:
        imported((image_format, 1))
        before = cluster.dump()

        result = imported((image_format, 1))

        assert (cluster.dump() == before) is True
        assert (result.state, result.moved, result.sha256) == ('already there', 0, None)
        assert result.snapshot == chains.snapshot(1)

    def test_a_full_copy_writes_only_what_differs(
        self, cluster: fake_ceph.Cluster, imported: Imported, source: chains.Chain
    ) -> None:
        imported(('raw', 0))
        before = dict(cluster.images[BASE].content.objects)

        imported(('raw', 1))

        check(cluster, source, 0, 1)
        after = cluster.images[BASE].content.objects
        kept = [number for number in before if after.get(number) == before[number]]
        assert kept
        # The very same blocks, not others of the same content.
        for number in kept:
            for block, data in before[number].items():
                assert after[number][block] is data

    @pytest.mark.parametrize(
        'keys',
        [
            [('raw', 2), ('raw', 0), ('raw', 1)],
            [('raw', 1), ('rbd-diff', 0), (0, 2)],
            [('rbd-diff', 0), (0, 2), (0, 1)],
            [('raw', 2), ('rbd', 1)],
            [('raw', 2), ('raw', 0), (0, 1)],
        ],
        ids=str,
    )
    def test_in_any_order_head_is_the_newest(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        imported: Imported,
        keys: list[tuple[Any, int]],
    ) -> None:
        there: set[int] = set()
        for key in keys:
            imported(key)
            there |= set(range(key[1] + 1)) if key[0] == 'rbd' else {key[1]}
            check(cluster, source, *there)

    def test_a_dirty_head_is_no_part_of_an_increment(
        self, cluster: fake_ceph.Cluster, source: chains.Chain, imported: Imported
    ) -> None:
        imported(('rbd-diff', 0))
        cluster.images[BASE].content.write(77 * units.MIB, b'half a backup' * 9999)
        cluster.images[BASE].size = 2 * SIZE

        imported((0, 1))

        check(cluster, source, 0, 1)

    def test_a_dirty_head_is_no_part_of_a_full_copy(
        self, cluster: fake_ceph.Cluster, source: chains.Chain, imported: Imported
    ) -> None:
        imported(('rbd-diff', 0))
        cluster.images[BASE].content.write(77 * units.MIB, b'half a backup' * 9999)

        imported(('raw', 1))

        check(cluster, source, 0, 1)

    def test_an_increment_whose_start_is_missing(
        self, cluster: fake_ceph.Cluster, imported: Imported
    ) -> None:
        imported(('raw', 0))
        before = cluster.dump()

        with pytest.raises(errors.InvalidInput, match='the increment starts from') as caught:
            imported((1, 2))

        assert f'Import backup {IDS[1]} first' in str(caught.value)
        assert (cluster.dump() == before) is True

    def test_a_volume_that_grew(self, cluster: fake_ceph.Cluster, imported: Imported) -> None:
        imported(('raw', 0))
        grown = model.Increment(
            chains.snapshot(0), chains.snapshot(1), 2 * SIZE, iter([model.Data(SIZE, b'more')])
        )
        file = chains.memory_file()
        for piece in rbd_diff.encode(grown):
            file.write(piece)

        chains.import_(cluster, chains.backup(1, size=2), file)

        stored = cluster.images[BASE]
        assert [snap.size for snap in stored.snapshots] == [SIZE, 2 * SIZE]
        assert stored.size == 2 * SIZE
        assert stored.content.read(SIZE, 5) == b'more\0'

    def test_the_snapshot_may_have_another_time_in_its_name(
        self, cluster: fake_ceph.Cluster, source: chains.Chain, imported: Imported
    ) -> None:
        imported(('raw', 0))
        cluster.images[BASE].snapshots[0].name = f'backup.{IDS[0]}.snap.1700000000.99'

        result = imported(('raw', 0))
        imported((0, 1))

        assert result.state == 'already there'
        found = contents(cluster)
        assert (found[chains.snapshot(1)] == source.contents[1]) is True


class TestWhatStandsInTheWay:
    @pytest.fixture(autouse=True)
    def unchanged(self, cluster: fake_ceph.Cluster) -> Iterator[None]:
        self.before: dict[str, Any] | None = None
        yield
        if self.before is not None:
            assert (cluster.dump() == self.before) is True

    def test_an_image_without_snapshots(
        self, cluster: fake_ceph.Cluster, imported: Imported
    ) -> None:
        with chains.make_image(cluster):
            cluster.images[BASE].content.write(0, b'whose?')
        self.before = cluster.dump()

        with pytest.raises(errors.Conflict, match='without the snapshot of any backup') as caught:
            imported(('raw', 0))

        assert f'rename {BASE} {BASE}.aside' in str(caught.value)

    def test_somebody_who_died(
        self,
        cluster: fake_ceph.Cluster,
        imported: Imported,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        imported(('raw', 0))
        dead = rbd.Image(cluster.connect(), BASE)
        clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: dead.close())
        monkeypatch.setattr(chain_writer, 'time', clock)
        imported(('raw', 1))
        self.before = cluster.dump()

    def test_somebody_who_writes(
        self,
        cluster: fake_ceph.Cluster,
        imported: Imported,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(chain_writer, 'WATCH_TIMEOUT', 0)
        imported(('raw', 0))
        self.before = cluster.dump()

        with (
            rbd.Image(cluster.connect(), BASE),
            pytest.raises(errors.Conflict, match='is being written by 10'),
        ):
            imported(('raw', 1))

    @pytest.mark.parametrize('key', [('rbd-diff', 1), (0, 1)], ids=str)
    def test_a_stream_of_another_backup(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        streams: Streams,
        imported: Imported,
        key: tuple[Any, int],
    ) -> None:
        imported(('raw', 0))
        self.before = cluster.dump()

        with pytest.raises(errors.InvalidInput, match=f'holds backup {IDS[1]}, but the record'):
            chains.import_(cluster, source.backups[2], streams[key])

    @pytest.mark.parametrize('there', [True, False])
    def test_a_chain_without_the_backup(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        streams: Streams,
        imported: Imported,
        there: bool,
    ) -> None:
        if there:
            imported(('raw', 0))
        self.before = cluster.dump()

        with pytest.raises(errors.InvalidInput, match=f'does not hold backup {IDS[2]}'):
            chains.import_(cluster, source.backups[2], streams['rbd', 1])

    @pytest.mark.parametrize('image_format', FORMATS)
    @pytest.mark.parametrize('size', [2, 5])
    def test_another_size(
        self, cluster: fake_ceph.Cluster, streams: Streams, image_format: str, size: int
    ) -> None:
        self.before = cluster.dump()

        with pytest.raises(errors.InvalidInput, match='the record says'):
            chains.import_(cluster, chains.backup(1, size=size), streams[image_format, 1])

    @pytest.mark.parametrize('image_format', FORMATS)
    @pytest.mark.parametrize('there', [True, False])
    def test_a_stream_that_is_cut(
        self,
        cluster: fake_ceph.Cluster,
        source: chains.Chain,
        streams: Streams,
        imported: Imported,
        image_format: str,
        there: bool,
    ) -> None:
        if there:
            imported(('raw', 0))
        self.before = cluster.dump()
        whole = streams[image_format, 1]
        size = whole.seek(0, io.SEEK_END)
        for cut in (1, 100_000, 300_000, size - 20):
            file = chains.memory_file()
            whole.seek(0)
            if image_format == 'raw':
                file.truncate(size - cut)
            else:
                file.write(whole.read(size)[: size - cut])

            # Of a raw file the size tells, before anything is written.
            with pytest.raises(errors.InvalidInput, match=r'ends after|the record says'):
                chains.import_(cluster, source.backups[1], file)

            assert (cluster.dump() == self.before) is True

    def test_other_metadata_of_the_volume(
        self, cluster: fake_ceph.Cluster, imported: Imported
    ) -> None:
        cluster.objects[META] = b'{"version": 2, "other": true}'
        self.before = cluster.dump()

        with pytest.raises(errors.Conflict, match='is there with other content'):
            imported(('raw', 0), volume_metadata=b'{"version": 2}')

    def test_another_run(
        self, cluster: fake_ceph.Cluster, imported: Imported, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, '_PATIENCE', 0)
        self.before = cluster.dump()

        with (
            cluster.pool().lock(BASE),
            pytest.raises(errors.Conflict, match='another import into it is running'),
        ):
            imported(('raw', 0))


class TestTheMetadataOfTheVolume:
    def test_it_is_stored(self, cluster: fake_ceph.Cluster, imported: Imported) -> None:
        result = imported(('raw', 0), volume_metadata=b'{"version": 2}')

        assert cluster.objects == {META: b'{"version": 2}'}
        assert result.volume_metadata == META

    def test_it_can_come_later(self, cluster: fake_ceph.Cluster, imported: Imported) -> None:
        assert imported(('raw', 0)).volume_metadata.startswith('none: a restore will bring back')

        result = imported(('raw', 0), volume_metadata=b'{"version": 2}')

        assert result.state == 'already there'
        assert cluster.objects == {META: b'{"version": 2}'}

    def test_the_same_is_left(self, cluster: fake_ceph.Cluster, imported: Imported) -> None:
        cluster.objects[META] = b'{"version": 2}'

        result = imported(('raw', 0), volume_metadata=b'{"version": 2}')

        assert result.volume_metadata == f'already there: {META}'


@pytest.mark.parametrize(
    ('changes', 'parent', 'name'),
    [
        ({'service_metadata': '{"base": "volume-x.backup.y"}'}, None, 'volume-x.backup.y'),
        ({'service_metadata': None, 'parent_id': IDS[0]}, chains.backup(0), BASE),
        ({'service_metadata': None, 'parent_id': IDS[0]}, None, 'LEGACY'),
        ({'service_metadata': None, 'snapshot_id': IDS[4]}, None, 'LEGACY'),
        ({'service_metadata': None, 'num_dependent_backups': 2}, None, 'LEGACY'),
        ({'service_metadata': None}, None, 'OWN'),
    ],
)
def test_where_cinder_looks_for_it(changes: dict[str, Any], parent: Any, name: str) -> None:
    wanted = make_record(
        **{'id': IDS[1], 'volume_id': chains.VOLUME, 'num_dependent_backups': 0, **changes}
    )
    names = {
        'LEGACY': f'volume-{chains.VOLUME}.backup.base',
        'OWN': f'volume-{chains.VOLUME}.backup.{IDS[1]}',
    }

    assert ceph_driver.target_image(wanted, parent) == names.get(name, name)


@pytest.mark.parametrize('key', [('raw', 0), ('rbd-diff', 0), ('rbd', 2)], ids=str)
def test_progress_adds_up(
    cluster: fake_ceph.Cluster, source: chains.Chain, streams: Streams, key: tuple[str, int]
) -> None:
    shown = chains.Shown()

    result = chains.import_(cluster, source.backups[key[1]], streams[key], shown=shown)

    # The last increment of an export, from the newest snapshot to HEAD, is empty.
    count = 4 if key[0] == 'rbd' else 1
    assert [total for _what, total in shown.begun] == [SIZE] * count
    assert shown.moved + shown.skipped == SIZE * count
    assert (result.moved, result.skipped) == (shown.moved, shown.skipped)
    assert 0 < result.moved < 3 * units.MIB


def test_two_at_the_same_time_end_as_one_after_the_other(
    cluster: fake_ceph.Cluster,
    source: chains.Chain,
) -> None:
    keys = [('raw', 0), ('raw', 1), ('raw', 2)]
    files = [chains.export(source, number, 'raw')[0] for _, number in keys]
    results: list[chains.Result] = []

    def run(number: int) -> None:
        results.append(chains.import_(cluster, source.backups[number], files[number]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [result.state for result in results] == ['imported'] * 3
    check(cluster, source, 0, 1, 2)


class Trouble:
    """From the *number*-th operation on, or only then, something fails.

    :ivar committed: whether the operation that makes it count came before
    """

    def __init__(self, number: int, kind: str, commit: str = '-') -> None:
        self._number = number
        self._kind = kind
        self._commit = commit
        self._mutex = threading.Lock()
        self.seen = 0
        self.hit: str | None = None
        self.committed = False

    def __call__(self, what: str) -> int:
        with self._mutex:
            self.seen += 1
            is_now = self.seen == self._number
            lasts = self._kind == 'lost' and self.seen > self._number
            if is_now:
                self.hit = what
            elif self.hit is None and what.startswith(self._commit):
                self.committed = True
        if is_now and self._kind == 'signal':
            if threading.current_thread() is threading.main_thread():
                raise errors.Interrupted('Stopped by SIGTERM.')
            return 0
        return 5 if is_now or lasts else 0


META_CONTENT = b'{"version": 2}'
#: Where the import begins: an empty pool, or the first backup there already.
STARTS: dict[str, list[tuple[Any, int]]] = {'new': [], 'there': [('raw', 0)]}
COMMITS = {'new': 'rename', 'there': 'create_snap'}
CASES = [
    ('new', ('raw', 1)),
    ('new', ('rbd', 1)),
    ('there', (0, 1)),
    ('there', ('raw', 1)),
    ('there', ('rbd', 1)),
]


def copy_of(cluster: fake_ceph.Cluster, seed: int) -> fake_ceph.Cluster:
    made = fake_ceph.Cluster(seed)
    for name, image in cluster.images.items():
        made.images[name] = fake_ceph.copy_image(image)
        made.number_from(max(snapshot.id for snapshot in image.snapshots) + 1)
    return made


@pytest.mark.parametrize('kind', ['once', 'signal', 'lost'])
@pytest.mark.parametrize(('start', 'key'), CASES, ids=str)
def test_trouble_at_any_operation(
    cluster: fake_ceph.Cluster,
    start: str,
    key: tuple[Any, int],
    kind: str,
    source: chains.Chain,
    streams: Streams,
) -> None:
    """Once: it is undone.  Lost for good: the same command ends right later on."""

    def run(where: fake_ceph.Cluster) -> None:
        chains.import_(where, source.backups[key[1]], streams[key], volume_metadata=META_CONTENT)

    for first in STARTS[start]:
        chains.import_(cluster, source.backups[first[1]], streams[first])
    before = cluster.dump()
    whole, counting = copy_of(cluster, 0), Trouble(-1, 'none')
    whole.hook = counting
    run(whole)
    after = whole.dump()
    whole.close()
    assert counting.seen > 20

    undone = 0
    for number in range(1, counting.seen + 1):
        tried, trouble = copy_of(cluster, number), Trouble(number, kind, COMMITS[start])
        tried.hook = trouble
        failed = False
        try:
            run(tried)
        except (errors.CephError, errors.Interrupted):
            failed = True
        tried.hook = lambda what: 0
        where = f'{kind} at {number}: {trouble.hit}'

        if failed and kind != 'lost':
            check_undone(tried.dump(), before, after, trouble, where)
            undone += 1
        tried.forget_clients()
        run(tried)
        assert (tried.dump() == after) is True, where
        tried.close()
        assert tried.worker.lost_buffers == [], where
    assert undone > 10 or kind == 'lost'


def check_undone(
    found: dict[str, Any],
    before: dict[str, Any],
    after: dict[str, Any],
    trouble: Trouble,
    where: str,
) -> None:
    if trouble.hit and 'osc-backup-port' in trouble.hit:
        # The lock itself could not be taken away; it expires.
        found['objects'] = {
            name: content for name, content in found['objects'].items() if 'lock' not in name
        }
    # Of a file that can be read again, the next run goes on behind what is noted.
    found['images'] = {
        name: image
        for name, image in found['images'].items()
        if not (name == PART and image['metadata'])
    }
    if trouble.committed:
        # Nothing takes back what is complete.
        assert found['images'] in (before['images'], after['images']), where
        assert found['objects'] in (before['objects'], after['objects']), where
    else:
        assert (found == before) is True, where


@pytest.mark.parametrize('dies', [False, True])
def test_items_of_one_place_in_several_parts(
    cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """A diff may be in any order, and the last item of a place counts, as with rbd."""
    items: list[model.Item] = [
        model.Data(0, b'a' * 300_000),
        model.Data(units.GIB - 600_000, b'b' * 300_000),
        model.Zero(100_000, 50_000),
        model.Data(200_000, bytes(50_000)),
    ]
    file = chains.memory_file()
    for piece in rbd_diff.encode(model.Increment(None, None, SIZE, iter(items))):
        file.write(piece)
    monkeypatch.setattr('osc_backup_port.moving.file_source._PART', 200_000)
    note = image_session.Session._note_parts

    def note_and_die(self: image_session.Session, identity: str, mark: int) -> None:
        note(self, identity, mark)
        if mark == 600_000:
            cluster.hook = lambda what: 5

    if dies:
        with monkeypatch.context() as patch:
            patch.setattr(image_session.Session, '_note_parts', note_and_die)
            with pytest.raises(errors.CephError):
                chains.import_(cluster, chains.backup(), file, format='rbd-diff')
        cluster.hook = lambda what: 0
        cluster.forget_clients()

    result = chains.import_(cluster, chains.backup(), file, format='rbd-diff')

    assert (contents(cluster)[chains.snapshot(0)] == chains.blocks_of(SIZE, items)) is True
    assert (result.moved < 600_000) is dies


def test_a_point_on_the_way_to_a_backup_that_is_there(cluster: fake_ceph.Cluster) -> None:
    """What leads only to that one is no part of what is read back of the next."""
    places = [
        (chains.snapshot(0), model.Data(0, b'a' * 9000)),
        ('by-hand', model.Data(0, b'b' * 9000)),
        (chains.snapshot(1), model.Data(0, b'c' * 9000)),
        (chains.snapshot(2), model.Data(4 * units.MIB, b'd' * 9000)),
    ]

    def export(count: int) -> io.FileIO:
        increments, last = [], None
        for name, item in places[:count]:
            increments.append(model.Increment(last, name, SIZE, iter([item])))
            last = name
        increments.append(model.Increment(last, None, SIZE, iter(())))
        file = chains.memory_file()
        for piece in rbd_export.encode(model.ImageLayout(SIZE), count + 1, increments):
            file.write(piece)
        return file

    chains.import_(cluster, chains.backup(1), export(3), format='rbd', verify=True)
    chains.import_(cluster, chains.backup(2), export(4), format='rbd', verify=True)

    assert contents(cluster)[chains.snapshot(2)][0][:1] == b'c'


class TestASizeThatIsNoWholeNumberOfGib:
    """``cinder manage`` takes images of any size; the record says the GiB rounded up."""

    ODD = SIZE - 123_456_789

    @pytest.fixture
    def odd(self) -> Iterator[chains.Chain]:
        where = fake_ceph.Cluster()
        chain = chains.Chain(where, BASE, [], [])
        with chains.make_image(where, size=self.ODD) as image:
            for number in range(2):
                content = where.images[BASE].content
                content.write(number * units.MIB, b'data' * 1000)
                content.write(self.ODD - 5 - number, b'end')
                image.create_snap(chains.snapshot(number))
                chain.backups.append(chains.backup(number))
                chain.contents.append(content.dump())
        yield chain
        where.close()

    @pytest.mark.parametrize('image_format', FORMATS)
    def test_the_image_has_exactly_the_size_that_came_in(
        self, cluster: fake_ceph.Cluster, odd: chains.Chain, image_format: str
    ) -> None:
        file, exported = chains.export(odd, 0, image_format)
        shown = chains.Shown()

        result = chains.import_(cluster, odd.backups[0], file, shown=shown, format=image_format)

        assert exported.size == result.size == self.ODD
        stored = cluster.dump_image(BASE)
        assert stored['size'] == self.ODD
        assert [size for size, _content in stored['snapshots'].values()] == [self.ODD]
        assert (contents(cluster) == expected(odd, 0)) is True
        assert bool(shown.lines) == (image_format == 'raw')

    @pytest.mark.parametrize('key', ['raw', 'rbd', 'rbd-diff', 0], ids=str)
    def test_an_increment_of_it(
        self, cluster: fake_ceph.Cluster, odd: chains.Chain, key: Any
    ) -> None:
        base = key if key == 0 else None
        image_format = 'rbd-diff' if key == 0 else key
        first, _result = chains.export(odd, 0, 'rbd-diff')
        second, _result = chains.export(odd, 1, image_format, base)
        chains.import_(cluster, odd.backups[0], first)

        chains.import_(cluster, odd.backups[1], second, format=image_format)

        assert (contents(cluster) == expected(odd, 0, 1)) is True
        assert cluster.dump_image(BASE)['size'] == self.ODD

    def test_a_raw_file_is_asked_about(
        self, cluster: fake_ceph.Cluster, odd: chains.Chain
    ) -> None:
        file, _result = chains.export(odd, 0, 'raw')

        with pytest.raises(errors.InvalidInput, match=f'has {self.ODD} bytes') as caught:
            chains.import_(cluster, odd.backups[0], file)

        assert '--format raw' in str(caught.value)
        assert cluster.dump() == {'images': {}, 'objects': {}}

    def test_what_is_told_of_it_is_enough(
        self, cluster: fake_ceph.Cluster, odd: chains.Chain
    ) -> None:
        file, _result = chains.export(odd, 0, 'raw')
        info = image_info.ImageInfo('raw', IDS[0], self.ODD, self.ODD, None)

        result = chains.import_(cluster, odd.backups[0], file, info=info)

        assert result.size == self.ODD

    @pytest.mark.parametrize('image_format', FORMATS)
    def test_a_size_that_the_volume_cannot_have(
        self, cluster: fake_ceph.Cluster, odd: chains.Chain, image_format: str
    ) -> None:
        file, _result = chains.export(odd, 0, image_format)

        with pytest.raises(errors.InvalidInput, match=r'the record says|ends after'):
            chains.import_(cluster, chains.backup(0, size=2), file, format=image_format)

        assert cluster.dump() == {'images': {}, 'objects': {}}
