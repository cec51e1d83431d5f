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

"""HEAD is compared with the newest backup by its bytes."""

import pytest

from osc_backup_port import units
from osc_backup_port.ceph import heads
from tests.fakes import ceph as fake_ceph
from tests.unit import chains

MAPS = pytest.mark.parametrize('features', [1, 1 | 4, 29], ids=['none', 'lock', 'all'])


def make_image(cluster: fake_ceph.Cluster, features: int) -> fake_ceph.Content:
    """Return what HEAD holds of an image whose newest backup was imported first."""
    with chains.make_image(cluster, features=features) as image:
        content = cluster.images[chains.BASE].content
        content.write(5000, b'old' * 1000)
        content.write(8 * units.MIB, bytes(4096))
        image.create_snap(chains.snapshot(1))
        content.write(5000, b'older' * 1000)
        image.create_snap(chains.snapshot(0))
        image.rollback_to_snap(chains.snapshot(1))
    return cluster.images[chains.BASE].content


def drifted_from(cluster: fake_ceph.Cluster) -> str | None:
    with cluster.pool().open(chains.BASE) as image:
        newest = heads.drifted_from(image)
    return newest.name if newest else None


@MAPS
def test_a_head_that_is_the_newest_backup(cluster: fake_ceph.Cluster, features: int) -> None:
    make_image(cluster, features)
    assert drifted_from(cluster) is None


@MAPS
def test_the_same_bytes_written_again(cluster: fake_ceph.Cluster, features: int) -> None:
    content = make_image(cluster, features)
    content.write(5000, b'old' * 1000)
    assert drifted_from(cluster) is None


@MAPS
def test_zeros_where_nothing_was(cluster: fake_ceph.Cluster, features: int) -> None:
    content = make_image(cluster, features)
    content.write(100 * units.MIB, bytes(9000))
    # And nothing where there were zeros.
    content.zero(8 * units.MIB, 4 * units.MIB)
    assert drifted_from(cluster) is None


@MAPS
def test_other_bytes(cluster: fake_ceph.Cluster, features: int) -> None:
    content = make_image(cluster, features)
    content.write(100 * units.MIB, b'x')
    assert drifted_from(cluster) == chains.snapshot(1)


@MAPS
def test_bytes_that_are_gone(cluster: fake_ceph.Cluster, features: int) -> None:
    content = make_image(cluster, features)
    content.zero(0, 4 * units.MIB)
    assert drifted_from(cluster) == chains.snapshot(1)


def test_another_size(cluster: fake_ceph.Cluster) -> None:
    make_image(cluster, 29)
    cluster.images[chains.BASE].size += 4096
    assert drifted_from(cluster) == chains.snapshot(1)


def test_no_backup(cluster: fake_ceph.Cluster) -> None:
    with chains.make_image(cluster) as image:
        image.create_snap('of somebody')
    cluster.images[chains.BASE].content.write(0, b'x')
    assert drifted_from(cluster) is None
