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

"""What is written for the services and for the user."""

import base64
import configparser
import os
import stat
import struct
import threading
from pathlib import Path

import pytest
import yaml
from sandbox import (
    ceph,
    cinder,
    clouds_yaml,
    files,
    keystone,
    lifecycle,
    model,
    settings,
    state,
    waiting,
)
from sandbox.errors import SandboxError
from sandbox.model import Cloud
from sandbox.settings import Settings


def read(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(path)
    return parser


@pytest.fixture
def folders(tmp_path: Path) -> Settings:
    return Settings(tmp_path, tmp_path / 'venv', tmp_path / 'sockets')


def test_files_are_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / 'folder' / 'file'
    for text in ('first, longer', 'second'):
        files.write(path, text)
        assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_step_is_done_for_one_version_only(tmp_path: Path) -> None:
    marker = tmp_path / 'marker'
    assert not files.is_done(marker)
    files.mark_done(marker, 'one')
    assert files.is_done(marker, 'one')
    assert not files.is_done(marker, 'two')


def test_ceph_conf(cloud: Cloud) -> None:
    ceph._configure(cloud)
    conf = read(cloud.ceph_conf)
    assert conf['global']['mon_host'] == f'[v2:127.0.0.1:{cloud.ports["ceph-mon"]}/0]'
    keyring = conf['client']['keyring']
    for name in ('admin', 'cinder', 'cinder-backup', 'nobody'):
        path = Path(keyring.replace('$name', f'client.{name}'))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert read(path)[f'client.{name}']['key'] == cloud.secrets[f'ceph-{name}']


def test_the_backup_user_reaches_both_pools_and_nobody_reaches_none(cloud: Cloud) -> None:
    ceph._configure(cloud)
    folder = cloud.ceph_conf.parent
    backup = read(folder / 'ceph.client.cinder-backup.keyring')['client.cinder-backup']
    assert backup['caps osd'] == '"profile rbd pool=backups, profile rbd pool=volumes"'
    assert 'caps osd' not in read(folder / 'ceph.client.nobody.keyring')['client.nobody']


def test_a_ceph_key_has_the_form_that_ceph_reads() -> None:
    raw = base64.b64decode(model.ceph_key())
    kind, seconds, nanoseconds, length = struct.unpack('<hIIh', raw[:12])
    assert (kind, nanoseconds, length) == (1, 0, 16)
    assert seconds > 0
    assert len(raw) == 12 + length


def test_cinder_conf(cloud: Cloud) -> None:
    cinder.configure(cloud)
    conf = read(cloud.root / 'cinder' / 'cinder.conf')
    assert conf['DEFAULT']['backup_driver'] == cinder.BACKUP_DRIVER
    assert conf['DEFAULT']['backup_ceph_pool'] == 'backups'
    assert int(conf['DEFAULT']['report_interval']) < int(conf['DEFAULT']['service_down_time'])
    assert f':{cloud.ports["rabbitmq"]}/' in conf['DEFAULT']['transport_url']
    assert f':{cloud.ports["mariadb"]}/cinder' in conf['database']['connection']
    assert len(bytes.fromhex(conf['key_manager']['fixed_key'])) == 32


def test_keystone_keys_are_fernet_keys(cloud: Cloud) -> None:
    keystone._configure(cloud)
    for name in ('fernet', 'credential'):
        key = (cloud.root / 'keystone' / name / '1').read_text()
        assert len(base64.urlsafe_b64decode(key)) == 32


def test_the_application_does_not_see_the_arguments_of_gunicorn(cloud: Cloud) -> None:
    cinder.configure(cloud)
    text = (cloud.root / 'wsgi' / 'sandbox_cinder_api.py').read_text()
    compile(text, 'sandbox_cinder_api.py', 'exec')
    assert str(cloud.root / 'cinder' / 'cinder.conf') in text


def test_clouds_yaml(folders: Settings, cloud: Cloud) -> None:
    clouds_yaml.save(folders, [cloud])
    clouds = yaml.safe_load(folders.clouds_yaml.read_text())['clouds']
    assert list(clouds) == ['src', 'src-member']
    assert clouds['src']['backup_ceph_conf'] == str(cloud.ceph_conf)
    assert clouds['src']['backup_ceph_user'] == 'cinder-backup'
    assert clouds['src']['backup_ceph_pool'] == 'backups'
    assert clouds['src']['auth']['project_name'] == 'admin'
    assert clouds['src-member']['auth']['project_name'] == 'demo'
    assert clouds['src']['auth']['password'] == cloud.secrets['admin']
    assert not [key for key in clouds['src-member'] if key.startswith('backup_')]
    assert stat.S_IMODE(folders.clouds_yaml.stat().st_mode) == 0o600


def test_exports_are_quoted_for_the_shell(tmp_path: Path, cloud: Cloud) -> None:
    text = clouds_yaml.exports(Settings(tmp_path / "it's", tmp_path, tmp_path), cloud)
    assert 'export OS_CLOUD=src' in text
    assert """it'"'"'s/clouds.yaml""" in text


def test_the_state_file_remembers_ports_and_secrets(folders: Settings) -> None:
    first = state.find_or_make(folders, ['src', 'dst'])
    assert state.find_or_make(folders, ['src', 'dst', 'src']) == first
    assert state.known(folders) == first
    used = [port for cloud in first for port in cloud.ports.values()]
    assert len(set(used)) == len(used)
    assert [cloud.backup_pool for cloud in first] == ['backups', 'cinder.backups']
    state.forget(folders, ['src'])
    assert [cloud.name for cloud in state.known(folders)] == ['dst']
    with pytest.raises(SandboxError, match="no cloud 'src'"):
        state.find(folders, 'src')


@pytest.mark.parametrize('name', ['', '../src', 'Src', 'a b', '9', 'x' * 17, 'src-member'])
def test_a_strange_name_is_refused(folders: Settings, name: str) -> None:
    with pytest.raises(SandboxError, match="a cloud's name"):
        state.find_or_make(folders, [name])


def test_socket_paths_are_short_however_deep_the_checkout_is(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*['a-long-name-of-a-folder'] * 20)
    longest = settings.sockets_of(deep) / ('x' * 16) / 'tmp' / 'tmpabcdefgh' / 'privsep.sock'
    assert len(os.fsencode(longest)) < 107
    assert settings.sockets_of(deep) != settings.sockets_of(deep.parent)


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'link').symlink_to(tmp_path)
    with pytest.raises(SandboxError, match='not a folder of ours'):
        settings.make_private(tmp_path / 'link')


def test_daemons_start_in_the_order_of_their_needs(cloud: Cloud) -> None:
    names = [daemon.name for daemon in lifecycle.daemons(cloud)]
    assert len(set(names)) == len(names) == 11
    assert names.index('mariadb') < names.index('keystone') < names.index('cinder-api')
    assert names.index('epmd') < names.index('rabbitmq')
    with pytest.raises(SandboxError, match='there are: ceph-mon'):
        lifecycle.find_daemon(cloud, 'glance')


def test_the_cause_is_raised_and_not_its_consequence(monkeypatch: pytest.MonkeyPatch) -> None:
    event = threading.Event()
    monkeypatch.setattr(waiting, 'cancelled', event)

    def waits() -> None:
        waiting.until(lambda: 'never', 60)

    def fails() -> None:
        raise SandboxError('the cause')

    with pytest.raises(SandboxError, match='the cause'):
        lifecycle.together([waits, fails])
