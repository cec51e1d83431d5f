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

"""Records made of what lies in a pool, and nothing else."""

import dataclasses
import json
import pathlib
import typing

import pytest

from osc_backup_port import errors, units
from osc_backup_port.cinder import resources
from osc_backup_port.doctor import check_image, known_backups, rebuild_metadata
from osc_backup_port.doctor.pool_scan import Image, Scan, Snapshot, VolumeMetadata
from osc_backup_port.doctor.rebuild_records import Rebuilt, Skipped, rebuild
from osc_backup_port.formats import record_file
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import test_image_pool
from tests.unit.records import ID, OTHER_ID, THIRD_ID, VOLUME_ID

OWN = f'volume-{VOLUME_ID}.backup.{ID}'
BASE = f'volume-{VOLUME_ID}.backup.base'
OTHER_VOLUME = 'c0ffee00-0000-4000-8000-000000000000'


def image(name: str, *points: tuple[str, float], size: int = 2 * units.GIB) -> Image:
    last = name.rpartition('.')[2]
    snapshots = tuple(
        Snapshot(number, f'backup.{backup}.snap.{seconds}', backup, size)
        for number, (backup, seconds) in enumerate(points)
    )
    return Image(name, VOLUME_ID, None if last == 'base' else last, size, snapshots)


def made(scan: Scan, volume_id: str | None = None) -> list[dict[str, typing.Any]]:
    found = rebuild(scan, volume_id)
    assert all(isinstance(item, Rebuilt) for item in found)
    return [dict(item.record.fields) for item in found if isinstance(item, Rebuilt)]


def scan(*images: Image) -> Scan:
    return Scan('backups', {item.name: item for item in images})


CHAIN = ((ID, 1_700_000_000.25), (OTHER_ID, 1_700_086_400.5), (THIRD_ID, 1_700_172_800.0))


@pytest.mark.parametrize('name', [OWN, BASE])
def test_a_chain(name: str) -> None:
    fields = made(scan(image(name, *CHAIN)))
    assert [item['id'] for item in fields] == [ID, OTHER_ID, THIRD_ID]
    assert [item['parent_id'] for item in fields] == [None, ID, OTHER_ID]
    assert [item['num_dependent_backups'] for item in fields] == [1, 1, 0]
    for item in fields:
        assert json.loads(item['service_metadata']) == {'base': name}
        assert item['container'] == 'backups'
        assert item['size'] == 2
        assert item['volume_id'] == VOLUME_ID
        assert item['display_name'] is None
        assert item['data_timestamp'] == item['created_at']
    assert fields[0]['created_at'] == '2023-11-14T22:13:20Z'


def test_what_the_metadata_tells() -> None:
    about = VolumeMetadata(
        {'project_id': 'p', 'user_id': 'u', 'display_name': 'db', 'encryption_key_id': THIRD_ID}
    )
    pool = Scan('backups', {OWN: image(OWN, CHAIN[0])}, {ID: about})
    (item,) = rebuild(pool)
    assert isinstance(item, Rebuilt)
    assert item.record.fields['project_id'] == 'p'
    assert item.record.fields['user_id'] == 'u'
    assert item.record.fields['display_description'].endswith('; volume db')
    # Cinder destroys the key in a record with the backup, and this one is the volume's.
    assert item.record.encryption_key_id is None
    assert any(THIRD_ID in note for note in item.notes)


def test_without_metadata_it_says_what_is_not_known() -> None:
    (item,) = rebuild(scan(image(OWN, CHAIN[0])))
    assert isinstance(item, Rebuilt)
    assert 'the name of the backup is not known' in item.notes
    assert any('no volume metadata' in note for note in item.notes)


def test_the_order_of_an_import_that_brought_the_newest_first() -> None:
    fields = made(scan(image(OWN, CHAIN[2], CHAIN[0], CHAIN[1])))
    assert [item['id'] for item in fields] == [ID, OTHER_ID, THIRD_ID]


def test_the_order_is_that_of_the_snapshots_whatever_the_clock_said() -> None:
    fields = made(scan(image(OWN, (ID, 1_700_000_000.0), (OTHER_ID, 1_600_000_000.0))))
    assert [item['id'] for item in fields] == [ID, OTHER_ID]


def test_an_image_that_is_one_backup() -> None:
    about = VolumeMetadata({'updated_at': '2026-11-21T01:26:13.000000'})
    (fields,) = made(Scan('backups', {OWN: image(OWN)}, {ID: about}))
    assert fields['id'] == ID
    assert fields['service_metadata'] is None
    assert fields['created_at'] == '2026-11-21T01:26:13Z'


def test_a_shared_image_whose_metadata_tells_the_backup() -> None:
    about = VolumeMetadata({'id': VOLUME_ID, 'project_id': 'p'})
    (item,) = rebuild(Scan('backups', {BASE: image(BASE)}, {OTHER_ID: about}))
    assert isinstance(item, Rebuilt)
    assert item.record.id == OTHER_ID
    assert item.record.base_image == BASE
    assert item.record.fields['project_id'] == 'p'


