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

"""Which image and which snapshot belong to a backup, for every release that made one."""

from typing import Any

import pytest

from osc_backup_port import errors, record
from osc_backup_port.ceph import locating
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit.records import make_record

V = '5172626d-c23c-4563-8493-f34e86758634'
B = '46944373-9ffe-4730-a3f6-8136fd3f9035'
B0 = '34fbd72a-6516-43e4-b1cb-27017bb9cfb2'
OTHER = '8d49b720-e2ee-41c6-b9c8-a7e292e02962'
LEGACY, OWN, FIRST = (f'volume-{V}.backup.{name}' for name in ('base', B, B0))


def backup(backup_id: str = B, **changes: Any) -> record.BackupRecord:
    return make_record(
        **{'id': backup_id, 'volume_id': V, 'service_metadata': None, 'parent_id': None, **changes}
    )


def based_on(name: str) -> str:
    return f'{{"base": "{name}"}}'


def snap(backup_id: str, seconds: str = '1763600000.12') -> str:
    return f'backup.{backup_id}.snap.{seconds}'


def put(cluster: fake_ceph.Cluster, name: str, *snapshots: str) -> None:
    ioctx = cluster.connect()
    rbd.RBD().create(ioctx, name, 4096)
    with rbd.Image(ioctx, name) as image:
        for snapshot in snapshots:
            image.create_snap(snapshot)


def locate(
    cluster: fake_ceph.Cluster,
    wanted: record.BackupRecord,
    parent: record.BackupRecord | None = None,
) -> tuple[str, str | None]:
    found = locating.locate(cluster.pool(), wanted, parent)
    return found.image, found.snapshot.name if found.snapshot else None


def test_pike_to_stein_from_an_rbd_volume(cluster: fake_ceph.Cluster) -> None:
    put(cluster, LEGACY, snap(B0, '1.0'), snap(B, '2.0'))

    assert locate(cluster, backup(B, parent_id=B0), backup(B0)) == (LEGACY, snap(B, '2.0'))
    assert locate(cluster, backup(B0)) == (LEGACY, snap(B0, '1.0'))


def test_pike_to_stein_from_another_volume_or_after_a_failed_diff(
    cluster: fake_ceph.Cluster,
) -> None:
    put(cluster, OWN)

    assert locate(cluster, backup()) == (OWN, None)


def test_a_time_that_is_none(cluster: fake_ceph.Cluster) -> None:
    """Cinder takes such a snapshot for a backup, so the image is not without any."""
    put(cluster, OWN, snap(OTHER, 'nan'))
    with pytest.raises(errors.NotFound, match=r'found .* with .*snap\.nan'):
        locate(cluster, backup())
    put(cluster, LEGACY, snap(B, 'nan'))
    with pytest.raises(errors.NotFound, match=f'snap rename {LEGACY}@{snap(B, "nan")} '):
        locate(cluster, backup())


def test_since_13_0_9_a_full_backup(cluster: fake_ceph.Cluster) -> None:
    put(cluster, OWN, snap(B))

    assert locate(cluster, backup(service_metadata=based_on(OWN))) == (OWN, snap(B))


def test_since_13_0_9_an_incremental_backup(cluster: fake_ceph.Cluster) -> None:
    put(cluster, FIRST, snap(B0, '1.0'), snap(B, '2.0'))
    wanted = backup(parent_id=B0, service_metadata=based_on(FIRST))

    assert locate(cluster, wanted) == (FIRST, snap(B, '2.0'))


@pytest.mark.parametrize('parent_id', [None, B0])
@pytest.mark.parametrize('name', [LEGACY, OWN], ids=['since 17.3.0', 'before'])
def test_from_a_cinder_snapshot(
    cluster: fake_ceph.Cluster, name: str, parent_id: str | None
) -> None:
    put(cluster, name)
    wanted = backup(snapshot_id=OTHER, parent_id=parent_id)

    assert locate(cluster, wanted, backup(B0) if parent_id else None) == (name, None)


def test_from_a_volume_that_is_not_in_ceph(cluster: fake_ceph.Cluster) -> None:
    put(cluster, OWN)

    assert locate(cluster, backup()) == (OWN, None)


def test_the_parent_names_the_image_where_the_record_does_not(
    cluster: fake_ceph.Cluster,
) -> None:
    put(cluster, FIRST, snap(B0, '1.0'), snap(B, '2.0'))
    parent = backup(B0, service_metadata=based_on(FIRST))

    assert locate(cluster, backup(parent_id=B0), parent) == (FIRST, snap(B, '2.0'))


