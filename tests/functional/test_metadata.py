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

"""``metadata export``, ``import`` and ``show`` through the real shell, on real clouds."""

import base64
import collections.abc
import concurrent.futures
import json
import pathlib
import shutil
import stat
import subprocess
import sys
import time
import typing
import uuid

import pytest

from tests.functional import ceph, shell
from tests.functional.conftest import Resources

METADATA = ('volume', 'backup', 'metadata')

#: Of the Ceph driver; a record of another one goes to no service of the sandbox.
CEPH = 'cinder.backup.drivers.ceph.CephBackupDriver'

# How openstack shows a record, besides json and table.
OTHER_FORMS = ('yaml', 'shell', 'value')


def encode(fields: object) -> str:
    return base64.b64encode(json.dumps(fields).encode()).decode()


def export_fields(cloud: shell.Cloud, backup_id: str) -> dict[str, typing.Any]:
    """Return the decoded record, taken past the commands under test."""
    answer = cloud.rest('GET', f'/backups/{backup_id}/export_record')
    return dict(json.loads(base64.b64decode(answer['backup-record']['backup_url'])))


def import_behind(cloud: shell.Cloud, fields: object, service: str = CEPH) -> None:
    """Import past the commands under test, whatever it is."""
    record = {'backup_service': service, 'backup_url': encode(fields)}
    cloud.rest('POST', '/backups/import_record', {'backup-record': record})


def settled(cloud: shell.Cloud, backup_id: str) -> dict[str, typing.Any]:
    for _ in range(200):
        shown = cloud.rest('GET', f'/backups/{backup_id}')['backup']
        if shown['status'] in ('available', 'error'):
            return dict(shown)
        time.sleep(0.1)
    raise AssertionError(f'{backup_id} is still {shown["status"]}')


def failing(cloud: shell.Cloud, *arguments: object) -> str:
    """Run a command that has to fail with exit code 1, and return its stderr."""
    process = cloud.openstack(*METADATA, *arguments, check=False)
    error = process.stderr.decode()
    assert process.returncode == 1, error
    assert 'Traceback' not in error
    return error


def results(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row['ID']: row['Result'] for row in rows}


@pytest.fixture(scope='module')
def fields(src: shell.Cloud, chain: list[str]) -> dict[str, typing.Any]:
    """The decoded record of a full backup on src."""
    return export_fields(src, chain[0])


@pytest.fixture
def new_fields(
    fields: dict[str, typing.Any], dst: shell.Cloud, resources: Resources
) -> dict[str, typing.Any]:
    """The record of a backup whose id no cloud has seen; it has no data."""
    backup_id = str(uuid.uuid4())
    resources.forget_backup(dst, backup_id)
    return {**fields, 'id': backup_id, 'num_dependent_backups': 0}


@pytest.fixture
def record_file(new_fields: dict[str, typing.Any], tmp_path: pathlib.Path) -> pathlib.Path:
    return write_record(tmp_path, new_fields)


def write_record(
    folder: pathlib.Path, fields: dict[str, typing.Any], service: object = CEPH
) -> pathlib.Path:
    path = folder / f'{uuid.uuid4()}.json'
    path.write_text(json.dumps({'backup_service': service, 'backup_url': encode(fields)}))
    return path


