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


"""Each service finds the keyring of its own cloud, in a container too."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sandbox import ceph, cinder, keyrings, lifecycle, model
from sandbox.errors import SandboxError
from sandbox.model import Cloud
from sandbox.settings import Settings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine without mount namespaces, and its /etc/ceph."""

    def refuse(command: Sequence[str]) -> str:
        raise SandboxError(f'{command[0]}: Operation not permitted')

    monkeypatch.setattr(keyrings, 'run', refuse)
    monkeypatch.setattr(keyrings, 'PLACE', tmp_path / 'etc')
    keyrings._new_view.cache_clear()
    yield tmp_path / 'etc'
    keyrings._new_view.cache_clear()


def test_two_clouds_share_a_folder(cloud: Cloud, place: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(cloud, root=tmp_path / 'dst', secrets=model.new_secrets())
    for one in (cloud, other):
        ceph._configure(one)
        cinder.configure(one)
        conf = (one.root / 'cinder' / 'cinder.conf').read_text()
        assert conf.count('capabilities = CAP_DAC_OVERRIDE') == 2
        assert not keyrings.around(one)
        (found,) = place.glob(f'{one.ceph_name}.client.cinder.keyring')
        assert one.secrets['ceph-cinder'] in found.read_text()
    assert len(list(place.iterdir())) == 2
    lifecycle.purge(Settings(tmp_path, tmp_path / 'venv', tmp_path / 'sockets'), [cloud])
    assert len(list(place.iterdir())) == 1


def test_who_is_not_root_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'geteuid', lambda: 0)
    keyrings.check()
    monkeypatch.setattr(os, 'geteuid', lambda: 1000)
    with pytest.raises(SandboxError, match='CAP_SYS_ADMIN'):
        keyrings.check()


def test_the_way_that_the_machine_allows(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str]) -> str:
        if '--user' not in command:
            raise SandboxError('unshare: Operation not permitted')
        return ''

    monkeypatch.setattr(keyrings, 'run', run)
    keyrings._new_view.cache_clear()
    assert '--map-root-user' in keyrings.around(cloud)
    assert not keyrings._folders(cloud)[1:]
    keyrings._new_view.cache_clear()
