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

"""Makes the package ``sandbox`` importable, and a cloud to look at."""

import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[3] / 'tools'
sys.path.insert(0, str(TOOLS))

from sandbox import model  # noqa: E402


@pytest.fixture
def cloud(tmp_path: Path) -> model.Cloud:
    return model.Cloud(
        name='src',
        root=tmp_path / 'src',
        sockets=tmp_path / 'sockets',
        venv=tmp_path / 'venv',
        ports={name: 20000 + number for number, name in enumerate(model.PORTS)},
        secrets=model.new_secrets(),
    )
