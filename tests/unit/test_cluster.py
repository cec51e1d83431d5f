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

"""The way into a cluster, and the words where there is none."""

import sys
from typing import Any

import pytest

from osc_backup_port import errors, model
from osc_backup_port.ceph import cluster as ceph_cluster
from tests.fakes import ceph as fake_ceph
from tests.fakes import rados, rbd

SETTINGS = ceph_cluster.Settings('/src/ceph.conf', 'cinder-backup')


class Rados(rados.Rados):
    """Of this file's tests only."""


@pytest.fixture(autouse=True)
def bindings(cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch) -> type[Rados]:
    Rados.clusters = {'/src/ceph.conf': {'volumes': cluster, 'backups': cluster}}
    Rados.refusal = None
    Rados.made = []
    Rados.configuration = {}
    monkeypatch.setattr(rados, 'Rados', Rados)
    monkeypatch.setitem(sys.modules, 'rados', rados)
    monkeypatch.setitem(sys.modules, 'rbd', rbd)
    return Rados


def test_a_pool_is_open_until_the_block_ends(bindings: type[Rados]) -> None:
    with ceph_cluster.open_pool(SETTINGS, 'backups') as pool:
        (client,) = bindings.made
        assert client.is_open
        assert client.user == 'cinder-backup'
        pool.create('image', model.ImageLayout(4096))
        with pool.open('image', writable=True) as image:
            assert image.other_writers() == []

    assert not client.is_open


def test_it_is_closed_when_the_block_fails(bindings: type[Rados]) -> None:
    def failing() -> None:
        with ceph_cluster.open_pool(SETTINGS, 'backups'):
            raise KeyError

    with pytest.raises(KeyError):
        failing()

    assert not bindings.made[0].is_open


@pytest.mark.parametrize(
    ('configured', 'expected'),
    [
        ({}, ['30', '30', '120']),
        ({'client_mount_timeout': '300'}, ['30', '30', '120']),
        (
            {
                'client_mount_timeout': '7',
                'rados_mon_op_timeout': '8',
                'rados_osd_op_timeout': '9',
            },
            [],
        ),
    ],
)
def test_nothing_waits_for_ever_unless_the_configuration_says_so(
    bindings: type[Rados], configured: dict[str, str], expected: list[str]
) -> None:
    bindings.configuration = configured

    with ceph_cluster.open_pool(SETTINGS, 'backups'):
        pass

    options = bindings.made[0].options
    assert [value for name, value in options.items() if 'timeout' in name] == expected


def test_an_option_that_a_release_does_not_know_is_left(
    bindings: type[Rados], monkeypatch: pytest.MonkeyPatch
) -> None:
    def conf_set(self: Rados, option: str, value: str) -> None:
        if option.startswith('rbd'):
            raise rados.Error(f'error calling conf_set: {option}', 2)

    monkeypatch.setattr(bindings, 'conf_set', conf_set)

    with ceph_cluster.open_pool(SETTINGS, 'backups') as pool:
        assert pool.name == 'backups'


def test_no_such_pool(bindings: type[Rados]) -> None:
    with (
        pytest.raises(errors.NotFound, match='there is no pool b; there are: backups, volumes'),
        ceph_cluster.open_pool(SETTINGS, 'b'),
    ):
        pass

    assert not bindings.made[0].is_open


@pytest.mark.parametrize(
    ('refusal', 'words'),
    [
        (
            rados.PermissionDeniedError('denied', 13),
            'ceph -c /src/ceph.conf auth get client.cinder-backup',
        ),
        (rados.ObjectNotFound('no keyring', 2), 'no keyring for client.cinder-backup'),
        (rados.OSError('timed out', 110), 'ceph -c /src/ceph.conf --id cinder-backup status'),
    ],
)
def test_a_cluster_that_cannot_be_reached(
    bindings: type[Rados], refusal: rados.Error, words: str
) -> None:
    bindings.refusal = refusal

    with (
        pytest.raises(errors.CephError, match='the cluster cannot be reached') as caught,
        ceph_cluster.open_pool(SETTINGS, 'backups'),
    ):
        pass

    assert words in str(caught.value)
    assert '/src/ceph.conf as client.cinder-backup' in str(caught.value)


def test_a_configuration_that_is_not_there() -> None:
    with (
        pytest.raises(errors.CephError, match='the configuration cannot be read') as caught,
        ceph_cluster.open_pool(ceph_cluster.Settings('/no', None), 'backups'),
    ):
        pass

    assert '--ceph-conf' in str(caught.value)
    assert 'client.admin' in str(caught.value)


@pytest.mark.parametrize('missing', ['rados', 'rbd'])
def test_without_the_bindings(missing: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, missing, None)

    with (
        pytest.raises(errors.CephError, match='bindings cannot be imported') as caught,
        ceph_cluster.open_pool(SETTINGS, 'backups'),
    ):
        pass

    assert 'apt-get install python3-rados python3-rbd' in str(caught.value)


@pytest.mark.parametrize('user', ['cinder-backup', 'client.cinder-backup'])
def test_the_user_may_be_named_with_its_kind(bindings: type[Rados], user: str) -> None:
    settings = ceph_cluster.Settings('/src/ceph.conf', user)
    with ceph_cluster.open_pool(settings, 'backups'):
        assert [client.user for client in bindings.made] == ['cinder-backup']


def test_a_pool_knows_the_commands_that_reach_it(bindings: type[Rados]) -> None:
    with ceph_cluster.open_pool(SETTINGS, 'backups') as pool:
        expected = 'rbd -c /src/ceph.conf --id cinder-backup -p backups ls'
        assert pool.commands.rbd('ls') == expected
        pool.create('image', model.ImageLayout(4096))
        with pool.open('image') as image:
            assert image.commands.rbd('ls') == expected
