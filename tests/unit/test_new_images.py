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

"""How images are made: as chosen, else as their neighbours, else as by Cinder."""

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.moving import target_pool
from tests.fakes import ceph as fake_ceph

VOLUME = '5172626d-c23c-4563-8493-f34e86758634'
OTHER = f'volume-{VOLUME}.backup.base'
NEW = 'volume-5172626d-c23c-4563-8493-f34e86758635.backup.base'
AS_CINDER = 1 | 4 | 8 | 16
JOURNALING = 64


def made(cluster: fake_ceph.Cluster, **chosen: object) -> fake_ceph.StoredImage:
    cluster.pool(**chosen).create(NEW, model.ImageLayout(units.GIB))
    return cluster.images[NEW]


def test_in_an_empty_pool_as_cinder_does(cluster: fake_ceph.Cluster) -> None:
    image = made(cluster)

    assert (image.features, image.stripe_count, image.data_pool) == (AS_CINDER, 1, 0)


def test_as_the_other_backups(cluster: fake_ceph.Cluster) -> None:
    cluster.data_pools['data'] = units.GIB
    there = cluster.pool(data_pool='data', journals=True, stripe_unit=65536, stripe_count=4)
    there.create(OTHER, model.ImageLayout(units.GIB))

    image = made(cluster)

    assert image.features == AS_CINDER | JOURNALING
    assert (image.stripe_unit, image.stripe_count) == (65536, 4)
    assert image.data_pool == 1


def test_images_that_are_no_backups_say_nothing(cluster: fake_ceph.Cluster) -> None:
    cluster.data_pools['data'] = units.GIB
    cluster.pool(data_pool='data').create('somebody-else', model.ImageLayout(units.GIB))

    assert made(cluster).data_pool == 0


def test_a_damaged_backup_says_nothing(cluster: fake_ceph.Cluster) -> None:
    cluster.pool().create(OTHER, model.ImageLayout(units.GIB))
    cluster.connect().remove_object(f'rbd_header.{cluster.images[OTHER].id}')

    assert made(cluster).features == AS_CINDER


def test_what_is_chosen_wins(cluster: fake_ceph.Cluster) -> None:
    cluster.data_pools.update(data=units.GIB, more=units.GIB)
    there = cluster.pool(data_pool='data', journals=True, stripe_unit=65536, stripe_count=4)
    there.create(OTHER, model.ImageLayout(units.GIB))
    cluster.configuration['rbd_default_data_pool'] = 'data'

    image = made(cluster, data_pool='more', journals=False, stripe_unit=0, stripe_count=0)

    assert (image.features, image.stripe_count, image.data_pool) == (AS_CINDER, 1, 2)


def test_the_pool_itself_can_be_chosen(cluster: fake_ceph.Cluster) -> None:
    cluster.data_pools['data'] = units.GIB
    cluster.configuration['rbd_default_data_pool'] = 'data'

    assert made(cluster, data_pool=cluster.name).data_pool == 0


def test_room_is_looked_for_where_the_data_goes(cluster: fake_ceph.Cluster) -> None:
    """Of an image that is there: in its own data pool; of a new one: in the chosen one."""
    cluster.free = 10
    cluster.data_pools.update(data=units.GIB, more=units.GIB)
    cluster.pool(data_pool='more').create(OTHER, model.ImageLayout(units.GIB))
    pool = cluster.pool(data_pool='data')

    assert target_pool.check_space(pool, {NEW: units.GIB, OTHER: units.GIB}) == []
    [error] = target_pool.check_space(pool, {NEW: units.GIB + 1, OTHER: units.GIB})
    assert 'Data pool data: has room for 1.0 GiB' in str(error)
    [error] = target_pool.check_space(pool, {NEW: 0, OTHER: 2 * units.GIB})
    assert 'Data pool more' in str(error)
    [error] = target_pool.check_space(cluster.pool(data_pool='backups'), {NEW: 11})
    assert 'Pool backups: has room for 10 B' in str(error)


def test_a_data_pool_that_is_not_there(cluster: fake_ceph.Cluster) -> None:
    [error] = target_pool.check_space(cluster.pool(data_pool='gone'), {NEW: 1})

    assert 'Data pool gone: there is no such pool' in str(error)


def test_a_data_pool_that_may_not_be_used_is_told_before(cluster: fake_ceph.Cluster) -> None:
    cluster.data_pools['data'] = units.GIB
    cluster.refused.add('data')

    [error] = target_pool.check_space(cluster.pool(data_pool='data'), {NEW: 1})

    for word in ('client.cinder-backup', 'pool data', 'profile rbd pool=data'):
        assert word in str(error)


def test_striping_takes_both_numbers(cluster: fake_ceph.Cluster) -> None:
    with pytest.raises(errors.InvalidInput, match='--stripe-count'):
        made(cluster, stripe_unit=65536)
