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


"""Only what is missing is installed, and only what is wanted."""

import shutil

import pytest
from sandbox import packages


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'which', lambda program, path: None)
    assert {'ceph-mon', 'zstd', 'util-linux'} <= set(packages.missing())
    assert packages.missing(['zstd', 'a package that is not needed']) == ['zstd']


def test_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, 'which', lambda program, path: program)
    monkeypatch.setattr(packages, '_MODULES', {'sys': 'python3-sys'})
    assert packages.missing() == []
    packages.install()
    packages.install(['zstd'])
