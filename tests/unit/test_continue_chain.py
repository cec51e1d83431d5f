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

"""What it takes to continue an imported chain on a restored volume."""

import collections.abc
import dataclasses

import pytest

from osc_backup_port import errors, progress
from osc_backup_port.cinder import resources
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import continue_chain
from tests.fakes import ceph as fake_ceph
from tests.unit import chains
from tests.unit.fake_cinder import FakeCinder

VOLUME = chains.VOLUME
IMAGE = f'volume-{VOLUME}'
NEWEST = chains.IDS[2]


class Cloud:
    """A chain of three, and the volume that its newest was restored into."""

    def __init__(self) -> None:
        self.backups = fake_ceph.Cluster()
        self.volumes = fake_ceph.Cluster()
        self.chain = chains.make_chain(self.backups)
        self.cinder = FakeCinder(*self.chain.backups)
        self.cinder.volumes[VOLUME] = resources.Volume(VOLUME, 'v', 1, 'available')
        with chains.make_image(self.volumes, IMAGE):
            content = self.volumes.images[IMAGE].content
            for block, data in self.chain.contents[2].items():
                content.write(block * fake_ceph.BLOCK, data)

    def go_on(self, backup_id: str = NEWEST) -> continue_chain.Result:
        pools = continue_chain.Pools(self.backups.pool(), self.volumes.pool())
        return continue_chain.run(self.cinder, pools, backup_id, progress.Silent())

    def snapshots(self) -> list[str]:
        with self.volumes.pool().open(IMAGE) as image:
            return [snapshot.name for snapshot in image.snapshots()]


@pytest.fixture
def cloud() -> collections.abc.Iterator[Cloud]:
    made = Cloud()
    yield made
    made.backups.close()
    made.volumes.close()


def test_the_snapshot_that_cinder_starts_from(cloud: Cloud) -> None:
    before = cloud.backups.dump()
    result = cloud.go_on()
    assert result.state == continue_chain.MADE
    assert cloud.snapshots() == [result.snapshot] == [chains.snapshot(2)]
    assert cloud.go_on().state == continue_chain.ALREADY_THERE
    assert cloud.backups.dump() == before


def test_a_run_that_was_killed_while_it_compared(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cinder would take what is not proven for the backup, and diff from there."""
    seen = []

    def compare(*_arguments: object) -> None:
        seen.extend(cloud.snapshots())

    with monkeypatch.context() as patch:
        patch.setattr('osc_backup_port.ceph.compare_images.compare', compare)
        cloud.go_on()
    assert len(seen) == 1
    assert ceph_driver.backup_of_snapshot(seen[0]) is None
    assert ceph_driver.backup_of_odd_snapshot(seen[0]) is None
    with cloud.volumes.pool().open(IMAGE, writable=True) as image:
        image.rename_snapshot(chains.snapshot(2), seen[0])
    assert cloud.go_on().state == continue_chain.MADE
    assert cloud.snapshots() == [chains.snapshot(2)]


def test_a_volume_that_was_written_to(cloud: Cloud) -> None:
    cloud.volumes.images[IMAGE].content.write(12345, b'new')
    with pytest.raises(errors.Conflict, match='is not as backup'):
        cloud.go_on()
    assert cloud.snapshots() == []


def test_a_volume_of_another_size(cloud: Cloud) -> None:
    with cloud.volumes.pool().open(IMAGE, writable=True) as image:
        image.resize(2 * chains.SIZE)
    with pytest.raises(errors.Conflict, match='is not as backup'):
        cloud.go_on()
    assert cloud.snapshots() == []


def test_not_the_newest(cloud: Cloud) -> None:
    with pytest.raises(errors.Conflict, match=f'that is {NEWEST}') as caught:
        cloud.go_on(chains.IDS[1])
    assert 'is not the newest' in str(caught.value)


def test_an_image_that_has_drifted(cloud: Cloud) -> None:
    cloud.backups.images[chains.BASE].content.write(0, b'of a backup that was deleted')
    with pytest.raises(errors.Conflict, match=r'rbd .*-p backups snap rollback'):
        cloud.go_on()
    assert cloud.snapshots() == []


def test_an_image_without_object_map_that_has_drifted(cloud: Cloud) -> None:
    cloud.backups.images[chains.BASE].features = 1
    cloud.backups.images[chains.BASE].content.write(0, b'of a backup that was deleted')
    with pytest.raises(errors.Conflict, match=r'rbd .*-p backups snap rollback'):
        cloud.go_on()
    assert cloud.snapshots() == []


def test_backups_that_were_imported_out_of_order(cloud: Cloud) -> None:
    """The snapshot that was made last is not that of the newest backup."""
    cloud.backups.images.clear()
    with chains.make_image(cloud.backups) as image:
        content = cloud.backups.images[chains.BASE].content
        for number in (2, 1):
            for block, data in cloud.chain.contents[number].items():
                content.write(block * fake_ceph.BLOCK, data)
            image.create_snap(chains.snapshot(number))
        image.rollback_to_snap(chains.snapshot(2))
    with pytest.raises(errors.Conflict, match=f'that is {NEWEST}'):
        cloud.go_on(chains.IDS[1])
    assert cloud.go_on().snapshot == chains.snapshot(2)


def test_an_image_that_an_import_writes_to(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('osc_backup_port.ceph.lease._PATIENCE', 0.1)
    with (
        cloud.backups.pool().lock(chains.BASE),
        pytest.raises(errors.Conflict, match='another'),
    ):
        cloud.go_on()
    assert cloud.snapshots() == []


def test_an_image_that_a_backup_is_written_to(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('osc_backup_port.moving.chain_writer.WATCH_TIMEOUT', 0)
    with (
        cloud.backups.pool().open(chains.BASE, writable=True),
        pytest.raises(errors.Conflict, match='is being written'),
    ):
        cloud.go_on()
    assert cloud.snapshots() == []


def test_a_volume_in_use(cloud: Cloud) -> None:
    there = cloud.cinder.volumes[VOLUME]
    cloud.cinder.volumes[VOLUME] = dataclasses.replace(there, status='in-use')
    with pytest.raises(errors.Conflict, match='is in-use, expected available'):
        cloud.go_on()


def test_a_volume_that_is_not_there(cloud: Cloud) -> None:
    del cloud.cinder.volumes[VOLUME]
    with pytest.raises(errors.NotFound):
        cloud.go_on()
