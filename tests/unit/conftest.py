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

"""What the unit tests share."""

import pathlib
import re
from collections.abc import Iterator

import hypothesis
import pytest

from osc_backup_port.ceph import handles
from tests.fakes import ceph as fake_ceph

# A machine that does something else as well is slow, and no test is wrong for that.
hypothesis.settings.register_profile(
    'patient', suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile('patient')

_CLIENTS = re.compile(
    r'\b(osc_lib|openstackclient|cliff|cinderclient|keystoneauth1)\b'
    r'|\bosc_backup_port(\.| import )(osc|cinder)\b'
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what another release of the clients may change."""
    touched = {
        path: _CLIENTS.search(path.read_text(encoding='utf-8')) is not None
        for path in {item.path for item in items}
        if pathlib.Path(__file__).parent in path.parents
    }
    for item in items:
        if touched.get(item.path):
            item.add_marker(pytest.mark.clients)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be waited for where no librbd is."""
    monkeypatch.setattr(handles, 'REST', 0)


@pytest.fixture
def cluster() -> Iterator[fake_ceph.Cluster]:
    """A pool in memory."""
    made = fake_ceph.Cluster()
    yield made
    made.close()
    assert made.worker.lost_buffers == []
