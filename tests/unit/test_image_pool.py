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

"""The pool is seen as it is, and what a fix takes away is what it says."""

import json
import pathlib
import typing

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.doctor import (
    check_image,
    findings,
    fix_image,
    known_backups,
    list_images,
    pool_scan,
)
from osc_backup_port.driver import ceph as ceph_driver
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import records
from tests.unit.fake_cinder import FakeCinder
from tests.unit.records import ID, OTHER_ID, THIRD_ID, VOLUME_ID

OWN = f'volume-{VOLUME_ID}.backup.{ID}'
BASE = f'volume-{VOLUME_ID}.backup.base'
SIZE = 16 * units.MIB


def point(backup_id: str, seconds: float = 1_700_000_000.5) -> str:
    return f'backup.{backup_id}.snap.{seconds}'


def make_image(cluster: fake_ceph.Cluster, name: str, *snapshots: str) -> None:
    where = cluster.pool()
    where.create(name, model.ImageLayout(SIZE))
    for number, snapshot in enumerate(snapshots):
        cluster.images[name].content.write(number * 4 * units.MIB, b'x' * 4096)
        with where.open(name, writable=True) as image:
            image.create_snapshot(snapshot)


def put_metadata(cluster: fake_ceph.Cluster, backup_id: str, **values: typing.Any) -> bytes:
    content = json.dumps({'version': 2, 'volume-base-metadata': values}).encode()
    cluster.pool().write_object(ceph_driver.metadata_object(backup_id), content)
    return content


def map_of(cluster: fake_ceph.Cluster, image: str, number: int | None = None) -> str:
    """Return the object map of an image, or of one of its snapshots."""
    stored = cluster.images[image]
    snapshot = '' if number is None else f'.{stored.snapshots[number].id:016x}'
    return f'rbd_object_map.{stored.id}{snapshot}'


def lose(cluster: fake_ceph.Cluster, name: str) -> None:
    cluster.connect().remove_object(name)


def scan(cluster: fake_ceph.Cluster, **options: bool) -> pool_scan.Scan:
    return pool_scan.scan(cluster.pool(), pool_scan.Options(**options))


def known(*ids: str) -> FakeCinder:
    fake = FakeCinder()
    for number, identity in enumerate(ids):
        item = records.make_record(
            id=identity,
            parent_id=ids[number - 1] if number else None,
            num_dependent_backups=int(number + 1 < len(ids)),
            service_metadata=json.dumps({'base': OWN}),
        )
        fake.add(item, project_id='p')
    return fake


