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


"""The errors of a cluster tell their cause, and the first of them wins."""

import errno

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.ceph import pool
from osc_backup_port.transfer import writing
from tests.fakes import ceph as fake_ceph

NAME = 'volume-1.backup.base'


def failing(cluster: fake_ceph.Cluster, number: int) -> str:
    """Return the error of a write that fails with an errno."""
    where = cluster.pool()
    where.create(NAME, model.ImageLayout(units.MIB))
    cluster.hook = lambda what: number if what.startswith('aio_write') else 0
    with (
        pytest.raises(errors.CephError) as raised,
        where.open(NAME, writable=True) as image,
    ):
        writing.write_items(image, [model.Data(0, b'x')])
    return str(raised.value)


def pools(flags: str) -> list[dict[str, object]]:
    quota = {'quota_max_bytes': 150 * units.MIB, 'quota_max_objects': 0}
    return [{'pool_name': 'backups', 'flags_names': f'hashpspool,{flags}', **quota}]


@pytest.mark.parametrize('number', [errno.EDQUOT, errno.ENOSPC])
def test_a_quota(cluster: fake_ceph.Cluster, number: int) -> None:
    cluster.monitors['osd dump'] = {'pools': pools('full,full_quota')}

    error = failing(cluster, number)

    assert f'Image {NAME}: the write of 1 bytes at offset 0 failed' in error
    assert 'pool backups has reached its quota (150.0 MiB)' in error


def test_a_full_pool(cluster: fake_ceph.Cluster) -> None:
    cluster.monitors['osd dump'] = {'pools': pools('full')}

    assert 'pool backups is full' in failing(cluster, errno.ENOSPC)


def test_no_answer_is_told_with_what_health_says(cluster: fake_ceph.Cluster) -> None:
    """And what is asked afterwards has less time."""
    down = {'summary': {'message': '1 osds down'}, 'detail': [{'message': 'osd.0 is down'}]}
    other = {'summary': {'message': 'clock skew'}}
    cluster.monitors['health'] = {'checks': {'OSD_DOWN': down, 'MON_CLOCK_SKEW': other}}

    error = failing(cluster, errno.ETIMEDOUT)

    assert 'no answer in time. The cluster says: 1 osds down; osd.0 is down.' in error
    assert cluster.configuration['rados_osd_op_timeout'] == '3'
    assert 'capabilities' not in error


def test_no_answer_from_a_healthy_cluster(cluster: fake_ceph.Cluster) -> None:
    """So does Ceph 18 treat a user who has no capability for OSDs at all."""
    cluster.monitors['health'] = {'checks': {}}

    error = failing(cluster, errno.ETIMEDOUT)

    assert 'no answer in time. The cluster says: nothing that would explain it.' in error
    assert 'client.cinder-backup needs the capabilities' in error


def test_no_answer_from_osds_and_monitors(cluster: fake_ceph.Cluster) -> None:
    error = failing(cluster, errno.ETIMEDOUT)

    assert 'no answer in time. The monitors do not tell why.' in error
    assert 'capabilities' not in error


def test_a_blocklisted_client(cluster: fake_ceph.Cluster) -> None:
    assert 'another run took over' in failing(cluster, errno.ESHUTDOWN)


def test_a_capability_that_is_missing_on_the_data_pool(cluster: fake_ceph.Cluster) -> None:
    cluster.data_pools['data'] = units.GIB
    where = cluster.pool(data_pool='data')
    where.create(NAME, model.ImageLayout(units.MIB))
    cluster.refused.add('data')
    cluster.hook = lambda what: errno.EPERM if what.startswith('aio_write') else 0
    with (
        pytest.raises(errors.CephError) as raised,
        where.open(NAME, writable=True) as image,
    ):
        writing.write_items(image, [model.Data(0, b'x')])

    for word in (NAME, 'client.cinder-backup', 'in pool data:', 'profile rbd pool=data'):
        assert word in str(raised.value)
    # Which that user may not run itself.
    assert 'ceph auth get client.cinder-backup' in str(raised.value)


def test_an_image_that_cannot_be_removed_is_not_called_gone(
    cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librbd says so in a pool without room; what it holds is given back."""
    monkeypatch.setattr(pool, '_WATCH_TIMEOUT', 0)
    where = cluster.pool()
    where.create(NAME, model.ImageLayout(units.MIB))
    cluster.hook = lambda what: errno.ENOENT if what == f'remove {NAME}' else 0

    with pytest.raises(errors.CephError, match='is there, but cannot be removed'):
        where.remove(NAME)

    cluster.hook = lambda what: 0
    where.remove(NAME)
    assert cluster.images == {}
