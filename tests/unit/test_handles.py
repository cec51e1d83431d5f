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

import pytest

from osc_backup_port import errors, model
from osc_backup_port.ceph import handles
from tests.fakes import ceph as fake_ceph

IMAGE = 'volume-1.backup.2.part'


def test_what_a_signal_left_open_can_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = fake_ceph.Cluster()
    pool = cluster.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    close = handles.Handle.close

    def interrupted(handle: handles.Handle) -> None:
        monkeypatch.setattr(handles.Handle, 'close', close)
        raise errors.Interrupted('Stopped by SIGTERM.')

    monkeypatch.setattr(handles.Handle, 'close', interrupted)
    with pytest.raises(errors.Interrupted), pool.open(IMAGE, writable=True):
        pass
    pool.remove(IMAGE)
    assert not pool.has_image(IMAGE)
    cluster.close()


def test_what_was_written_to_rests_until_the_lock_is_given_back() -> None:
    cluster = fake_ceph.Cluster()
    pool = cluster.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    asked: list[str] = []
    cluster.hook = lambda what: asked.append(what.split()[0]) or 0  # type: ignore[func-returns-value]

    with pool.lock(IMAGE):
        for _ in range(2):
            with pool.open(IMAGE, writable=True) as image:
                image.set_note('key', 'x')
        assert asked.count('open') == 1
        assert 'close' not in asked

    # Before the lock is given back, which removes its object.
    assert asked[-2] == 'close'
    cluster.close()


def test_without_a_lock_it_is_closed_at_once() -> None:
    cluster = fake_ceph.Cluster()
    pool = cluster.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    with pool.open(IMAGE, writable=True):
        pass
    assert not cluster.images[IMAGE].watchers
    cluster.close()


def test_an_image_just_opened_shows_its_other_snapshots_too() -> None:
    cluster = fake_ceph.Cluster()
    pool = cluster.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    with pool.open(IMAGE, writable=True) as image:
        image.create_snapshot('one')
        image.resize(2 << 20)
        image.create_snapshot('two')
    asked: list[str] = []
    cluster.hook = lambda what: asked.append(what.split()[0]) or 0  # type: ignore[func-returns-value]

    for name, size in (('one', 1 << 20), ('two', 2 << 20), ('one', 1 << 20)):
        with pool.open(IMAGE, name) as image:
            assert image.size() == size
    with pytest.raises(errors.NotFound), pool.open(IMAGE, 'three'):
        pass

    # One that is not among its snapshots may be new.
    assert asked.count('open') == 2
    cluster.close()


def test_what_was_read_rests_from_its_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from its last use: reading is over when it was read."""
    cluster, clock, slept = fake_ceph.Cluster(), [1000.0], [0.0]
    pool = cluster.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    monkeypatch.setattr(handles, 'REST', 0.3)
    monkeypatch.setattr(handles.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(handles.time, 'sleep', slept.append)

    with pool.open(IMAGE, writable=True):
        clock[0] += 10
    assert slept.pop() == pytest.approx(0.3)
    for seconds, rest in ((0.1, 0.2), (10, 0.0)):
        with pool.open(IMAGE):
            clock[0] += seconds
        pool._handles._close_oldest(0)
        assert slept[-1] == pytest.approx(rest)
        slept[:] = [0.0]
    cluster.close()


def test_a_rename_lets_the_rest_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """librbd has the image that is open carry it out, which is refreshed for it."""
    cluster, slept = fake_ceph.Cluster(), [0.0]
    pool = cluster.pool()
    pool.create(IMAGE, model.ImageLayout(1 << 20))
    with pool.lock(IMAGE):
        with pool.open(IMAGE, writable=True):
            pass
        monkeypatch.setattr(handles, 'REST', 0.3)
        monkeypatch.setattr(handles.time, 'sleep', slept.append)
        [handle] = pool._handles._resting
        handle.touched -= 10
        pool.rename(IMAGE, 'volume-1.backup.2')
    assert 0.1 < slept[-1] <= 0.3
    cluster.close()
