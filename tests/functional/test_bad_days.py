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


"""A cloud that has a bad day, and credentials that are not enough."""

import concurrent.futures
import pathlib
import time
import typing
import uuid

import pytest
import yaml

from tests.functional import faulty_proxy, shell
from tests.functional.conftest import Resources
from tests.functional.test_metadata import METADATA, export_fields, results, write_record

SHOW = r'GET .*/backups/[0-9a-f]{8}-'
IMPORT = 'POST .*/import_record'


def changed(cloud: shell.Cloud, folder: pathlib.Path, **changes: typing.Any) -> shell.Cloud:
    """Return a cloud with other values in its part of clouds.yaml."""
    config_file = cloud.environment.get('OS_CLIENT_CONFIG_FILE')
    if config_file is None:
        pytest.skip('the clouds are in no file of their own')
    clouds = yaml.safe_load(pathlib.Path(config_file).read_text())
    path = folder / 'clouds.yaml'
    path.write_text(
        yaml.safe_dump({'clouds': {'other': {**clouds['clouds'][cloud.name], **changes}}})
    )
    environment = {**cloud.environment, 'OS_CLIENT_CONFIG_FILE': str(path)}
    return shell.Cloud('other', environment)


@pytest.fixture(scope='module')
def fields(src: shell.Cloud, chain: list[str]) -> dict[str, typing.Any]:
    """The decoded record of a full backup on src."""
    return export_fields(src, chain[0])


def new_records(
    fields: dict[str, typing.Any],
    cloud: shell.Cloud,
    resources: Resources,
    folder: pathlib.Path,
    count: int,
    **changes: object,
) -> list[str]:
    """Write records of backups that no cloud knows into a folder; return their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    folder.mkdir()
    for backup_id in ids:
        resources.forget_backup(cloud, backup_id)
        write_record(folder, {**fields, 'id': backup_id, 'num_dependent_backups': 0, **changes})
    return ids


def test_bad_answers_fail_nothing(
    fields: dict[str, typing.Any], dst: shell.Cloud, resources: Resources, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / 'records'
    ids = new_records(fields, dst, resources, folder, 4)
    faults = [
        faulty_proxy.Fault(SHOW, 502),
        faulty_proxy.Fault(SHOW, 'half'),
        faulty_proxy.Fault(SHOW, 429, {'Retry-After': '1'}, skip=4),
        faulty_proxy.Fault(SHOW, 'reset', skip=2),
        faulty_proxy.Fault('GET .*/os-quota-sets', 504),
        faulty_proxy.Fault(IMPORT, 503),  # the look at the caller's rights
        faulty_proxy.Fault(IMPORT, 503, skip=1),
        faulty_proxy.Fault(IMPORT, 429, {'Retry-After': '1'}),
        faulty_proxy.Fault(IMPORT, 'lost', skip=1),
    ]
    with faulty_proxy.running(dst.endpoint, faults) as address:
        cloud = changed(dst, tmp_path, block_storage_endpoint_override=address)
        done = cloud.openstack(*METADATA, 'import', folder, '-f', 'value', '-c', 'Result')
    assert faults == []
    assert set(done.stdout.decode().split('\n')) <= {'imported', 'already there', ''}
    assert 'The cloud does not answer (HTTP 50' in done.stderr.decode()
    assert {dst.rest('GET', f'/backups/{one}')['backup']['status'] for one in ids} == {'available'}


@pytest.mark.long
@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_a_restart_of_the_api_fails_nothing(
    fields: dict[str, typing.Any],
    dst: shell.Cloud,
    resources: Resources,
    tmp_path: pathlib.Path,
    end: str,
) -> None:
    if dst.sandbox is None:
        pytest.skip('needs a cloud whose services may be stopped')
    folder = tmp_path / 'records'
    ids = new_records(fields, dst, resources, folder, 60)
    command = (*METADATA, 'import', folder, '--timeout', '120', '-f', 'value', '-c', 'Result')
    with concurrent.futures.ThreadPoolExecutor(1) as worker:
        done = worker.submit(dst.openstack, *command)
        while not dst.backup_ids() & set(ids):
            assert not done.done(), done.result()
        dst.service('cinder-api', end)
        time.sleep(3)
        dst.service('cinder-api', 'start')
    told = done.result().stderr.decode()
    assert set(done.result().stdout.decode().split()) <= {'imported', 'already', 'there'}
    assert 'The cloud answers again.' in told
    assert {dst.rest('GET', f'/backups/{one}')['backup']['status'] for one in ids} == {'available'}


def test_a_character_that_the_database_may_not_hold(
    fields: dict[str, typing.Any], dst: shell.Cloud, resources: Resources, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / 'records'
    [backup_id] = new_records(fields, dst, resources, folder, 1, display_name='db \U0001f4be')
    refused = dst.openstack(*METADATA, 'import', folder, check=False)
    assert refused.returncode == 1
    assert 'display_name (U+1F4BE)' in refused.stderr.decode()
    assert dst.status(f'/backups/{backup_id}') == 404
    rows = dst.openstack_json(*METADATA, 'import', folder, '--wide-characters', 'replace')
    assert results(rows) == {backup_id: 'imported'}
    assert dst.rest('GET', f'/backups/{backup_id}')['backup']['name'] == 'db ?'


def test_all_projects_needs_an_admin(src_member: shell.Cloud, tmp_path: pathlib.Path) -> None:
    refused = src_member.openstack(
        *METADATA, 'export', '--all', '--all-projects', '--directory', tmp_path / 'x', check=False
    )
    assert refused.returncode == 1
    assert 'Cinder takes the caller for no admin' in refused.stderr.decode()


def test_a_token_of_no_project(
    fields: dict[str, typing.Any], dst: shell.Cloud, resources: Resources, tmp_path: pathlib.Path
) -> None:
    if dst.sandbox is None:
        pytest.skip('nobody gets another role in a cloud of yours')
    folder = tmp_path / 'records'
    new_records(fields, dst, resources, folder, 1)
    auth = {k: v for k, v in dst.config['auth'].items() if not k.startswith('project')}
    role = ('--system', 'all', '--user', auth['username'], 'admin')
    dst.openstack('role', 'add', *role)
    resources.callback(dst.openstack, 'role', 'remove', *role)
    cloud = changed(dst, tmp_path, auth={**auth, 'system_scope': 'all'})
    refused = cloud.openstack(*METADATA, 'import', folder, '--dry-run', check=False)
    assert refused.returncode == 1
    assert 'The token belongs to the system, and to no project' in refused.stderr.decode()
