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

"""Which snapshots are backups, and which of them is the newest."""

import pytest

from osc_backup_port import model
from osc_backup_port.driver import ceph as ceph_driver
from tests.unit.records import ID, OTHER_ID, THIRD_ID, make_record

NONSENSE = [
    'nan',
    'inf',
    '-inf',
    'Infinity',
    '-1.0',
    '+1.0',
    '1e999',
    '1e9',
    '1_000',
    ' 1.0',
    '1.0 ',
    '1.0\n',
    '1.',
    '.5',
    '1.0.0',
    '0x10',
    '\u0661\u0662\u0663',
    '\uff11',
    '9' * 12,
    '9' * 400,
    'base',
    '',
]


@pytest.mark.parametrize('seconds', NONSENSE)
def test_a_time_that_is_none_makes_no_backup(seconds: str) -> None:
    name = f'backup.{ID}.snap.{seconds}'
    assert ceph_driver.backup_of_snapshot(name) is None
    with pytest.raises(ValueError, match='is not the snapshot of a backup'):
        ceph_driver.time_of_snapshot(name)


@pytest.mark.parametrize(
    'name',
    [
        None,
        '',
        f'backup.{ID}.snap',
        f'backup.{ID.upper()}.snap.1.0',
        f'backup.{ID[:-1]}.snap.1.0',
        'backup.x.snap.1.0',
        f'xbackup.{ID}.snap.1.0',
        f'backup.{ID}.snap.1.0x',
        f'\nbackup.{ID}.snap.1.0',
    ],
)
def test_another_name_is_no_backup(name: str | None) -> None:
    assert ceph_driver.backup_of_snapshot(name) is None


@pytest.mark.parametrize(
    ('seconds', 'expected'),
    [('1763600000.12', 1763600000.12), ('1763600000', 1763600000.0), ('0.0', 0.0)],
)
def test_the_time_of_a_backup(seconds: str, expected: float) -> None:
    name = f'backup.{ID}.snap.{seconds}'
    assert ceph_driver.backup_of_snapshot(name) == ID
    assert ceph_driver.time_of_snapshot(name) == expected
    assert ceph_driver.backup_of_odd_snapshot(name) is None


def test_what_cinder_takes_for_a_backup() -> None:
    """Its pattern asks for less than what it writes itself."""
    assert ceph_driver.backup_of_odd_snapshot(f'backup.{ID}.snap.nan') == ID
    assert ceph_driver.backup_of_odd_snapshot('backup.x.snap.1.0') == 'x'
    assert ceph_driver.backup_of_odd_snapshot('of somebody') is None


@pytest.mark.parametrize('created_at', [None, '1900-01-01T00:00:00Z', '9999-01-01T00:00:00Z'])
def test_a_new_snapshot_is_always_one_of_a_backup(created_at: str | None) -> None:
    name = ceph_driver.new_snapshot(make_record(created_at=created_at))
    assert ceph_driver.backup_of_snapshot(name) == ID


def snapshots(*points: tuple[str, str]) -> list[model.Snapshot]:
    return [
        model.Snapshot(number, f'backup.{backup}.snap.{seconds}', 1)
        for number, (backup, seconds) in enumerate(points, 4)
    ]


def test_the_newest_is_the_youngest_backup_whatever_came_last() -> None:
    found = snapshots((THIRD_ID, '3.0'), (ID, '1.0'), (OTHER_ID, '20'), (OTHER_ID, 'nan'))
    newest = ceph_driver.newest(found)
    assert newest is not None
    assert ceph_driver.backup_of_snapshot(newest.name) == OTHER_ID
    assert [one.id for one in ceph_driver.by_age(found)] == [5, 4, 6]


def test_of_two_at_the_same_time_the_later_one_is_the_newest() -> None:
    found = snapshots((ID, '1.5'), (OTHER_ID, '1.50'))
    assert ceph_driver.newest(found) == found[1]
    assert ceph_driver.newest(reversed(found)) == found[1]


def test_no_backup_no_newest() -> None:
    assert ceph_driver.newest([]) is None
    assert ceph_driver.newest(snapshots((ID, 'nan'))) is None
