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

"""What is asked to learn what changed; that the answer is right is in the contract."""

import collections.abc

import pytest

from osc_backup_port import model, units
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd

TIB = 1024 * units.GIB
PLACES = [0, 300 * units.GIB, 900 * units.GIB]


@pytest.fixture
def cluster() -> collections.abc.Iterator[fake_ceph.Cluster]:
    made = fake_ceph.Cluster()
    yield made
    made.close()


def questions(cluster: fake_ceph.Cluster, flags: int) -> tuple[int, list[model.Extent]]:
    """Return how often an image of 1 TiB is asked for an increment, and the answer."""
    pool = cluster.pool()
    pool.create('image', model.ImageLayout(TIB))
    stored = cluster.images['image']
    with pool.open('image', writable=True) as image:
        stored.content.write(PLACES[0], b'a')
        stored.content.write(PLACES[1], b'b')
        image.create_snapshot('one')
        stored.content.write(PLACES[2], b'c')
        image.create_snapshot('two')
    stored.flags = flags
    asked: list[str] = []

    def count(what: str) -> int:
        asked.extend([what] if what.startswith('diff_iterate') else [])
        return 0

    cluster.hook = count
    with pool.open('image', 'two') as image:
        found = list(image.extents('one'))
    return len(asked), found


def test_only_where_there_are_objects(cluster: fake_ceph.Cluster) -> None:
    number, found = questions(cluster, 0)

    assert [extent.offset for extent in found] == [PLACES[2]]
    # The maps of both points are read, then each object is asked.
    assert number == len(PLACES)


def test_everywhere_without_a_map_to_trust(cluster: fake_ceph.Cluster) -> None:
    number, found = questions(cluster, rbd.RBD_FLAG_FAST_DIFF_INVALID)

    assert [extent.offset for extent in found] == [PLACES[2]]
    assert number == TIB // (256 * units.MIB)
