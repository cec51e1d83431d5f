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

"""The fake of Ceph keeps the contract that the real one is held to."""

from collections.abc import Iterator
from typing import Any

import pytest

from osc_backup_port.ceph import pool
from tests.fakes import ceph as fake_ceph
from tests.fakes import rados, rbd

pytest.register_assert_rewrite('tests.contract.ceph_contract')

from tests.contract import ceph_contract  # noqa: E402


class FakeCeph:
    rados: Any = rados
    rbd: Any = rbd
    prefix = 'contract-'

    def __init__(self, cluster: fake_ceph.Cluster) -> None:
        self._cluster = cluster

    def connect(self) -> Any:
        ioctx = self._cluster.connect()
        return ioctx, ioctx.client_id

    def pool(self) -> pool.Pool:
        return self._cluster.pool()


class TestFakeCeph(ceph_contract.CephContract):
    @pytest.fixture
    def ceph(self) -> Iterator[FakeCeph]:
        cluster = fake_ceph.Cluster()
        yield FakeCeph(cluster)
        cluster.close()
