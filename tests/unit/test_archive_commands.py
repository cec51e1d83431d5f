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

"""The commands of archives: arguments in, columns and exit code out, over pools in memory."""

import argparse
import contextlib
import io
import json
import logging
import pathlib
import types
import typing

import pytest
from osc_lib import exceptions

from osc_backup_port.archive import store
from osc_backup_port.ceph import cluster as ceph_cluster
from osc_backup_port.formats import record_file
from osc_backup_port.osc import archive, archive_content, base, cloud
from osc_backup_port.transfer import pacing
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder


class App:
    """What a command uses of the shell."""

    LOG = logging.getLogger('test')

    def __init__(self) -> None:
        self.stdout = io.StringIO()
        self.stderr = io.StringIO()
        self.client_manager = object()
        self.cloud = types.SimpleNamespace(config={'backup_ceph_pool': 'backups'})


class Shell:
    """Runs commands in a cloud that has a chain of three, or in one that has nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.target = fake_ceph.Cluster(), fake_ceph.Cluster(1)
        chain = chains.make_chain(self.source, 3)
        self.clouds = {'source': (archives.with_metadata(chain), self.source)}
        self.clouds['target'] = (FakeCinder(), self.target)
        self._patch = monkeypatch

    def run(
        self, where: str, command_class: typing.Any, *words: object, stdin: bytes = b''
    ) -> tuple[str, str]:
        """Return what is printed, and the error."""
        cinder, cluster = self.clouds[where]
        file = chains.memory_file()
        file.write(stdin)
        file.seek(0)
        pool = contextlib.nullcontext(cluster.pool())
        self._patch.setattr(base, 'open_stdin', lambda: file)
        self._patch.setattr(cloud.CloudCommand, 'cinder', lambda self: cinder)
        self._patch.setattr(ceph_cluster, 'open_pool', lambda settings, name: pool)
        app = App()
        command = command_class(app, argparse.Namespace())
        parsed = command.get_parser('test').parse_args([*map(str, words)])
        try:
            command.run(parsed)
        except exceptions.CommandError as error:
            return app.stdout.getvalue(), str(error)
        return app.stdout.getvalue(), ''

    def rows(self, *arguments: typing.Any, **options: bytes) -> list[dict[str, typing.Any]]:
        printed, error = self.run(*arguments, '-f', 'json', **options)
        assert not error
        return list(json.loads(printed))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[Shell]:
    made = Shell(monkeypatch)
    yield made
    made.source.close()
    made.target.close()


@pytest.fixture
def root(shell: Shell, tmp_path: pathlib.Path) -> pathlib.Path:
    where = tmp_path / 'archive'
    rows = shell.rows('source', archive.CreateBackupArchive, where, IDS[2])
    assert [row['Result'] for row in rows] == ['added'] * 3
    return where


def test_create_names_what_it_could_not_add(shell: Shell, tmp_path: pathlib.Path) -> None:
    del shell.source.images[BASE].snapshots[2]
    printed, error = shell.run(
        'source', archive.CreateBackupArchive, tmp_path, IDS[2], 'nobody', '-f', 'json'
    )
    assert [row['ID'] for row in json.loads(printed)] == IDS[:2]
    assert error.startswith('2 of 4 backups could not be added:')
    assert 'no backup nobody' in error
    assert f'Backup {IDS[2]}: no snapshot' in error


@pytest.mark.parametrize('missing', [False, True])
def test_the_plan_of_a_stream(shell: Shell, missing: bool) -> None:
    """What stands in it, and nothing is written."""
    cinder, cluster = shell.clouds['source']
    stream = archives.create_stream(cinder, cluster, [IDS[2]])
    there, target = shell.clouds['target']
    command = (archive.ImportBackupArchive, '-', '--dry-run')
    if missing:
        cut = stream[: stream.rindex(b'"record_sha256"')]
        printed, error = shell.run('target', *command, '-f', 'json', stdin=cut)
        assert 'is not a whole tar stream' in error
        assert [row['Image'] for row in json.loads(printed)] == ['to be imported'] * 2
    else:
        rows = shell.rows('target', *command, stdin=stream)
        assert {(row['Image'], row['Record']) for row in rows} == {('to be imported',) * 2}
        assert all(row['Bytes to read'] > 0 for row in rows)
    assert not there.calls
    assert not target.images
    archives.import_stream_(there, target, stream)
    rows = shell.rows('target', *command, stdin=stream)
    assert {(row['Image'], row['Record']) for row in rows} == {('already there',) * 2}


def test_a_part_of_a_stream_cannot_be_asked_for(shell: Shell) -> None:
    _printed, error = shell.run('target', archive.ImportBackupArchive, '-', IDS[1])
    assert 'Unpack it first' in error


def test_what_is_damaged_is_named(shell: Shell, root: pathlib.Path) -> None:
    assert shell.run('source', archive_content.ShowBackupArchive, root)[1] == ''
    path = root / BASE / f'1-{IDS[1]}' / 'increment.json'
    path.write_bytes(path.read_bytes()[:-9])
    printed, error = shell.run('source', archive_content.ListBackupArchive, root, '-f', 'json')
    assert [row['ID'] for row in json.loads(printed)] == [IDS[0]]
    assert str(path) in error
    assert f'2-{IDS[2]}: starts from snapshot {chains.snapshot(1)}' in error
    printed, again = shell.run('source', archive_content.ShowBackupArchive, root)
    assert again == error
    assert printed.count('damaged, or builds on what is') == 2
    for way in ((), ('--quick',), ('--against-cluster',)):
        printed, error = shell.run(
            'source', archive_content.VerifyBackupArchive, root, *way, '-f', 'json'
        )
        assert [row['Result'] for row in json.loads(printed)] == ['good', 'damaged', 'damaged']
        assert str(path) in error
    _printed, error = shell.run(
        'source', archive_content.ExtractBackupArchive, root, IDS[2], '--file', root / 'x'
    )
    assert 'starts from snapshot' in error
    printed, error = shell.run('target', archive.ImportBackupArchive, root, '-f', 'json')
    assert error.startswith('Not all backups could be imported:')
    (row,) = json.loads(printed)
    assert (row['Image'], row['Record']) == ('not imported',) * 2


def test_all_is_damaged(shell: Shell, root: pathlib.Path) -> None:
    (root / BASE / 'image.json').unlink()
    for command in (
        archive.ImportBackupArchive,
        archive_content.ListBackupArchive,
        archive_content.ShowBackupArchive,
        archive_content.VerifyBackupArchive,
    ):
        _printed, error = shell.run('target', command, root)
        assert 'image.json: is missing' in error
    _printed, error = shell.run(
        'source', archive_content.VerifyBackupArchive, root, '--against-cluster'
    )
    assert 'image.json: is missing' in error


def test_a_stream_is_verified_to_its_end(shell: Shell, root: pathlib.Path) -> None:
    cinder, cluster = shell.clouds['source']
    stream = archives.create_stream(cinder, cluster, [IDS[2]])
    printed, error = shell.run(
        'source', archive_content.VerifyBackupArchive, '-', '-f', 'json', stdin=stream[:-10_240]
    )
    assert [row['Result'] for row in json.loads(printed)][:2] == ['good'] * 2
    assert 'is not a whole tar stream' in error
    assert archives.is_good(store.Folder(root))


def test_how_fast_to_go(
    shell: Shell, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float | None] = []
    original = pacing.Pace.__init__

    def spy(self: pacing.Pace, rate: float | None) -> None:
        rates.append(rate)
        original(self, rate)

    monkeypatch.setattr(pacing.Pace, '__init__', spy)
    options = ('--limit-rate', '900M', '--requests', '2', '--request-size', '64K')
    root = tmp_path / 'slowly'
    shell.rows('source', archive.CreateBackupArchive, root, IDS[1], *options)
    shell.rows('target', archive.ImportBackupArchive, root, *options)
    assert rates == [900 << 20] * 2


def test_an_encrypted_backup_is_told(
    shell: Shell, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, _cluster = shell.clouds['source']
    known.rows[IDS[0]].record = chains.backup(0, encryption_key_id=IDS[4])
    shell.rows('source', archive.CreateBackupArchive, tmp_path / 'new', IDS[0])
    assert f'has the key {IDS[4]}' in capsys.readouterr().err


def verify(shell: Shell, *words: object, stdin: bytes = b'') -> tuple[list[str], str]:
    printed, error = shell.run(
        'source', archive_content.VerifyBackupArchive, *words, '-f', 'json', stdin=stdin
    )
    return [row['Result'] for row in json.loads(printed)], error


def test_what_verify_says_at_the_end(
    shell: Shell, root: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(shell, root) == (['good'] * 3, '')
    assert 'All is well: 3 good.' in capsys.readouterr().err
    newest = root / BASE / f'2-{IDS[2]}'
    (newest / 'increment.json').unlink()
    results, error = verify(shell, root)
    assert results == ['good', 'good', 'unfinished']
    assert error.startswith('Not all is well with the archive: 2 good, 1 unfinished.')
    assert 'was not finished' in error
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    results, error = verify(shell, root, '--quick')
    assert results == ['good', 'good', 'missing']
    assert '2 good, 1 missing.' in error


def test_what_has_to_be_there(shell: Shell, root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Told by the files of its records, an id, or a name that the cloud knows."""
    records = tmp_path / 'records'
    records.mkdir()
    for number in (1, 4):
        content = record_file.write_record(chains.backup(number))
        (records / f'{number}.json').write_text(content)
    assert verify(shell, root, '--expect', records / '1.json', '--expect', IDS[0]) == (
        ['good'] * 3,
        '',
    )
    results, error = verify(shell, root, '--expect', records, '--expect', IDS[3])
    assert results == ['good'] * 3 + ['missing'] * 2
    assert f'backup {IDS[3]} is not there' in error
    assert f'backup {IDS[4]} is not there' in error
    cinder, _cluster = shell.clouds['source']
    cinder.add(chains.backup(3), name='extra')
    assert verify(shell, root, '--expect', 'extra')[0] == ['good'] * 3 + ['missing']
    _printed, error = shell.run(
        'source', archive_content.VerifyBackupArchive, root, '--expect', 'nobody'
    )
    assert 'no backup nobody' in error
    stream = archives.create_stream(cinder, shell.source, [IDS[2]])
    results, error = verify(shell, '-', '--expect', IDS[4], stdin=stream)
    assert results == ['good'] * 3 + ['missing']