class TestScan:
    def test_images_with_their_backups(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID), 'a snapshot of somebody', point(OTHER_ID))
        make_image(cluster, f'volume-{VOLUME_ID}')
        put_metadata(cluster, ID, id=VOLUME_ID)

        found = scan(cluster, used=True, heads=True)

        (image,) = found.images.values()
        assert (image.volume_id, image.backup_id, image.size) == (VOLUME_ID, ID, SIZE)
        assert [snapshot.backup_id for snapshot in image.snapshots] == [ID, OTHER_ID]
        assert [snapshot.used for snapshot in image.snapshots] == [4 * units.MIB, 8 * units.MIB]
        assert image.used == 12 * units.MIB
        assert image.head_differs is False
        assert found.others == (f'volume-{VOLUME_ID}',)
        assert found.metadata[ID].volume_id == VOLUME_ID
        assert set(found.metadata) == {ID}

    def test_a_head_that_was_written_to(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        cluster.images[OWN].content.write(0, b'y' * 4096)
        assert scan(cluster, heads=True).images[OWN].head_differs

    def test_what_cannot_be_measured_is_not_known(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        cluster.images[OWN].features = 1
        assert scan(cluster, used=True).images[OWN].used is None

    def test_metadata_that_cannot_be_read(self, cluster: fake_ceph.Cluster) -> None:
        for content in (b'', b'[]', b'{"volume-base-metadata": 7}', b'\xff'):
            cluster.pool().write_object(ceph_driver.metadata_object(ID), content)
            assert scan(cluster).metadata[ID].volume_id is None

    def test_without_the_list_of_objects(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        put_metadata(cluster, ID)
        put_metadata(cluster, OTHER_ID)
        asked: list[str] = []
        cluster.hook = lambda what: asked.append(what) or 0  # type: ignore[func-returns-value]
        found = scan(cluster, objects=False)
        assert set(found.metadata) == {ID}
        assert 'list_objects' not in asked

    def test_an_image_that_goes_meanwhile(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))

        def hook(what: str) -> int:
            if what == f'open {OWN}':
                cluster.images.pop(OWN, None)
            return 0

        cluster.hook = hook
        found = scan(cluster)
        assert not found.images
        assert not found.unreadable

    def test_an_import_that_runs_and_one_that_died(self, cluster: fake_ceph.Cluster) -> None:
        where = cluster.pool()
        make_image(cluster, f'{OWN}.part')
        (dead,) = scan(cluster).leftovers
        assert dead == pool_scan.Leftover(OWN, True, False, False, SIZE)
        with where.open(f'{OWN}.part', writable=True):
            (alive,) = scan(cluster).leftovers
        assert alive.is_alive
        with where.lock(OWN):
            (alive,) = scan(cluster).leftovers
        assert alive.is_alive
        assert alive.has_lock

    def test_a_snapshot_whose_object_map_is_lost(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID), point(OTHER_ID))
        lose(cluster, map_of(cluster, OWN, 1))
        (image,) = scan(cluster, used=True, heads=True).images.values()
        assert [one.has_lost_map for one in image.snapshots] == [False, True]
        assert not image.has_lost_map
        assert image.snapshots[1].used is None
        assert image.head_differs is False

    def test_an_image_whose_object_map_is_lost(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        lose(cluster, map_of(cluster, OWN))
        (image,) = scan(cluster, used=True).images.values()
        assert image.has_lost_map

    @pytest.mark.parametrize('number', [1, 5, 38, 95])
    def test_an_image_that_cannot_be_opened(self, cluster: fake_ceph.Cluster, number: int) -> None:
        make_image(cluster, OWN, point(ID))
        make_image(cluster, BASE, point(OTHER_ID))
        cluster.hook = lambda what: number if what == f'open {OWN}' else 0
        found = scan(cluster, used=True)
        assert set(found.images) == {BASE}
        assert set(found.unreadable) == {OWN}

    @pytest.mark.parametrize('part', ['header', 'id'])
    def test_an_image_of_which_a_part_is_missing(
        self, cluster: fake_ceph.Cluster, part: str
    ) -> None:
        make_image(cluster, OWN, point(ID))
        name = OWN if part == 'id' else cluster.images[OWN].id
        lose(cluster, f'rbd_{part}.{name}')
        problem = scan(cluster).unreadable[OWN]
        assert 'missing' in problem.problem
        assert problem.hint is not None
        assert f'info {OWN}' in problem.hint

    def test_a_part_of_an_import_that_cannot_be_opened(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, f'{OWN}.part')
        lose(cluster, f'rbd_header.{cluster.images[f"{OWN}.part"].id}')
        found = scan(cluster)
        assert set(found.unreadable) == {f'{OWN}.part'}
        assert not found.leftovers

    def test_snapshots_that_only_cinder_takes_for_backups(
        self, cluster: fake_ceph.Cluster
    ) -> None:
        odd = (f'backup.{ID}.snap.nan', f'backup.{OTHER_ID}.snap.1e999')
        make_image(cluster, OWN, point(ID), *odd, 'of somebody')
        (image,) = scan(cluster).images.values()
        assert [one.backup_id for one in image.snapshots] == [ID]
        assert image.odd == odd

    def test_the_trash(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        rbd.RBD().trash_move(cluster.connect(), OWN)
        found = scan(cluster)
        assert not found.images
        assert [one.name for one in found.trash] == [OWN]

    def test_the_pool_is_left_as_it_was(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        make_image(cluster, f'{OWN}.part')
        put_metadata(cluster, OTHER_ID)
        before = cluster.dump()
        scan(cluster, used=True, heads=True)
        assert cluster.dump() == before


def check(cluster: fake_ceph.Cluster, cinder: FakeCinder) -> list[findings.Finding]:
    return check_image.run(cluster.pool(), cinder, pool_scan.Options(used=True)).findings


class TestCheck:
    def test_a_backup_that_comes_or_goes_meanwhile(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID), point(OTHER_ID))
        fake = known(ID)
        # It was not in the first list; the other is not in the second one.
        calls = 0

        def change(what: str) -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                other = known(ID, OTHER_ID).rows[OTHER_ID]
                fake.rows[OTHER_ID] = other
                fake.rows[ID].deleted = True
            return 0

        cluster.hook = change
        codes = {one.code for one in check(cluster, fake)}
        assert codes <= {'size-mismatch'}

    def test_not_an_admin(self, cluster: fake_ceph.Cluster) -> None:
        fake = known(ID)
        fake.refuse['check_admin'] = errors.NotPermitted('no')
        with pytest.raises(errors.NotPermitted):
            check(cluster, fake)
        fake = FakeCinder(records.make_record())
        with pytest.raises(errors.NotPermitted, match='this project'):
            check(cluster, fake)

    def test_no_service_to_export(self, cluster: fake_ceph.Cluster) -> None:
        fake = known(ID)
        fake.refuse['export_record'] = errors.CinderError('no service')
        with pytest.raises(errors.CinderError, match='no service'):
            check(cluster, fake)

    def test_the_pool_comes_from_the_backups(self) -> None:
        listed = list(known(ID).list())
        assert known_backups.pool_of(listed) == 'backups'
        with pytest.raises(errors.InvalidInput, match='Which pool'):
            known_backups.pool_of([])


class TestFixWithLoss:
    """The metadata of backups is left alone wherever their data may be."""

    def fix(self, cluster: fake_ceph.Cluster) -> list[findings.Finding]:
        return fix_image.plan(check(cluster, FakeCinder()), 'orphan-metadata')

    def test_the_object_map_is_lost(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID), point(OTHER_ID))
        put_metadata(cluster, OTHER_ID, id=VOLUME_ID)
        lose(cluster, map_of(cluster, OWN, 1))
        assert self.fix(cluster) == []

    def test_the_image_cannot_be_read(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID), point(OTHER_ID))
        put_metadata(cluster, OTHER_ID, id=VOLUME_ID)
        put_metadata(cluster, THIRD_ID)
        lose(cluster, f'rbd_header.{cluster.images[OWN].id}')
        with pytest.raises(errors.Conflict, match=f'{OWN} could not be read'):
            self.fix(cluster)

    @pytest.mark.parametrize('values', [{'id': VOLUME_ID}, {}])
    def test_the_image_is_in_the_trash(
        self, cluster: fake_ceph.Cluster, values: dict[str, str]
    ) -> None:
        make_image(cluster, OWN, point(ID), point(OTHER_ID))
        put_metadata(cluster, OTHER_ID, **values)
        rbd.RBD().trash_move(cluster.connect(), OWN)
        assert self.fix(cluster) == []

    @pytest.mark.parametrize('values', [{'id': VOLUME_ID}, {}])
    def test_the_image_was_set_aside(
        self, cluster: fake_ceph.Cluster, values: dict[str, str]
    ) -> None:
        make_image(cluster, f'{OWN}.aside', point(ID), point(OTHER_ID))
        put_metadata(cluster, OTHER_ID, **values)
        assert self.fix(cluster) == []

    def test_the_snapshot_has_an_odd_name(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID), f'backup.{OTHER_ID}.snap.nan')
        put_metadata(cluster, OTHER_ID, id=VOLUME_ID)
        assert self.fix(cluster) == []