def test_a_snapshot_decides_where_an_image_without_one_is_there_too(
    cluster: fake_ceph.Cluster,
) -> None:
    put(cluster, OWN)
    put(cluster, LEGACY, snap(B))

    assert locate(cluster, backup()) == (LEGACY, snap(B))


def test_an_image_under_the_old_name_after_a_manual_import(cluster: fake_ceph.Cluster) -> None:
    """The record names an image that is not there; the snapshot proves where it is."""
    put(cluster, LEGACY, snap(B))

    assert locate(cluster, backup(service_metadata=based_on(OWN))) == (LEGACY, snap(B))


class TestRefused:
    @pytest.mark.parametrize(
        'changes',
        [
            {'service_metadata': based_on(OWN)},
            {'service_metadata': based_on(LEGACY)},
            {'parent_id': B0},
        ],
        ids=str,
    )
    @pytest.mark.parametrize('name', [OWN, LEGACY])
    def test_a_head_that_may_be_another_backup(
        self, cluster: fake_ceph.Cluster, changes: dict[str, Any], name: str
    ) -> None:
        put(cluster, name)

        with pytest.raises(errors.NotFound, match='no snapshot backup') as caught:
            locate(cluster, backup(**changes))

        assert f'{name} with no snapshot' in str(caught.value)

    def test_the_shared_image_for_a_backup_of_a_volume(self, cluster: fake_ceph.Cluster) -> None:
        put(cluster, LEGACY)

        with pytest.raises(errors.NotFound, match='no snapshot backup'):
            locate(cluster, backup())

    @pytest.mark.parametrize('name', [OWN, LEGACY])
    def test_the_head_of_a_chain_of_others(self, cluster: fake_ceph.Cluster, name: str) -> None:
        put(cluster, name, snap(OTHER))

        with pytest.raises(errors.NotFound) as caught:
            locate(cluster, backup(snapshot_id=OTHER))

        assert f'{name} with {snap(OTHER)}' in str(caught.value)

    def test_two_images_with_the_snapshot(self, cluster: fake_ceph.Cluster) -> None:
        put(cluster, OWN, snap(B))
        put(cluster, LEGACY, snap(B))

        with pytest.raises(errors.Conflict, match='more than one place') as caught:
            locate(cluster, backup(service_metadata=based_on(OWN)))

        assert f'{OWN}@{snap(B)}, {LEGACY}@{snap(B)}' in str(caught.value)

    def test_two_snapshots_on_one_image(self, cluster: fake_ceph.Cluster) -> None:
        put(cluster, OWN, snap(B, '1.0'), snap(B, '2.0'))

        with pytest.raises(errors.Conflict, match='more than one place'):
            locate(cluster, backup(service_metadata=based_on(OWN)))

    def test_two_images_without_snapshots(self, cluster: fake_ceph.Cluster) -> None:
        put(cluster, OWN)
        put(cluster, LEGACY)

        with pytest.raises(errors.Conflict, match=f'{OWN}, {LEGACY}'):
            locate(cluster, backup(snapshot_id=OTHER))

    def test_nothing_there(self, cluster: fake_ceph.Cluster) -> None:
        put(cluster, f'volume-{OTHER}.backup.{B0}', snap(B))
        put(cluster, f'{FIRST}.part', snap(B))

        with pytest.raises(errors.NotFound, match='its image is not in pool backups') as caught:
            locate(cluster, backup())

        assert OWN in str(caught.value)
        assert LEGACY in str(caught.value)

    def test_the_cluster_is_lost(self, cluster: fake_ceph.Cluster) -> None:
        put(cluster, OWN, snap(B))
        cluster.hook = lambda what: 5

        with pytest.raises(errors.CephError):
            locate(cluster, backup())


def test_a_chain_that_does_not_lie_where_its_records_say(cluster: fake_ceph.Cluster) -> None:
    """Moved by hand: the records name the legacy image, the chain has that of its first backup."""
    put(cluster, FIRST, snap(B0, '1.0'), snap(B, '2.0'))
    first = backup(B0, service_metadata=based_on(LEGACY))

    wanted = backup(B, parent_id=B0, service_metadata=based_on(LEGACY))
    assert locate(cluster, wanted, first) == (FIRST, snap(B, '2.0'))
    assert locate(cluster, first) == (FIRST, snap(B0, '1.0'))


def test_snapshots_that_somebody_took_by_hand_do_not_count(cluster: fake_ceph.Cluster) -> None:
    put(cluster, OWN, 'before-the-upgrade', f'backup.{B}', f'x.backup.{B}.snap.1')

    assert locate(cluster, backup()) == (OWN, None)
