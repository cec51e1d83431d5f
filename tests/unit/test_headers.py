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

"""What is asked of an image without opening it; that the answers are right is in the contract."""

import collections.abc
import errno

import pytest

from osc_backup_port import errors, model
from osc_backup_port.ceph import headers
from tests.fakes import ceph as fake_ceph
from tests.fakes import classes

IMAGE = 'volume-1.backup.2'


@pytest.fixture
def cluster() -> collections.abc.Iterator[fake_ceph.Cluster]:
    made = fake_ceph.Cluster()
    pool = made.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    with pool.open(IMAGE, writable=True) as image:
        image.create_snapshot('one')
        image.set_note('key', 'value')
    yield made
    made.close()


def asked(cluster: fake_ceph.Cluster) -> list[str]:
    """Return the list that grows by the first word of all that is asked."""
    found: list[str] = []

    def keep(what: str) -> int:
        found.append(what.split()[0])
        return 0

    cluster.hook = keep
    return found


def test_nothing_is_opened_to_ask(cluster: fake_ceph.Cluster) -> None:
    pool, words = cluster.pool(), asked(cluster)

    assert [one.name for one in pool.snapshots(IMAGE) or ()] == ['one']
    assert pool.note(IMAGE, 'key') == 'value'
    assert pool.data_pool_of(IMAGE) == cluster.name

    assert set(words) == {'execute', 'stat'}


@pytest.mark.parametrize('method', ['get_snapcontext', 'snapshot_get', 'get_features'])
def test_where_an_answer_is_odd_librbd_is_asked(
    cluster: fake_ceph.Cluster, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, words, read = cluster.pool(), asked(cluster), classes.read

    def odd(where: fake_ceph.Cluster, key: str, asked_for: str, data: bytes) -> bytes:
        return b'\1' if asked_for == method else read(where, key, asked_for, data)

    monkeypatch.setattr(classes, 'read', odd)

    assert [one.name for one in pool.snapshots(IMAGE) or ()] == ['one']
    assert pool.data_pool_of(IMAGE) == cluster.name
    assert words.count('open') == 1


def test_a_snapshot_that_goes_meanwhile_is_left_out(cluster: fake_ceph.Cluster) -> None:
    [ioctx, rados] = [cluster.connect(), cluster.pool()._rados]
    id_, removed = cluster.images[IMAGE].id, False

    def remove(what: str) -> int:
        nonlocal removed
        if removed:
            cluster.images[IMAGE].snapshots.clear()
        removed = True
        return 0

    cluster.hook = remove
    assert headers.Headers(ioctx, rados).snapshots([id_]) == [[]]


def test_a_cluster_that_does_not_answer_is_no_image_that_is_not_there(
    cluster: fake_ceph.Cluster,
) -> None:
    pool = cluster.pool()
    cluster.hook = lambda what: errno.EIO
    for ask in (pool.snapshots, pool.has_image, lambda name: pool.note(name, 'key')):
        with pytest.raises(errors.CephError):
            ask(IMAGE)
