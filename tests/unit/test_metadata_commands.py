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

"""The three commands, from their arguments to their columns; the cloud is a fake."""

import argparse
import io
import json
import logging
import pathlib
import types
import typing

import pytest
from osc_lib import exceptions

from osc_backup_port import errors
from osc_backup_port.formats import record_file
from osc_backup_port.osc import cloud, failures, metadata
from tests.unit import records
from tests.unit.fake_cinder import FakeCinder, make_chain


class FakeApp:
    """What a command uses of the shell."""

    LOG = logging.getLogger('test')

    def __init__(self, **config: str) -> None:
        self.stdout = io.StringIO()
        self.client_manager = object()
        self.cloud = types.SimpleNamespace(config=config)
        self.authenticated = 0

    def prepare_to_run_command(self, command: object) -> None:
        self.authenticated += 1


@pytest.fixture
def cinder(monkeypatch: pytest.MonkeyPatch) -> FakeCinder:
    fake = FakeCinder()

    def connect(command: cloud.CloudCommand) -> FakeCinder:
        command.authenticate()
        return fake

    monkeypatch.setattr(cloud.CloudCommand, 'cinder', connect)
    return fake


def run(command_class: typing.Any, *arguments: object, app: FakeApp | None = None) -> typing.Any:
    """Run a command with ``-f json``, and return what it prints, decoded."""
    app = app or FakeApp()
    command = command_class(app, argparse.Namespace())
    parser = command.get_parser('test')
    command.run(parser.parse_args([*map(str, arguments), '-f', 'json']))
    text = app.stdout.getvalue()
    return json.loads(text) if text else None


def failing(command_class: typing.Any, *arguments: object) -> tuple[typing.Any, str]:
    """Return what a command that fails prints before, and the error."""
    app = FakeApp()
    with pytest.raises(exceptions.CommandError) as caught:
        run(command_class, *arguments, app=app)
    text = app.stdout.getvalue()
    return json.loads(text) if text else None, str(caught.value)


def write(path: pathlib.Path, **changes: typing.Any) -> pathlib.Path:
    path.write_text(record_file.write_record(records.make_record(**changes)))
    return path


def test_export_to_stdout(cinder: FakeCinder, capsysbinary: typing.Any) -> None:
    item = records.make_record(display_name='größer')
    cinder.add(item)
    assert run(metadata.ExportBackupMetadata, records.ID) is None
    assert capsysbinary.readouterr().out == record_file.write_record(item).encode()


def test_export_to_directory(cinder: FakeCinder, tmp_path: pathlib.Path) -> None:
    cinder.add(records.make_record())
    rows = run(metadata.ExportBackupMetadata, '--all', '--directory', tmp_path)
    path = tmp_path / f'{records.ID}.json'
    assert rows == [
        {
            'ID': records.ID,
            'Name': 'nightly',
            'Volume ID': records.VOLUME_ID,
            'Size': 1,
            'Result': 'written',
            'File': str(path),
        }
    ]
    assert path.exists()


def test_export_prints_what_it_did_and_then_fails(
    cinder: FakeCinder, tmp_path: pathlib.Path
) -> None:
    cinder.add(records.make_record())
    rows, error = failing(
        metadata.ExportBackupMetadata, records.ID, 'a', 'b', '--directory', tmp_path
    )
    assert [row['Result'] for row in rows] == ['written']
    assert error.startswith('2 of 3 backups could not be exported:\n')


def test_export_needs_to_know_what() -> None:
    _, error = failing(metadata.ExportBackupMetadata)
    assert 'Which backups?' in error


def test_import(cinder: FakeCinder, tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / 'x.json')
    rows = run(metadata.ImportBackupMetadata, path, app=FakeApp(backup_ceph_pool='cinder.backups'))
    assert [(row['ID'], row['Result'], row['File']) for row in rows] == [
        (records.ID, 'imported', str(path))
    ]
    assert cinder.get(records.ID).container == 'cinder.backups'


def test_import_into_the_pool_that_is_named(cinder: FakeCinder, tmp_path: pathlib.Path) -> None:
    app = FakeApp(backup_ceph_pool='cinder.backups')
    path = write(tmp_path / 'x.json')
    run(metadata.ImportBackupMetadata, path, '--ceph-pool', 'mine', app=app)
    assert cinder.get(records.ID).container == 'mine'


def test_import_dry_run(cinder: FakeCinder, tmp_path: pathlib.Path) -> None:
    rows = run(metadata.ImportBackupMetadata, write(tmp_path / 'x.json'), '--dry-run')
    assert rows[0]['Result'] == 'to be imported'
    assert cinder.calls == []