def test_a_shared_image_of_which_nothing_tells_the_backup() -> None:
    about = VolumeMetadata({'id': VOLUME_ID})
    pool = Scan('backups', {BASE: image(BASE)}, {OTHER_ID: about, THIRD_ID: about})
    first, again = rebuild(pool)[0], rebuild(pool)[0]
    assert isinstance(first, Rebuilt)
    assert isinstance(again, Rebuilt)
    assert first.record.id == again.record.id
    assert first.record.id not in (OTHER_ID, THIRD_ID)
    assert any(OTHER_ID in note and THIRD_ID in note for note in first.notes)


def test_two_snapshots_of_one_backup_are_left_out() -> None:
    found = rebuild(scan(image(OWN, CHAIN[0], CHAIN[0], CHAIN[1])))
    assert [type(item) for item in found] == [Skipped, Skipped, Rebuilt]
    assert isinstance(found[2], Rebuilt)
    assert found[2].record.parent_id is None


def test_a_size_that_is_no_whole_number_of_gib() -> None:
    (item,) = rebuild(scan(image(OWN, CHAIN[0], size=units.GIB + 1)))
    assert isinstance(item, Rebuilt)
    assert item.record.size == 2
    assert not any('GiB' in note for note in item.notes)


def test_one_volume() -> None:
    pool = scan(image(OWN, *CHAIN))
    assert len(made(pool, VOLUME_ID)) == 3
    assert made(pool, OTHER_VOLUME) == []


def test_the_doctor_has_nothing_against_them() -> None:
    about = {item: VolumeMetadata({'id': VOLUME_ID}) for item in (ID, OTHER_ID, THIRD_ID)}
    for name in (OWN, BASE):
        pool = Scan('backups', {name: image(name, *CHAIN)}, about)
        known = [
            known_backups.Known(
                resources.Backup(item.record.id, 'available', VOLUME_ID),
                item.record,
                is_settled=True,
            )
            for item in rebuild(pool)
            if isinstance(item, Rebuilt)
        ]
        assert check_image.judge(known, pool) == []


class TestFiles:
    def test_written_once(self, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path) -> None:
        test_image_pool.make_image(cluster, OWN, test_image_pool.point(ID))
        pool = cluster.pool()
        before = cluster.dump()
        (result,) = rebuild_metadata.run(pool, None, None)
        assert (result.result, result.file) == ('found', None)
        (result,) = rebuild_metadata.run(pool, None, tmp_path / 'new')
        assert result.result == 'written'
        assert result.file
        assert result.file.stat().st_mode & 0o777 == 0o600
        (read,) = record_file.read_records(result.file.read_bytes(), 'file')
        assert read.id == ID
        (result,) = rebuild_metadata.run(pool, VOLUME_ID, tmp_path / 'new')
        assert result.result == 'unchanged'
        assert cluster.dump() == before

    def test_never_over_another_one(
        self, cluster: fake_ceph.Cluster, tmp_path: pathlib.Path
    ) -> None:
        test_image_pool.make_image(cluster, OWN, test_image_pool.point(ID))
        path = tmp_path / f'{ID}.json'
        path.write_text('of Cinder')
        (result,) = rebuild_metadata.run(cluster.pool(), None, tmp_path)
        assert result.is_failure
        assert isinstance(result.error, errors.Conflict)
        assert path.read_text() == 'of Cinder'

    def test_nothing_there(self, cluster: fake_ceph.Cluster) -> None:
        with pytest.raises(errors.NotFound, match='no backup of volume'):
            rebuild_metadata.run(cluster.pool(), VOLUME_ID, None)


def test_what_cannot_be_read_or_has_an_odd_name_is_not_left_out() -> None:
    odd = f'backup.{OTHER_ID}.snap.nan'
    base = dataclasses.replace(image(BASE), odd=(odd,))
    problem = errors.CephError('It is broken.', 'Look at it.')
    pool = Scan('backups', {BASE: base}, unreadable={OWN: problem})
    first, second = rebuild(pool)
    assert isinstance(first, Skipped)
    assert (first.backup_id, first.image) == (OTHER_ID, BASE)
    assert 'snap rename' in first.reason
    assert second == Skipped(ID, VOLUME_ID, OWN, 'It is broken. Look at it.')
    assert rebuild(pool, OTHER_VOLUME) == []


def test_nothing_there_but_in_the_trash(cluster: fake_ceph.Cluster) -> None:
    test_image_pool.make_image(cluster, OWN, test_image_pool.point(ID))
    rbd.RBD().trash_move(cluster.connect(), OWN)
    with pytest.raises(errors.NotFound, match=f'In its trash: {OWN}') as caught:
        rebuild_metadata.run(cluster.pool(), VOLUME_ID, None)
    assert 'trash restore' in str(caught.value)
