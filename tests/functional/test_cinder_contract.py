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

"""The real Block Storage keeps to what the operations count on."""

import types
import uuid

import pytest

from osc_backup_port.cinder.backups import BackupService
from osc_backup_port.record import BackupRecord
from tests.cinder_contract import CinderContract
from tests.functional import shell
from tests.functional.conftest import Resources
from tests.unit import records


class TestRealCinder(CinderContract):
    @pytest.fixture
    def cinder(self, dst: shell.Cloud) -> BackupService:
        return BackupService.from_client_manager(client_manager(dst))

    @pytest.fixture
    def other_project(self, dst: shell.Cloud) -> str:
        if dst.sandbox is None:
            pytest.skip('only the sandbox has a second project')
        return 'demo'

    @pytest.fixture
    def item(self, dst: shell.Cloud, resources: Resources) -> BackupRecord:
        backup_id = str(uuid.uuid4())
        resources.forget_backup(dst, backup_id)
        return records.make_record(
            id=backup_id,
            display_name=f'port-test-{backup_id}',
            # A pool that is there, so that a delete finds nothing in it.
            container=dst.config.get('backup_ceph_pool', 'backups'),
            num_dependent_backups=0,
        )


def client_manager(cloud: shell.Cloud) -> types.SimpleNamespace:
    """Return what our client needs of the one that OSC makes."""
    region = cloud._region
    return types.SimpleNamespace(
        session=region.get_session(),
        region_name=region.region_name,
        interface=region.interface,
        get_configuration=lambda: cloud.config,
        _api_version={'volume': '3'},
    )


def test_microversion_is_negotiated(dst: shell.Cloud) -> None:
    service = BackupService.from_client_manager(client_manager(dst))
    newest = dst._adapter.get_endpoint_data().max_microversion
    assert service._client.api_version.get_string() == f'3.{min(newest[1], 64)}'
    if newest >= (3, 18):
        assert all(backup.project_id for backup in service.list(all_projects=True))


def test_endpoint_override(dst: shell.Cloud) -> None:
    endpoint = dst._adapter.get_endpoint()
    manager = client_manager(dst)
    for name in ('block_storage', 'volumev3', 'volume'):
        config = {**dst.config, f'{name}_endpoint_override': endpoint, 'region_name': 'nowhere'}
        manager.region_name = 'nowhere'
        manager.get_configuration = lambda config=config: config
        assert BackupService.from_client_manager(manager).list() is not None
