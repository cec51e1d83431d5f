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

import uuid

import pytest

from osc_backup_port.cinder import resources
from osc_backup_port.record import BackupRecord
from tests.cinder_contract import CinderContract
from tests.unit import records
from tests.unit.fake_cinder import FakeCinder


class TestFakeCinder(CinderContract):
    @pytest.fixture
    def cinder(self) -> FakeCinder:
        made = FakeCinder()
        made.projects['demo'] = resources.Project('d' * 32, 'demo', 'u' * 32)
        return made

    @pytest.fixture
    def other_project(self) -> str:
        return 'demo'

    @pytest.fixture
    def item(self) -> BackupRecord:
        return records.make_record(id=str(uuid.uuid4()))