class TestFix:
    def test_metadata_is_kept_as_a_file(
        self, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
    ) -> None:
        content = put_metadata(cluster, OTHER_ID, id=VOLUME_ID)
        found = fix_image.plan(check(cluster, FakeCinder()), 'orphan-metadata')
        (told,) = [fix_image.run(cluster.pool(), FakeCinder(), one, tmp_path) for one in found]
        name = ceph_driver.metadata_object(OTHER_ID)
        command = cluster.pool().commands.rados('put', name, str(tmp_path / name))
        assert told == f'{name}: removed; back with: {command}'
        assert (tmp_path / name).read_bytes() == content
        assert name not in cluster.objects

    def test_metadata_that_is_needed_by_now(
        self, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
    ) -> None:
        put_metadata(cluster, ID, id=VOLUME_ID)
        (one,) = check(cluster, FakeCinder())
        with pytest.raises(errors.Conflict, match='by now'):
            fix_image.run(cluster.pool(), known(ID), one, tmp_path)
        assert ceph_driver.metadata_object(ID) in cluster.objects

    def test_a_file_is_not_replaced(
        self, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
    ) -> None:
        put_metadata(cluster, ID, id=VOLUME_ID)
        (one,) = check(cluster, FakeCinder())
        (tmp_path / ceph_driver.metadata_object(ID)).write_text('other')
        with pytest.raises(errors.Conflict, match='is there already'):
            fix_image.run(cluster.pool(), FakeCinder(), one, tmp_path)
        assert ceph_driver.metadata_object(ID) in cluster.objects

    def test_a_dead_import(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, f'{OWN}.part')
        (one,) = check(cluster, FakeCinder())
        told = fix_image.run(cluster.pool(), FakeCinder(), one, None)
        assert f'{OWN}.part' in told
        assert cluster.dump() == {'images': {}, 'objects': {}}

    def test_a_dead_import_into_a_chain(self, cluster: fake_ceph.Cluster) -> None:
        make_image(cluster, OWN, point(ID))
        cluster.images[OWN].content.write(0, b'y' * 4096)
        lock = ceph_driver.lock_object(OWN)
        cluster.objects[lock] = b''
        cluster.changed[lock] = 0
        (one,) = fix_image.plan(check(cluster, known(ID)), 'partial-import')
        told = fix_image.run(cluster.pool(), FakeCinder(), one, None)
        assert f'snap rollback {OWN}@{point(ID)}' in told
        assert lock not in cluster.objects

    def test_an_import_that_runs_after_all(
        self, cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_image(cluster, f'{OWN}.part')
        (one,) = check(cluster, FakeCinder())
        monkeypatch.setattr('osc_backup_port.ceph.lease._PATIENCE', 0.1)
        with (
            cluster.pool().lock(OWN),
            pytest.raises(errors.Conflict, match='another'),
        ):
            fix_image.run(cluster.pool(), FakeCinder(), one, None)
        assert f'{OWN}.part' in cluster.images

    def test_nothing_else(self) -> None:
        for code in set(findings.CODES) - set(findings.FIXABLE):
            with pytest.raises(errors.InvalidInput, match='there is no fix'):
                fix_image.plan([], code)


def test_a_list_with_what_cannot_be_read(cluster: fake_ceph.Cluster) -> None:
    make_image(cluster, OWN, point(ID), point(OTHER_ID))
    make_image(cluster, BASE, f'backup.{THIRD_ID}.snap.nan')
    lose(cluster, f'rbd_header.{cluster.images[OWN].id}')
    listing = list_images.run(cluster.pool(), known(ID).list(), with_used=True)
    assert [(row.image, row.snapshot, row.backup_id, row.size) for row in listing.rows] == [
        (BASE, f'backup.{THIRD_ID}.snap.nan', None, SIZE),
        (OWN, None, ID, None),
    ]
    assert len(listing.problems) == 1
    assert '(cannot be read)' in '\n'.join(list_images.tree(listing.rows))
    foreign = list_images.run(cluster.pool(), [], False, volume_id=ID)
    assert (foreign.rows, foreign.problems) == ([], [])


def test_a_list_with_a_lost_object_map(cluster: fake_ceph.Cluster) -> None:
    make_image(cluster, OWN, point(ID), point(OTHER_ID))
    lose(cluster, map_of(cluster, OWN, 1))
    listing = list_images.run(cluster.pool(), known(ID).list(), with_used=True)
    assert [(row.backup_id, row.used) for row in listing.rows] == [
        (ID, 4 * units.MIB),
        (OTHER_ID, None),
    ]
    assert not listing.problems


def test_list(cluster: fake_ceph.Cluster) -> None:
    make_image(cluster, OWN, point(ID), point(OTHER_ID))
    put_metadata(cluster, ID)
    rows = list_images.run(cluster.pool(), known(ID).list(), with_used=True).rows
    assert [(row.backup_id, row.status, row.has_metadata) for row in rows] == [
        (ID, 'available', True),
        (OTHER_ID, 'unknown', False),
    ]
    when = '2023-11-14T22:13:20'
    assert list_images.tree(rows) == [
        f'volume {VOLUME_ID}  2 backups, 8.0 MiB',
        f'└── {OWN}',
        f'    ├── {ID}  {when}    16.0 MiB      4.0 MiB  available   nightly',
        f'    └── {OTHER_ID}  {when}    16.0 MiB  +   4.0 MiB  unknown     (no volume metadata)',
        '2 backups of 1 volume, 8.0 MiB',
    ]
