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


"""The other cloud of a migration, as the options name it."""

import argparse
import pathlib
import types

import pytest
from openstack import config as sdk_config

from osc_backup_port import errors
from osc_backup_port.osc import target

CLOUDS = """\
clouds:
  here:
    auth: {auth_url: http://127.0.0.1:1/v3, username: joe, password: s3cret, project_name: p}
    region_name: one
    block_storage_endpoint_override: http://127.0.0.1:2/v3
    backup_ceph_conf: /here.conf
    backup_ceph_pool: backups
  regions:
    auth: {auth_url: http://127.0.0.1:1/v3, username: joe, password: s3cret, project_name: p}
    regions:
    - name: one
    - name: two
      values: {backup_ceph_pool: two.backups}
"""
OPENRC = 'OS_AUTH_URL=http://127.0.0.1:3/v3 OS_USERNAME=joe OS_PROJECT_NAME=p OS_REGION_NAME=one'


def find(tmp_path: pathlib.Path, *arguments: str, in_use: str = 'here') -> target.OtherCloud:
    file = tmp_path / 'clouds.yaml'
    file.write_text(CLOUDS)
    loader = sdk_config.OpenStackConfig(config_files=[str(file)], load_envvars=False)
    parser = argparse.ArgumentParser()
    target.add_arguments(parser)
    app = types.SimpleNamespace(
        cloud_config=loader,
        options=argparse.Namespace(cloud=in_use, region_name=None),
        cloud=types.SimpleNamespace(region_name='one'),
    )
    return target.find(parser.parse_args(arguments), app)


def test_none_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidInput, match='Nothing says which cloud'):
        find(tmp_path, '--to-ceph-pool', 'x')


def test_a_cloud(tmp_path: pathlib.Path) -> None:
    other = find(tmp_path, '--to-cloud', 'here')
    assert (other.region_name, other.pool(), other.ceph().conf) == ('one', 'backups', '/here.conf')
    assert other.cloud.command == 'openstack --os-cloud here'
    other = find(tmp_path, '--to-cloud', 'here', '--to-ceph-pool', 'x', '--to-ceph-conf', '/y')
    assert (other.pool(), other.ceph().conf) == ('x', '/y')
    with pytest.raises(errors.InvalidInput, match='Cloud nowhere: cannot be used'):
        find(tmp_path, '--to-cloud', 'nowhere')


def test_another_region(tmp_path: pathlib.Path) -> None:
    other = find(tmp_path, '--to-region-name', 'two')
    assert (other.region_name, other.cloud.name) == ('two', 'region two')
    # It is the endpoint of the first region.
    assert 'block_storage_endpoint_override' not in other.config
    other = find(tmp_path, '--to-region-name', 'two', in_use='regions')
    assert (other.region_name, other.pool()) == ('two', 'two.backups')
    other = find(tmp_path, '--to-cloud', 'regions', '--to-region-name', 'two')
    assert (other.region_name, other.pool()) == ('two', 'two.backups')
    with pytest.raises(errors.InvalidInput, match='is the one that the backups come from'):
        find(tmp_path, '--to-region-name', 'one')


def test_an_openrc_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('OS_PASSWORD', 'of the cloud in use')
    file = tmp_path / 'openrc'
    file.write_text(f'{OPENRC} OS_PASSWORD="s3cret"\n')
    other = find(tmp_path, '--to-openrc', str(file), '--to-ceph-pool', 'x')
    assert (other.region_name, other.pool()) == ('one', 'x')
    assert other.session.auth.auth_url == 'http://127.0.0.1:3/v3'
    with pytest.raises(errors.InvalidInput, match='--to-ceph-pool') as caught:
        find(tmp_path, '--to-openrc', str(file)).pool()
    assert str(caught.value).startswith(f'Cloud of {file}: nothing names the pool')
    assert find(tmp_path, '--to-openrc', str(file), '--to-region-name', 'two').region_name == 'two'


def test_an_openrc_file_without_the_password(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(target.PASSWORD_VARIABLE, raising=False)
    file = tmp_path / 'openrc'
    file.write_text(
        f'{OPENRC}\nread -sr OS_PASSWORD_INPUT\nexport OS_PASSWORD=$OS_PASSWORD_INPUT\n'
    )
    with pytest.raises(errors.InvalidInput, match=f'export {target.PASSWORD_VARIABLE}'):
        find(tmp_path, '--to-openrc', str(file))
    monkeypatch.setenv(target.PASSWORD_VARIABLE, 's3cret')
    assert find(tmp_path, '--to-openrc', str(file)).config['auth']['password'] == 's3cret'


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('OS_CLOUD=here', 'Use --to-cloud here instead'),
        ('OS_USERNAME=joe', 'does not set OS_AUTH_URL'),
        ('\xff', 'no text in UTF-8'),
        ('#' * 70000, 'which no openrc file has'),
        (f'{OPENRC} OS_PASSWORD=s3cret OS_AUTH_TYPE=nonsense', 'cannot be used'),
    ],
)
def test_no_openrc_file(tmp_path: pathlib.Path, text: str, told: str) -> None:
    file = tmp_path / 'openrc'
    file.write_text(text, encoding='latin-1')
    with pytest.raises(errors.InvalidInput, match=told) as caught:
        find(tmp_path, '--to-openrc', str(file))
    assert 's3cret' not in str(caught.value)
