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

"""Whose the imported backups are, and what keeps an import from beginning."""

import base64
import collections.abc
import json
import pathlib
import uuid

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

BACKUP = chains.BACKUP
SWIFT = 'cinder.backup.drivers.swift.SwiftBackupDriver'

Command = tuple[shell.Cloud, tuple[object, ...]]


@pytest.fixture(scope='module')
def archive(filled: chains.Chain, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp('placement') / 'archive'
    filled.cloud.openstack(*BACKUP, 'archive', 'create', root, filled.backups[2])
    return root


@pytest.fixture
def commands(
    src: shell.Cloud, dst: shell.Cloud, filled: chains.Chain, archive: pathlib.Path
) -> list[Command]:
    """What would bring three backups into dst, each in its way."""
    return [
        (dst, (*BACKUP, 'archive', 'import', archive)),
        (dst, (*BACKUP, 'archive', 'import', archive, '--dry-run')),
        (dst, (*BACKUP, 'metadata', 'import', *sorted(archive.glob('*/*/record.json')))),
        (src, (*BACKUP, 'migrate', filled.backups[2], '--to-cloud', dst.name)),
    ]


@pytest.fixture
def unchanged(dst: shell.Cloud, pool: ceph.Pool) -> collections.abc.Iterator[None]:
    """Neither Cinder nor Ceph may have anything after the test that it had not before."""
    before = dst.backup_ids()
    with pool.unchanged():
        yield
    assert dst.backup_ids() == before


def failing(command: Command) -> str:
    """Run a command that has to fail with exit code 1, and return its stderr."""
    cloud, arguments = command
    process = cloud.openstack(*arguments, check=False)
    error = process.stderr.decode()
    assert process.returncode == 1, error
    assert 'Traceback' not in error
    return error


def test_a_member_owns_what_an_admin_imports(
    dst: shell.Cloud,
    dst_member: shell.Cloud,
    resources: Resources,
    filled: chains.Chain,
    archive: pathlib.Path,
) -> None:
    chains.forget(dst, resources, filled)
    newest = filled.backups[2]
    options = ('--project', dst_member.project_id, '--name-prefix', 'from-src-')
    dst.openstack(*BACKUP, 'archive', 'import', archive, newest, *options)
    names = {row['ID']: row['Name'] for row in dst_member.openstack_json(*BACKUP, 'list')}
    assert all(names[backup].startswith('from-src-') for backup in filled.backups)

    answer = dst_member.rest('POST', f'/backups/{newest}/restore', {'restore': {}})
    volume_id = answer['restore']['volume_id']
    resources.forget_volume(dst_member, volume_id)
    dst_member.wait(f'/volumes/{volume_id}')
    assert ceph.volume_pool(dst).sha256(f'volume-{volume_id}') == filled.sums[2]

    again = dst.openstack_json(*BACKUP, 'archive', 'import', archive, *options)
    assert {(row['Image'], row['Record']) for row in again} == {('already there',) * 2}
    assert 'expected' in failing(
        (dst, (*BACKUP, 'archive', 'import', archive, '--project', 'admin'))
    )


@pytest.mark.long
def test_by_a_map_and_where_there_is_no_role(
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
    commands: list[Command],
    tmp_path: pathlib.Path,
) -> None:
    chains.forget(dst, resources, filled)
    project = f'port-test-{uuid.uuid4()}'
    dst.openstack('project', 'create', project)
    resources.callback(dst.openstack, 'project', 'delete', project)
    owner = filled.cloud.project_id
    chosen = tmp_path / 'map.yaml'
    chosen.write_text(f'"{owner}": {project}\n')
    with pool.unchanged():
        for cloud, command in commands:
            assert owner in failing((cloud, (*command, '--keep-projects')))
            error = failing((cloud, (*command, '--project-map', chosen)))
            assert 'you have no role there' in error
    # Do as the error says.
    told = next(line for line in error.splitlines() if 'openstack role add' in line)
    dst.openstack(*told[told.index('role add') :].split())
    for cloud, command in commands:
        cloud.openstack(*command, '--project-map', chosen)
    for backup in reversed(filled.backups):
        shown = dst.rest('GET', f'/backups/{backup}')['backup']
        assert shown['os-backup-project-attr:project_id'] not in (owner, dst.project_id)
        chains.delete_backup(dst, backup)


@pytest.mark.usefixtures('unchanged')
@pytest.mark.parametrize(
    ('limit', 'told'),
    [
        ({'backups': 2}, '2 more backups, expected 3'),
        pytest.param({'backup_gigabytes': 2}, '2 GiB more', marks=pytest.mark.long),
    ],
)
def test_quota(
    dst: shell.Cloud,
    resources: Resources,
    commands: list[Command],
    limit: dict[str, int],
    told: str,
) -> None:
    [(name, room)] = limit.items()
    path = f'/os-quota-sets/{dst.project_id}'
    old = dst.rest('GET', f'{path}?usage=True')['quota_set'][name]
    resources.callback(dst.rest, 'PUT', path, {'quota_set': {name: old['limit']}})
    dst.rest('PUT', path, {'quota_set': {name: old['in_use'] + room}})
    for command in commands:
        error = failing(command)
        assert told in error
        assert 'openstack quota set' in error


@pytest.mark.usefixtures('unchanged')
def test_rights(dst: shell.Cloud, dst_member: shell.Cloud, commands: list[Command]) -> None:
    where: list[object] = []
    for key in ('conf', 'user', 'pool'):
        where += [f'--ceph-{key}', dst.config[f'backup_ceph_{key}']]
    error = failing((dst_member, (*commands[0][1], *where)))
    assert 'HTTP 403' in error
    assert 'backup:backup-import' in error


@pytest.mark.long
@pytest.mark.usefixtures('unchanged')
def test_a_service_that_is_down(
    dst: shell.Cloud, resources: Resources, commands: list[Command]
) -> None:
    if dst.sandbox is None:
        pytest.skip('needs a cloud whose services may be stopped')
    resources.callback(dst.wait_for_backup_service, 'up')
    resources.callback(dst.service, 'cinder-backup', 'start')
    dst.service('cinder-backup', 'stop')
    dst.wait_for_backup_service('down')
    for command in commands:
        error = failing(command)
        assert 'HTTP 503' in error
        assert 'openstack volume service list' in error


@pytest.mark.long
def test_another_driver(
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    archive: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    # Nothing but a backup that is there tells which driver the service has.
    resources.backup(dst, resources.volume(dst))
    before = dst.backup_ids()
    files = []
    for number, path in enumerate(archive.glob('*/*/record.json')):
        written = json.loads(path.read_text())
        fields = {**json.loads(base64.b64decode(written['backup_url'])), 'service': SWIFT}
        url = base64.b64encode(json.dumps(fields).encode()).decode()
        files.append(tmp_path / f'{number}.json')
        files[-1].write_text(json.dumps({'backup_service': SWIFT, 'backup_url': url}))
    with pool.unchanged():
        error = failing((dst, (*BACKUP, 'metadata', 'import', *files)))
    assert SWIFT in error
    assert 'CephBackupDriver' in error
    assert dst.backup_ids() == before