def test_import_of_a_bad_file_imports_nothing(cinder: FakeCinder, tmp_path: pathlib.Path) -> None:
    (tmp_path / 'bad').write_text('?')
    rows, error = failing(
        metadata.ImportBackupMetadata, write(tmp_path / 'x.json'), tmp_path / 'bad'
    )
    assert rows is None
    assert 'bad' in error
    assert cinder.calls == []


def test_import_prints_what_it_did_and_then_fails(
    cinder: FakeCinder, tmp_path: pathlib.Path
) -> None:
    chain = make_chain(2)
    cinder.leave_placeholder(records.ID)
    path = tmp_path / 'chain.json'
    path.write_text(''.join(map(record_file.write_record, chain)))
    rows, error = failing(metadata.ImportBackupMetadata, write(tmp_path / 'x.json'), path)
    assert [row['Result'] for row in rows] == ['failed', 'imported', 'imported']
    assert error.startswith('1 of 3 backups could not be imported:\n')


def test_what_many_share_is_told_once() -> None:
    ids = [f'id-{number}' for number in range(30)]
    many = [(name, errors.CinderError(f'{name} is bad', 'do this')) for name in ids]
    other = errors.CinderError('nix is not there', 'do this')
    lines = str(failures.some_failed(99, [*many, (None, other)], 'imported')).splitlines()
    assert lines[0] == '31 of 99 backups could not be imported:'
    assert lines[1] == 'id-0 is bad'
    assert lines[2].startswith('The same for 29 more: id-1, id-2')
    assert lines[2].endswith('id-10, ...')
    assert lines[3:] == ['do this', 'nix is not there']


@pytest.mark.parametrize('seconds', ['-1', 'nan', 'inf', 'x'])
def test_timeout(seconds: str) -> None:
    with pytest.raises(SystemExit):
        run(metadata.ImportBackupMetadata, 'x', '--timeout', seconds)


def test_show_file_needs_no_cloud(tmp_path: pathlib.Path) -> None:
    app = FakeApp()
    path = write(tmp_path / 'x.json')
    shown = run(metadata.ShowBackupMetadata, path, '--raw', app=app)
    item = records.make_record()
    assert shown == {'backup_service': item.backup_service, 'backup_url': item.backup_url}
    assert app.authenticated == 0


def test_show_decoded(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / 'x.json', metadata={'a': 'b'}, unknown=[1])
    shown = run(metadata.ShowBackupMetadata, path)
    assert shown == records.make_fields(metadata={'a': 'b'}, unknown=[1])
    # Scripts that asked for it go on as before.
    assert run(metadata.ShowBackupMetadata, path, '--decode') == shown


@pytest.mark.parametrize('form', ['json', 'yaml', 'shell'])
def test_what_show_prints_can_be_read(tmp_path: pathlib.Path, form: str) -> None:
    path = write(tmp_path / 'x.json', metadata={'a': 'b'}, display_name='on: "x"')
    for options in (['--raw'], [] if form != 'shell' else ['--raw']):
        app = FakeApp()
        command = metadata.ShowBackupMetadata(app, argparse.Namespace())  # type: ignore[arg-type]
        command.run(command.get_parser('test').parse_args([str(path), '-f', form, *options]))
        (item,) = record_file.read_records(app.stdout.getvalue(), 'x')
        assert item == records.make_record(metadata={'a': 'b'}, display_name='on: "x"')


def test_show_backup(cinder: FakeCinder) -> None:
    cinder.add(records.make_record())
    app = FakeApp()
    shown = run(metadata.ShowBackupMetadata, records.ID, app=app)
    assert shown['id'] == records.ID
    assert app.authenticated == 1


def test_show_warns(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    run(metadata.ShowBackupMetadata, write(tmp_path / 'x.json', deleted=True))
    assert 'was deleted' in caplog.text


def test_show_file_with_several(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x.json'
    path.write_text(''.join(map(record_file.write_record, make_chain(2))))
    _, error = failing(metadata.ShowBackupMetadata, path)
    assert 'holds 2 records' in error


@pytest.mark.usefixtures('cinder')
def test_show_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    _, error = failing(metadata.ShowBackupMetadata, tmp_path / 'x.json')
    assert 'No such file, and no backup has that name' in error


def test_show_backup_with_a_slash_in_its_name(cinder: FakeCinder) -> None:
    cinder.add(records.make_record(display_name='db/nightly'))
    assert run(metadata.ShowBackupMetadata, 'db/nightly')['id'] == records.ID
