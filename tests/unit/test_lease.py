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

"""The lock on an image, where the cluster does not play along."""

import errno
import json
import threading

import pytest

from osc_backup_port import errors
from osc_backup_port.ceph import commands, lease
from osc_backup_port.driver import ceph as ceph_driver
from tests.fakes import ceph as fake_ceph

IMAGE = 'volume-1.backup.base'
LOCK = ceph_driver.lock_object(IMAGE)


def leave_a_lock(cluster: fake_ceph.Cluster) -> str:
    """Return the address of a run that died with the lock."""
    held = lease.Lease(*_arguments(cluster))
    held.acquire()
    held._stop.set()
    held._keeper.join()
    cluster.expire_locks()
    [note] = cluster.attributes[LOCK].values()
    return str(json.loads(note)['address'])


def _arguments(
    cluster: fake_ceph.Cluster,
) -> tuple[object, object, object, commands.Commands, str]:
    pool = cluster.pool()
    return pool._client, pool._ioctx, pool._rados, pool.commands, IMAGE


def test_the_dead_are_shut_out_and_their_notes_go(cluster: fake_ceph.Cluster) -> None:
    address = leave_a_lock(cluster)
    assert cluster.blocklist == set()

    with cluster.pool().lock(IMAGE):
        assert cluster.blocklist == {address}
        [note] = cluster.attributes[LOCK].values()
        assert json.loads(note)['address'] != address

    assert cluster.objects == {}


def test_a_note_is_found_when_the_run_after_died_too(cluster: fake_ceph.Cluster) -> None:
    """It died before it could shut out the first."""
    first = leave_a_lock(cluster)
    cluster.hook = lambda what: errno.EIO if what.startswith('blocklist_add') else 0
    with pytest.raises(errors.CephError):
        leave_a_lock(cluster)
    cluster.hook = lambda what: 0
    cluster.expire_locks()

    with cluster.pool().lock(IMAGE):
        assert first in cluster.blocklist


def test_a_note_that_is_none_stops_nobody(cluster: fake_ceph.Cluster) -> None:
    leave_a_lock(cluster)
    for name in cluster.attributes[LOCK]:
        cluster.attributes[LOCK][name] = b'[' * 60_000
    with cluster.pool().lock(IMAGE):
        assert cluster.blocklist == set()


def test_where_nobody_may_be_shut_out_the_capability_is_named(cluster: fake_ceph.Cluster) -> None:
    address = leave_a_lock(cluster)
    cluster.hook = lambda what: errno.EACCES if what.startswith('blocklist_add') else 0

    with (
        pytest.raises(errors.CephError, match="mon 'profile rbd'") as raised,
        cluster.pool().lock(IMAGE),
    ):
        pass

    # Not as the user that may not do it.
    assert f'ceph osd blocklist add {address}' in str(raised.value)
    assert cluster.blocklist == set()
    # The next run still finds it, and need not wait.
    cluster.hook = lambda what: 0
    with cluster.pool().lock(IMAGE):
        assert cluster.blocklist == {address}
    assert cluster.objects == {}


def test_a_hung_renewal_is_a_lost_lock(
    cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock decides, without a word of the cluster."""
    answer = threading.Event()
    clock = [1000.0]
    monkeypatch.setattr(lease.time, 'monotonic', lambda: clock[0])
    with cluster.pool().lock(IMAGE) as held:
        cluster.hook = lambda what: 0 if answer.wait(10) else errno.ETIMEDOUT
        held.check()
        clock[0] += lease.DURATION - 1
        held.check()
        clock[0] += 1
        with pytest.raises(errors.Conflict, match='Nothing more is written'):
            held.check()
        answer.set()
