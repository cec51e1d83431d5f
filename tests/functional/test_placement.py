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
import datetime
import json
import pathlib
import typing
import uuid

import pytest
import yaml

from osc_backup_port.formats import record_file
from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources
from tests.unit import records

BACKUP = chains.BACKUP
SWIFT = 'cinder.backup.drivers.swift.SwiftBackupDriver'
POSIX = 'cinder.backup.drivers.posix.PosixBackupDriver'

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


def failing(command: Command, **options: typing.Any) -> str:
    """Run a command that has to fail with exit code 1, and return its stderr."""
    cloud, arguments = command
    process = cloud.openstack(*arguments, check=False, **options)
    error = process.stderr.decode()
    assert process.returncode == 1, error
    assert 'Traceback' not in error
    return error


def restored_by(member: shell.Cloud, admin: shell.Cloud, resources: Resources, backup: str) -> str:
    """Let a member restore a backup into a new volume, and return the checksum of that."""
    answer = member.rest('POST', f'/backups/{backup}/restore', {'restore': {}})
    volume_id = answer['restore']['volume_id']
    resources.forget_volume(member, volume_id)
    member.wait(f'/backups/{backup}')
    member.wait(f'/volumes/{volume_id}')
    return ceph.volume_pool(admin).checksum(f'volume-{volume_id}')


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

    assert restored_by(dst_member, dst, resources, newest) == filled.sums[2]

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
    told = next(line for line in error.splitlines() if ' role add ' in line)
    dst.openstack(*told[told.index('role add') :].split())
    for cloud, command in commands:
        cloud.openstack(*command, '--project-map', chosen)
    for backup in reversed(filled.backups):
        shown = dst.rest('GET', f'/backups/{backup}')['backup']
        assert shown['os-backup-project-attr:project_id'] not in (owner, dst.project_id)
        chains.delete_backup(dst, backup)


@pytest.mark.long
def test_a_member_owns_what_a_map_gives_it(
    src: shell.Cloud,
    dst: shell.Cloud,
    dst_member: shell.Cloud,
    resources: Resources,
    filled: chains.Chain,
    commands: list[Command],
    tmp_path: pathlib.Path,
) -> None:
    """By the ID of the project that they had, and for migrate by its name."""
    chosen = tmp_path / 'map.yaml'
    shown = src.openstack_json('project', 'show', src.project_id)
    for (cloud, command), key in ((commands[0], src.project_id), (commands[3], shown['name'])):
        chosen.write_text(json.dumps({key: dst_member.project_id}))
        cloud.openstack(*command, '--project-map', chosen)
        chains.forget(dst, resources, filled)
        own = {row['ID'] for row in dst_member.openstack_json(*BACKUP, 'list')}
        assert own >= set(filled.backups)
        for backup, expected in zip(filled.backups, filled.sums, strict=True):
            assert restored_by(dst_member, dst, resources, backup) == expected
        for backup in reversed(filled.backups):
            chains.delete_backup(dst_member, backup)


def leave_room(cloud: shell.Cloud, resources: Resources, **room: int) -> None:
    """Let the quota of the project have room for just so much."""
    path = f'/os-quota-sets/{cloud.project_id}'
    old = cloud.rest('GET', f'{path}?usage=True')['quota_set']
    limits = {name: old[name]['limit'] for name in room}
    resources.callback(cloud.rest, 'PUT', path, {'quota_set': limits})
    # What a service that was killed has reserved is reserved for a day.
    tight = {
        name: old[name]['in_use'] + old[name]['reserved'] + more for name, more in room.items()
    }
    cloud.rest('PUT', path, {'quota_set': tight})


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
    leave_room(dst, resources, **limit)
    for command in commands:
        error = failing(command)
        assert told in error
        assert ' quota set --backups ' in error


@pytest.mark.long
@pytest.mark.usefixtures('unchanged')
def test_quota_of_what_comes_in_a_stream(
    dst: shell.Cloud, resources: Resources, filled: chains.Chain
) -> None:
    """The third of three is refused, when the first two are in the pool already."""
    create = (*BACKUP, 'archive', 'create', '-', filled.backups[2])
    stream = filled.cloud.openstack(*create).stdout
    leave_room(dst, resources, backups=2)
    error = failing((dst, (*BACKUP, 'archive', 'import', '-')), stdin=stream)
    assert '2 more backups, expected 3' in error


@pytest.mark.usefixtures('unchanged')
@pytest.mark.parametrize('number', [0, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 3))])
def test_rights(
    dst: shell.Cloud,
    dst_member: shell.Cloud,
    commands: list[Command],
    number: int,
    tmp_path: pathlib.Path,
) -> None:
    """A plain member, who may reach the cluster, imports nothing."""
    whole = yaml.safe_load(pathlib.Path(dst.environment['OS_CLIENT_CONFIG_FILE']).read_text())
    ceph_keys = {key: dst.config[f'backup_ceph_{key}'] for key in ('conf', 'user', 'pool')}
    whole['clouds'][dst_member.name].update(
        {f'backup_ceph_{key}': value for key, value in ceph_keys.items()}
    )
    config = tmp_path / 'clouds.yaml'
    config.write_text(yaml.safe_dump(whole))
    cloud, command = commands[number]
    command = tuple(dst_member.name if word == dst.name else word for word in command)
    error = failing(
        (dst_member if cloud is dst else cloud, command),
        environment={'OS_CLIENT_CONFIG_FILE': str(config)},
    )
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
        assert 'volume service list --service cinder-backup' in error


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


@pytest.fixture
def posix_service(dst: shell.Cloud, resources: Resources) -> None:
    """Let cinder-backup of dst have another driver for a while."""
    if dst.sandbox is None:
        pytest.skip('needs a cloud whose services may be stopped')
    config = pathlib.Path(dst.config['backup_ceph_conf']).parents[2] / 'cinder' / 'cinder.conf'
    old = config.read_text()

    def restart(text: str) -> None:
        dst.service('cinder-backup', 'stop')
        config.write_text(text)
        dst.wait_for_backup_service('down')
        dst.service('cinder-backup', 'start')
        dst.wait_for_backup_service('up')

    resources.callback(restart, old)
    restart(old.replace(f'backup_driver = {records.CEPH}', f'backup_driver = {POSIX}'))


@pytest.mark.long
@pytest.mark.usefixtures('posix_service', 'unchanged')
def test_a_service_with_another_driver(
    dst: shell.Cloud, resources: Resources, commands: list[Command], tmp_path: pathlib.Path
) -> None:
    """A backup that this service made, or took, tells its driver."""
    backup_id = str(uuid.uuid4())
    path = tmp_path / 'posix.json'
    now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
    item = records.make_record(
        POSIX,
        id=backup_id,
        service=POSIX,
        service_metadata=None,
        container='/nowhere',
        created_at=now,
    )
    path.write_text(record_file.write_record(item))
    resources.forget_backup(dst, backup_id)
    dst.openstack(*BACKUP, 'metadata', 'import', path)
    for command in commands:
        error = failing(command)
        assert f'the newest backup of this cloud by {POSIX}' in error
    chains.delete_backup(dst, backup_id)
