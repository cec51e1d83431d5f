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