class TestExport:
    def test_one_to_stdout_is_a_file(self, src: shell.Cloud, chain: list[str]) -> None:
        process = src.openstack(*METADATA, 'export', chain[1])
        written = json.loads(process.stdout)
        assert list(written) == ['backup_service', 'backup_url', 'backup']
        assert written['backup_service'] == CEPH
        assert written['backup'] == json.loads(base64.b64decode(written['backup_url']))
        assert written['backup']['parent_id'] == chain[0]

    def test_one_by_name_to_file(
        self, src: shell.Cloud, chain: list[str], tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'record.json'
        name = src.rest('GET', f'/backups/{chain[0]}')['backup']['name']
        rows = src.openstack_json(*METADATA, 'export', name, '--file', path)
        assert results(rows) == {chain[0]: 'written'}
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text())['backup']['id'] == chain[0]
        assert [item.name for item in tmp_path.iterdir()] == ['record.json']

    def test_all_of_a_volume_twice(
        self,
        src: shell.Cloud,
        chain: list[str],
        fields: dict[str, typing.Any],
        tmp_path: pathlib.Path,
    ) -> None:
        arguments = (*METADATA, 'export', '--volume', fields['volume_id'], '--directory', tmp_path)
        rows = src.openstack_json(*arguments)
        # Not in the order of the chain: Cinder tells the second of a backup, no more.
        assert results(rows) == dict.fromkeys(chain, 'written')
        assert {item.stem for item in tmp_path.iterdir()} == set(chain)
        # Although Cinder moves updated_at with every export.
        assert {row['Result'] for row in src.openstack_json(*arguments)} == {'unchanged'}

    def test_all(self, src: shell.Cloud, chain: list[str], tmp_path: pathlib.Path) -> None:
        rows = src.openstack_json(*METADATA, 'export', '--all', '--directory', tmp_path / 'new')
        assert set(chain) <= {row['ID'] for row in rows}
        assert stat.S_IMODE((tmp_path / 'new').stat().st_mode) == 0o700

    def test_bad_one_stops_no_other(
        self, src: shell.Cloud, chain: list[str], tmp_path: pathlib.Path
    ) -> None:
        arguments = ('export', chain[0], 'no-such-backup', chain[2], '--directory', tmp_path)
        error = failing(src, *arguments)
        assert "no backup with the name or id 'no-such-backup'" in error
        assert {item.stem for item in tmp_path.iterdir()} == {chain[0], chain[2]}

    def test_file_of_somebody_else_is_kept(
        self, src: shell.Cloud, chain: list[str], tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'notes.txt'
        path.write_text('mine')
        assert 'is not a record of backup' in failing(src, 'export', chain[0], '--file', path)
        assert path.read_text() == 'mine'

    def test_device_is_written_to(self, src: shell.Cloud, chain: list[str]) -> None:
        src.openstack(*METADATA, 'export', chain[0], '--file', '/dev/null')
        assert stat.S_ISCHR(pathlib.Path('/dev/null').stat().st_mode)

    def test_member(self, src_member: shell.Cloud, resources: Resources) -> None:
        volume_id = resources.volume(src_member)
        backup_id = resources.backup(src_member, volume_id)
        error = failing(src_member, 'export', backup_id)
        assert 'HTTP 403' in error
        assert 'admin role' in error
        assert 'backup:export-import' in error


class TestShow:
    def test_backup(self, src: shell.Cloud, chain: list[str]) -> None:
        shown = src.openstack_json(*METADATA, 'show', chain[0], '--raw')
        assert list(shown) == ['backup_service', 'backup_url']
        decoded = src.openstack_json(*METADATA, 'show', chain[0])
        assert decoded['id'] == chain[0]
        assert decoded['metadata'] == {}

    @pytest.mark.parametrize(
        'form',
        ['json', 'table', *(pytest.param(form, marks=pytest.mark.long) for form in OTHER_FORMS)],
    )
    def test_what_openstack_exports(
        self, src: shell.Cloud, chain: list[str], tmp_path: pathlib.Path, form: str
    ) -> None:
        path = tmp_path / 'record'
        command = ('volume', 'backup', 'record', 'export', chain[1], '-f', form)
        width = ('--max-width', '80') if form == 'table' else ()
        path.write_bytes(src.openstack(*command, *width).stdout)
        shown = src.openstack(*METADATA, 'show', path, '-f', 'value', '-c', 'id')
        assert shown.stdout.decode().strip() == chain[1]

    def test_what_cinder_exports(
        self, src: shell.Cloud, chain: list[str], tmp_path: pathlib.Path
    ) -> None:
        cinder = shutil.which('cinder', path=str(pathlib.Path(sys.executable).parent))
        if cinder is None:
            pytest.skip('there is no cinder command beside this interpreter')
        auth = src.config['auth']
        environment = {
            **src.environment,
            **{f'OS_{key.upper()}': str(value) for key, value in auth.items()},
            'OS_IDENTITY_API_VERSION': '3',
        }
        command = [cinder, 'backup-export', chain[2]]
        table = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        path = tmp_path / 'record'
        path.write_bytes(table.stdout)
        assert src.openstack_json(*METADATA, 'show', path)['id'] == chain[2]
        # The two lines that the procedure of StarlingX reads.
        lines = [line for line in table.stdout.splitlines() if b'backup_' in line]
        path.write_bytes(b'\n'.join(lines))
        assert src.openstack_json(*METADATA, 'show', path)['id'] == chain[2]

    def test_file_needs_no_cloud(
        self, src: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        command = [sys.executable, '-m', 'openstackclient.shell']
        process = subprocess.run(
            [*command, *METADATA, 'show', record_file, '-f', 'json'],
            env={'PATH': '/usr/bin:/bin', 'HOME': '/nonexistent', 'PYTHONPATH': str(shell.ROOT)},
            capture_output=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr.decode()
        assert json.loads(process.stdout) == new_fields


class TestImport:
    def test_chain_in_any_order(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        chain: list[str],
        resources: Resources,
        tmp_path: pathlib.Path,
    ) -> None:
        src.openstack(*METADATA, 'export', *chain, '--directory', tmp_path)
        for backup_id in chain:
            resources.forget_backup(dst, backup_id)
        files = [tmp_path / f'{chain[number]}.json' for number in (2, 0, 1)]
        rows = dst.openstack_json(*METADATA, 'import', *files)
        assert [(row['ID'], row['Result']) for row in rows] == [
            (backup_id, 'imported') for backup_id in chain
        ]
        shown = [dst.rest('GET', f'/backups/{backup_id}')['backup'] for backup_id in chain]
        assert {item['status'] for item in shown} == {'available'}
        pool = dst.config.get('backup_ceph_pool')
        if pool:
            assert {item['container'] for item in shown} == {pool}
        # Once more: nothing is done, and that is a success.
        rows = dst.openstack_json(*METADATA, 'import', tmp_path)
        assert set(results(rows).values()) == {'already there'}
        again = [dst.rest('GET', f'/backups/{backup_id}')['backup'] for backup_id in chain]
        assert again == shown

    def test_dry_run(
        self, dst: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        rows = dst.openstack_json(*METADATA, 'import', record_file, '--dry-run')
        assert results(rows) == {new_fields['id']: 'to be imported'}
        assert new_fields['id'] not in dst.backup_ids()

    def test_other_pool(
        self, dst: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        dst.openstack(*METADATA, 'import', record_file, '--ceph-pool', 'elsewhere')
        shown = dst.rest('GET', f'/backups/{new_fields["id"]}')['backup']
        assert shown['container'] == 'elsewhere'
        error = failing(dst, 'import', record_file, '--ceph-pool', 'backups')
        assert "the pool 'elsewhere', expected 'backups'" in error

    def test_from_stdin_without_waiting(
        self, dst: shell.Cloud, new_fields: dict[str, typing.Any]
    ) -> None:
        data = encode(new_fields).encode()
        rows = dst.openstack_json(*METADATA, 'import', '-', '--no-wait', stdin=data)
        assert results(rows) == {new_fields['id']: 'importing'}
        assert settled(dst, new_fields['id'])['status'] == 'available'

    def test_two_at_the_same_time(
        self, dst: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            futures = [
                pool.submit(dst.openstack_json, *METADATA, 'import', record_file) for _ in range(3)
            ]
            found = [results(future.result())[new_fields['id']] for future in futures]
        # Cinder loses the record of two that collide; then each imports it once more.
        assert 'imported' in found
        assert set(found) <= {'already there', 'imported'}
        assert settled(dst, new_fields['id'])['status'] == 'available'

    def test_another_backup_with_this_id(
        self, dst: shell.Cloud, new_fields: dict[str, typing.Any], tmp_path: pathlib.Path
    ) -> None:
        dst.openstack(*METADATA, 'import', write_record(tmp_path, new_fields))
        other = write_record(tmp_path, {**new_fields, 'size': 2})
        assert 'another backup has this id here' in failing(dst, 'import', other)

    def test_member(
        self,
        dst: shell.Cloud,
        dst_member: shell.Cloud,
        record_file: pathlib.Path,
        new_fields: dict[str, typing.Any],
    ) -> None:
        error = failing(dst_member, 'import', record_file)
        assert 'backup:backup-import' in error
        assert new_fields['id'] not in dst.backup_ids()


def _bad_records() -> collections.abc.Iterator[
    tuple[object, collections.abc.Callable[[dict[str, object]], str]]
]:
    """Yield a driver and what makes a record, for all that Cinder refuses, or should not take."""

    def changed(**changes: object) -> collections.abc.Callable[[dict[str, object]], str]:
        return lambda fields: encode({**fields, **changes})

    def without(name: str) -> collections.abc.Callable[[dict[str, object]], str]:
        return lambda fields: encode({k: v for k, v in fields.items() if k != name})

    makers = {
        'empty': lambda fields: '',
        'wrong length': lambda fields: encode(fields)[:-3],
        'not base64': lambda fields: '$$$$' + encode(fields),
        'not UTF-8': lambda fields: base64.b64encode(b'\xff\xfe{}').decode(),
        'not JSON': lambda fields: base64.b64encode(b'{not json}').decode(),
        'a list': lambda fields: encode([fields]),
        'a string': lambda fields: encode('text'),
        'id null': changed(id=None),
        'id no UUID': changed(id='backup-1'),
        'size null': changed(size=None),
        'size a text': changed(size='one'),
        'size 0': changed(size=0),
        'size -5': changed(size=-5),
        'volume_id no UUID': changed(volume_id='v'),
        'service_metadata not JSON': changed(service_metadata='{base'),
        'service_metadata without base': changed(service_metadata='{}'),
        # These three stay `creating` for good; nothing in Cinder checks them.
        'time that is none': changed(data_timestamp='yesterday'),
        'name too long': changed(display_name='x' * 256),
        'metadata a list': changed(metadata=[1]),
    }
    for name in (
        'id', 'size', 'volume_id', 'container', 'service_metadata', 'display_name',
        'display_description', 'object_count',
    ):  # fmt: skip
        makers[f'no {name}'] = without(name)
    for maker in makers.values():
        yield CEPH, maker
    for service in ('', 'c', 'cinder.backup.drivers', CEPH[:-1], 'cinder.backup.drivers.nfs', 5):
        yield service, encode


def test_bad_records_change_nothing(
    dst: shell.Cloud, new_fields: dict[str, typing.Any], tmp_path: pathlib.Path
) -> None:
    before = dst.backup_ids()
    good, bad = write_record(tmp_path, new_fields), []
    for number, (service, make) in enumerate(_bad_records()):
        url = make({**new_fields, 'id': str(uuid.uuid4())})
        bad.append(tmp_path / f'bad-{number}.json')
        bad[-1].write_text(json.dumps({'backup_service': service, 'backup_url': url}))
    error = failing(dst, 'import', good, *bad)
    assert [path.name for path in bad if path.name not in error] == []
    # Nothing of the good one either.
    assert dst.backup_ids() == before


class TestLeftovers:
    def test_failed_import_is_replaced_when_asked(
        self, dst: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        import_behind(dst, new_fields, 'no.such.Driver')
        assert settled(dst, new_fields['id'])['status'] == 'error'
        error = failing(dst, 'import', record_file)
        assert 'cannot find backup service' in error
        assert '--replace-failed' in error
        rows = dst.openstack_json(*METADATA, 'import', record_file, '--replace-failed')
        assert results(rows) == {new_fields['id']: 'replaced'}
        assert settled(dst, new_fields['id'])['status'] == 'available'

    def test_row_of_a_deleted_backup_is_not_touched(
        self,
        dst: shell.Cloud,
        record_file: pathlib.Path,
        new_fields: dict[str, typing.Any],
    ) -> None:
        path = f'/backups/{new_fields["id"]}'
        dst.openstack(*METADATA, 'import', record_file)
        dst.rest('DELETE', path)
        dst.wait(path, None)
        import_behind(dst, new_fields, 'no.such.Driver')
        before = settled(dst, new_fields['id'])
        error = failing(dst, 'import', record_file, '--replace-failed')
        assert 'it was not touched' in error
        assert ' rename ' in error
        assert dst.rest('GET', path)['backup'] == before
        # The way out that the message tells; there is no image here.
        dst.rest('DELETE', path)
        dst.wait(path, None)
        rows = dst.openstack_json(*METADATA, 'import', record_file)
        assert results(rows) == {new_fields['id']: 'imported'}

    def test_way_out_keeps_the_data(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        new_fields: dict[str, typing.Any],
        resources: Resources,
        tmp_path: pathlib.Path,
    ) -> None:
        backup_id, volume_id = new_fields['id'], str(uuid.uuid4())
        image, meta = f'volume-{volume_id}.backup.{backup_id}', f'backup.{backup_id}.meta'
        base = json.dumps({'base': image})
        fields = {**new_fields, 'volume_id': volume_id, 'service_metadata': base}
        record, path = write_record(tmp_path, fields), f'/backups/{backup_id}'
        resources.callback(pool.clear, volume_id, [backup_id])
        empty = pool.contents()
        dst.openstack(*METADATA, 'import', record)
        dst.rest('DELETE', path)
        dst.wait(path, None)
        import_behind(dst, fields, 'no.such.Driver')
        settled(dst, backup_id)
        pool.rbd('create', '--size', '8M', image)
        pool.rbd('snap', 'create', f'{image}@backup.{backup_id}.snap.1.0')
        (tmp_path / 'meta').write_text('{}')
        pool.rados('put', meta, tmp_path / 'meta')
        whole = pool.contents()
        error = failing(dst, 'import', record, '--replace-failed')
        assert f'-p {pool.name} rename {image} aside.{image}' in error
        assert pool.contents() == whole
        # What the message tells to do, word for word but for the way to the cluster.
        pool.rbd('rename', image, f'aside.{image}')
        dst.rest('DELETE', path)
        dst.wait(path, None)
        pool.rbd('rename', f'aside.{image}', image)
        pool.rados('put', meta, tmp_path / 'meta')
        assert pool.contents() == whole
        dst.openstack(*METADATA, 'import', record)
        # It is a backup like any other again: its deletion leaves nothing.
        dst.rest('DELETE', path)
        dst.wait(path, None)
        pool.expect(empty)

    def test_deleted_backup_comes_back(
        self, dst: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        path = f'/backups/{new_fields["id"]}'
        for _ in range(2):
            rows = dst.openstack_json(*METADATA, 'import', record_file)
            assert results(rows) == {new_fields['id']: 'imported'}
            dst.rest('DELETE', path)
            dst.wait(path, None)


class TestTrouble:
    """These change what the whole cloud does for a while: sandbox only."""

    @pytest.fixture(autouse=True)
    def _sandbox(self, dst: shell.Cloud) -> None:
        if dst.sandbox is None:
            pytest.skip('needs a cloud whose services may be stopped')

    @pytest.fixture
    def exhaust(
        self, dst: shell.Cloud, resources: Resources
    ) -> collections.abc.Callable[[str], None]:
        """Return what leaves nothing of a quota of the project, for the time of a test."""
        path = f'/os-quota-sets/{dst.project_id}'
        old = dst.rest('GET', f'{path}?usage=True')['quota_set']

        def change(name: str) -> None:
            limit, used = old[name]['limit'], old[name]['in_use'] + old[name]['reserved']
            resources.callback(dst.rest, 'PUT', path, {'quota_set': {name: limit}})
            dst.rest('PUT', path, {'quota_set': {name: used}})

        return change

    @pytest.mark.parametrize('name', ['backups', 'backup_gigabytes'])
    def test_quota(
        self,
        dst: shell.Cloud,
        record_file: pathlib.Path,
        new_fields: dict[str, typing.Any],
        exhaust: collections.abc.Callable[[str], None],
        name: str,
    ) -> None:
        exhaust(name)
        error = failing(dst, 'import', record_file)
        assert 'The quota of this project has room for 0' in error
        assert 'openstack quota set' in error
        assert new_fields['id'] not in dst.backup_ids()

    @pytest.mark.long
    def test_service_known_to_be_down(
        self,
        dst: shell.Cloud,
        record_file: pathlib.Path,
        new_fields: dict[str, typing.Any],
        resources: Resources,
    ) -> None:
        resources.callback(_start_backup_service, dst)
        dst.service('cinder-backup', 'stop')
        dst.wait_for_backup_service('down')
        error = failing(dst, 'import', record_file)
        assert 'HTTP 503' in error
        assert 'openstack volume service list' in error
        assert new_fields['id'] not in dst.backup_ids()
        _start_backup_service(dst)
        dst.openstack(*METADATA, 'import', record_file)

    def test_service_that_just_died(
        self,
        dst: shell.Cloud,
        record_file: pathlib.Path,
        new_fields: dict[str, typing.Any],
        resources: Resources,
    ) -> None:
        resources.callback(_start_backup_service, dst)
        dst.service('cinder-backup', 'kill')
        error = failing(dst, 'import', record_file, '--timeout', 2)
        assert 'is still creating after 2 s' in error
        _start_backup_service(dst)
        # The message was kept; or the service, at its start, gave up the import.
        status = settled(dst, new_fields['id'])['status']
        rows = dst.openstack_json(*METADATA, 'import', record_file, '--replace-failed')
        expected = 'already there' if status == 'available' else 'replaced'
        assert results(rows) == {new_fields['id']: expected}

    @pytest.mark.long
    def test_way_out_of_creating(
        self, dst: shell.Cloud, record_file: pathlib.Path, new_fields: dict[str, typing.Any]
    ) -> None:
        # As good as a lost message: the service fails where it tells nobody.
        import_behind(dst, {**new_fields, 'data_timestamp': 'yesterday'})
        error = failing(dst, 'import', record_file, '--timeout', 2)
        assert f'openstack volume backup set --state error {new_fields["id"]}' in error
        dst.openstack('volume', 'backup', 'set', '--state', 'error', new_fields['id'])
        dst.service('cinder-backup', 'restart')
        dst.wait_for_backup_service('up')
        assert settled(dst, new_fields['id'])['status'] == 'error'
        rows = dst.openstack_json(*METADATA, 'import', record_file, '--replace-failed')
        assert results(rows) == {new_fields['id']: 'replaced'}


def _start_backup_service(cloud: shell.Cloud) -> None:
    cloud.service('cinder-backup', 'start')
    cloud.wait_for_backup_service('up')
