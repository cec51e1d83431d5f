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

"""The real Ceph, through the real bindings, does what the package relies on."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from osc_backup_port.ceph import cluster, pool
from tests.functional import shell

pytest.register_assert_rewrite('tests.contract.ceph_contract')

from tests.contract import ceph_contract  # noqa: E402

rados = pytest.importorskip('rados')
rbd = pytest.importorskip('rbd')


class RealCeph:
    def __init__(self, settings: cluster.Settings, pool_name: str) -> None:
        self.rados: Any = rados
        self.rbd: Any = rbd
        self.prefix = f'port-test-{uuid.uuid4()}-'
        self._settings = settings
        self._pool_name = pool_name
        self._open = contextlib.ExitStack()

    def connect(self) -> Any:
        client = rados.Rados(
            conffile=self._settings.conf or '', rados_id=self._settings.user or 'admin'
        )
        client.connect()
        self._open.callback(client.shutdown)
        ioctx = client.open_ioctx(self._pool_name)
        self._open.callback(ioctx.close)
        return ioctx, client.get_instance_id()

    def pool(self) -> pool.Pool:
        return self._open.enter_context(cluster.open_pool(self._settings, self._pool_name))

    def close(self) -> None:
        ceph_contract.remove_all(self.pool(), self.prefix)
        self._open.close()


class TestRealCeph(ceph_contract.CephContract):
    @pytest.fixture
    def ceph(self, src: shell.Cloud) -> Iterator[RealCeph]:
        opened = RealCeph(*_where(src))
        yield opened
        opened.close()


def _where(src: shell.Cloud) -> tuple[cluster.Settings, str]:
    """Return where the pool is: of the sandbox, or as the environment says."""
    if 'OS_CLOUD' in os.environ and 'CEPH_CONF' not in os.environ:
        pytest.skip('OS_CLOUD names a cloud, but CEPH_CONF does not say where its Ceph is')
    conf = os.environ.get('CEPH_CONF') or shell.sandbox_environment('src')['CEPH_CONF']
    user = os.environ.get('CEPH_TEST_USER', 'cinder-backup')
    return cluster.Settings(conf, user), os.environ.get('CEPH_TEST_POOL', 'backups')
