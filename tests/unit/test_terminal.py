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

"""Whatever a name holds, a terminal shows it and does not obey it."""

import argparse
import ast
import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import shlex
import subprocess
import sys
import types
import typing

import pytest
import yaml
from osc_lib import exceptions
from osc_lib.cli import format_columns

import osc_backup_port
from osc_backup_port import errors
from osc_backup_port.archive import store
from osc_backup_port.ceph import cluster as ceph_cluster
from osc_backup_port.formats import record_file
from osc_backup_port.osc import (
    archive,
    archive_content,
    cloud,
    image,
    image_pool,
    metadata,
    progress_bar,
    rebuild,
    terminal,
)
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import archives, chains
from tests.unit.chains import BASE, IDS
from tests.unit.fake_cinder import FakeCinder

EVIL = 'ok\x1b[2K\x1b]0;owned\x07\nDROPPED\r\x9b31m\u202egnp\u200b\u2028\x7f[red]:smile:'
# Of each: what it is in a name, and what is shown.
OBEYED = {
    'a\nb': r'a\nb',
    'a\rb\tc': r'a\rb\tc',
    '\x1b[31m': r'\x1b[31m',
    '\x00\x7f\x9b': r'\x00\x7f\x9b',
    '\u202egnp.exe': r'\u202egnp.exe',
    '\u2066\u2069\u200e\u061c': r'\u2066\u2069\u200e\u061c',
    'a\u200bb\ufeffc\u2060d\u00ade': r'a\u200bb\ufeffc\u2060d\xade',
    '\u2028\u2029\x85': r'\u2028\u2029\x85',
    'a\u200db\u200c': r'a\u200db\u200c',
    '\u3164\u115f\U000e0041\U000e0100': r'\u3164\u115f\U000e0041\U000e0100',
    'caf\udce9': r'caf\xe9',
    '\ud800': r'\ud800',
}
READABLE = [
    '',
    'nightly 7',
    'größer',
    'резервная копия',
    '夜间备份\u3000東京',
    'نسخة احتياطية',
    'می\u200cخواهم',  # noqa: RUF001
    'क्\u200dष',
    '🎉 💾',
    '👩🏽\u200d🚀 ❤️\u200d🔥 👨\u200d👩\u200d👧',
    'e\u0301',
    r'C:\new',
    '[red]bold[/red] :smile: %s {0}',
]


@pytest.mark.parametrize('text', OBEYED)
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    assert terminal.escape(text) == OBEYED[text]
    assert terminal.escape(OBEYED[text]) == OBEYED[text]


@pytest.mark.parametrize('text', READABLE)
def test_what_people_write_stays(text: str) -> None:
    assert terminal.escape(text) == text


def expect_harmless(printed: str) -> None:
    """Nothing is obeyed, and no line is made up."""
    for line in printed.split('\n'):
        assert terminal.escape(line) == line
        assert not line.lstrip('| ').startswith('DROPPED')


@pytest.mark.parametrize('form', ['table', 'value', 'csv', 'json', 'yaml', 'html'])
def test_cells(form: str) -> None:
    exact = form in ('json', 'yaml')
    assert terminal.cell(EVIL, form) == (EVIL if exact else terminal.escape(EVIL))
    assert terminal.heading(EVIL, form) == (EVIL if exact else terminal.escape(EVIL))
    assert [terminal.cell(value, form) for value in (None, 7, True)] == [None, 7, True]
    column = format_columns.DictColumn({EVIL: EVIL})
    if exact:
        assert terminal.cell(column, form) is column
    else:
        expect_harmless(str(terminal.cell(column, form)))


def test_a_shell_can_take_what_is_printed_for_it(tmp_path: pathlib.Path) -> None:
    class App:
        stdout = io.StringIO()
        LOG = logging.getLogger('test')

    path = tmp_path / 'x.json'
    name = '$(touch a) `touch b` "; touch c; echo \\" \\$HOME'
    record = chains.backup(0, display_name=name, **{'x=1; touch d; $(touch e)': '7'})
    path.write_text(record_file.write_record(record))
    command = metadata.ShowBackupMetadata(App(), argparse.Namespace())  # type: ignore[arg-type]
    words = [str(path), '-f', 'shell']
    command.run(command.get_parser('test').parse_args(words))
    script = f'{App.stdout.getvalue()}\nprintf %s "$display_name"'
    done = subprocess.run(['sh', '-c', script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (name, '')
    assert [child.name for child in tmp_path.iterdir()] == ['x.json']


def test_each_line_of_an_error_is_one_of_ours() -> None:
    error = errors.SomeFailed(
        f'{EVIL}:',
        [errors.PortError(EVIL, EVIL, [EVIL]), EVIL, errors.PortError(EVIL, EVIL, [EVIL])],
    )
    printed = terminal.escape_lines(error.lines())
    expect_harmless(printed)
    assert printed.count('\n') == 4  # Of equal ones, the first.


def test_a_terminal_without_all_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), 'latin-1')
    monkeypatch.setattr(sys, 'stdout', stdout)
    terminal.accept_all_letters()
    terminal.write_line(stdout, 'größer └─ 💾')
    stdout.flush()
    assert typing.cast(io.BytesIO, stdout.buffer).getvalue() == (
        b'gr\xf6\xdfer \\u2514\\u2500 \\U0001f4be\n'
    )


@pytest.mark.parametrize('name', ['osc_backup_port.osc.metadata', 'keystoneauth'])
def test_what_is_logged(name: str) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    try:
        terminal.guard_logs()
        guarded = handler.formatter
        terminal.guard_logs()
        assert handler.formatter is guarded
        logging.getLogger(name).warning('Backup %s:\n%s', '1', EVIL)
    finally:
        root.removeHandler(handler)
    printed = stream.getvalue()
    for line in printed.splitlines():
        assert terminal.escape(line) == line
    # Others may print more than one line; whatever comes in there is not ours.
    assert printed.startswith('Backup 1:\\nok' if name.startswith('osc') else 'Backup 1:\nok')


def test_only_one_module_writes() -> None:
    """All others write through it, or bytes."""
    root = pathlib.Path(next(iter(osc_backup_port.__path__)))
    for path in root.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call != 'print', path
                assert not call.endswith(('stdout.write', 'stderr.write')), path


def test_a_wrong_option(capsys: pytest.CaptureFixture[str]) -> None:
    command = archive_content.ListBackupArchive(object(), argparse.Namespace())  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        command.get_parser('test').parse_args(['a', f'--{EVIL}', '--', EVIL])
    printed = capsys.readouterr().err
    expect_harmless(printed)
    assert 'DROPPED' in printed


@pytest.mark.parametrize('on_terminal', [False, True])
def test_progress(
    on_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if on_terminal:
        shown: typing.Any = progress_bar._Bar()
        monkeypatch.setattr(shown.display.console, 'file', io.StringIO())
        with shown.display:
            shown.begin('[red]\n\x9b', 100)
            shown.advance(1)
            shown.say(f'{EVIL} {"long " * 99}')
        printed = shown.display.console.file.getvalue()
        assert f'{terminal.escape(EVIL)} {"long " * 99}' in printed
        assert r'[red]\n\x9b ' in printed
    else:
        with progress_bar.shown(True) as shown:
            shown.begin(EVIL, 100)
            shown.say(EVIL)
        expect_harmless(capsys.readouterr().err)


class App:
    """What a command uses of the shell."""

    LOG = logging.getLogger('test')

    def __init__(self) -> None:
        self.stdout = io.StringIO()
        self.stderr = sys.stderr
        self.client_manager = object()
        self.cloud = types.SimpleNamespace(config={'backup_ceph_pool': 'backups'})


class Clouds:
    """A cloud whose every text is evil, an archive and a record of it; and an empty cloud."""

    def __init__(self, root: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.source, self.target = fake_ceph.Cluster(), fake_ceph.Cluster(1)
        chain = _chain(self.source)
        self.cinder = archives.with_metadata(chain)
        for row in self.cinder.rows.values():
            row.shown = dataclasses.replace(row.shown, project_id=EVIL)
        self.archive = root / f'archive {EVIL}'
        archives.create(self.cinder, self.source, store.Folder(self.archive), IDS[:2])
        self.record = root / f'record {EVIL}.json'
        self.record.write_text(record_file.write_record(chain.backups[0]))
        self.broken = root / f'broken {EVIL}.json'
        self.broken.write_text(json.dumps({'backup_service': EVIL, 'backup_url': f'AAAA{EVIL}'}))
        self.new = root / f'new {EVIL}'
        with rbd.Image(self.source.connect(), BASE) as made:
            made.create_snap(EVIL.replace('/', '').replace('@', ''))

    def run(
        self, command_class: typing.Any, *words: object, target: bool = False
    ) -> tuple[str, str]:
        """Return what is printed, and the error."""
        cinder, cluster = (FakeCinder(), self.target) if target else (self.cinder, self.source)
        pool = contextlib.nullcontext(cluster.pool())
        self.patch.setattr(cloud.CloudCommand, 'cinder', lambda self: cinder)
        self.patch.setattr(ceph_cluster, 'open_pool', lambda settings, name: pool)
        app = App()
        command = command_class(app, argparse.Namespace())
        parsed = command.get_parser('test').parse_args([*map(str, words)])
        try:
            command.run(parsed)
        except exceptions.CommandError as error:
            return app.stdout.getvalue(), str(error)
        return app.stdout.getvalue(), ''


def _chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    chain = chains.Chain(cluster, BASE, [], [])
    with chains.make_image(cluster) as made:
        for number in range(2):
            cluster.images[BASE].content.write(number << 20, b'data' * 1000)
            made.create_snap(chains.snapshot(number))
            changes = {'display_name': EVIL, 'display_description': EVIL, EVIL: EVIL}
            chain.backups.append(chains.backup(number, **changes))
            chain.contents.append(cluster.images[BASE].content.dump())
    return chain


@pytest.fixture
def clouds(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[Clouds]:
    made = Clouds(tmp_path, monkeypatch)
    yield made
    made.source.close()
    made.target.close()


# Each command that prints columns: its words, where EVIL stands for a name in the clouds.
LISTS: dict[str, tuple[typing.Any, typing.Callable[[Clouds], list[object]], bool]] = {
    'archive list': (archive_content.ListBackupArchive, lambda c: [c.archive], False),
    'archive show': (archive_content.ShowBackupArchive, lambda c: [c.archive], False),
    'archive show --long': (
        archive_content.ShowBackupArchive,
        lambda c: [c.archive, '--long'],
        False,
    ),
    'archive verify': (archive_content.VerifyBackupArchive, lambda c: [c.archive], False),
    'archive create': (
        archive.CreateBackupArchive,
        lambda c: [c.archive, IDS[1], EVIL],
        False,
    ),
    'archive import': (archive.ImportBackupArchive, lambda c: [c.archive, '--dry-run'], True),
    'metadata export': (
        metadata.ExportBackupMetadata,
        lambda c: ['--all', '--directory', c.new],
        False,
    ),
    'metadata import': (metadata.ImportBackupMetadata, lambda c: [c.record, '--dry-run'], True),
    'metadata rebuild': (rebuild.RebuildBackupMetadata, lambda c: [], False),
    'image list': (image_pool.ListBackupImages, lambda c: [], False),
    'image list --long': (image_pool.ListBackupImages, lambda c: ['--long'], False),
    'image check': (image_pool.CheckBackupImages, lambda c: ['--severity', 'info'], False),
}
SHOWS: dict[str, tuple[typing.Any, typing.Callable[[Clouds], list[object]]]] = {
    'metadata show': (metadata.ShowBackupMetadata, lambda c: [c.record]),
    'archive extract': (
        archive_content.ExtractBackupArchive,
        lambda c: [c.archive, IDS[1], '--file', f'{c.new}.raw'],
    ),
    'export-image': (
        image.ExportBackupImage,
        lambda c: [IDS[1], '--file', f'{c.new}.raw', '--no-progress'],
    ),
}


@pytest.mark.parametrize('name', LISTS)
@pytest.mark.parametrize('form', ['table', 'value', 'csv'])
def test_lists(clouds: Clouds, name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, words, on_target = LISTS[name]
    printed, error = clouds.run(command, *words(clouds), '-f', form, target=on_target)
    expect_harmless(f'{printed}\n{error}\n{capsys.readouterr().err}')
    assert printed


@pytest.mark.parametrize('name', SHOWS)
@pytest.mark.parametrize('form', ['table', 'value', 'shell'])
def test_shows(clouds: Clouds, name: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, words = SHOWS[name]
    printed, error = clouds.run(command, *words(clouds), '-f', form)
    assert not error
    assert printed
    expect_harmless(f'{printed}\n{capsys.readouterr().err}')


@pytest.mark.parametrize('form', ['json', 'yaml'])
def test_what_programs_read_is_exact(clouds: Clouds, form: str) -> None:
    words = [clouds.archive, '-f', form]
    printed, _error = clouds.run(archive_content.ListBackupArchive, *words)
    expect_harmless(printed)
    rows = json.loads(printed) if form == 'json' else yaml.safe_load(printed)
    assert [row['Name'] for row in rows] == [EVIL, EVIL]
    words = [clouds.record, '-f', form]
    printed, _error = clouds.run(metadata.ShowBackupMetadata, *words)
    expect_harmless(printed)
    row = json.loads(printed) if form == 'json' else yaml.safe_load(printed)
    assert row[EVIL] == EVIL


def test_a_record_on_stdout(clouds: Clouds, capsys: pytest.CaptureFixture[str]) -> None:
    clouds.run(metadata.ExportBackupMetadata, IDS[0])
    printed = capsys.readouterr().out
    expect_harmless(printed)
    (record,) = record_file.read_records(printed.encode(), 'stdin')
    assert record.display_name == EVIL


ERRORS: dict[str, tuple[typing.Any, typing.Callable[[Clouds], list[object]]]] = {
    'a record': (metadata.ShowBackupMetadata, lambda c: [c.broken]),
    'several records': (metadata.ImportBackupMetadata, lambda c: [c.broken, f'{c.new}/']),
    'no such file': (metadata.ShowBackupMetadata, lambda c: [f'{c.new}/x']),
    'no such backup': (metadata.ExportBackupMetadata, lambda c: [EVIL]),
    'no archive': (archive_content.ListBackupArchive, lambda c: [c.new]),
    'no such URL': (archive_content.ListBackupArchive, lambda c: [f'{EVIL}://x']),
    'no such backup in it': (
        archive_content.ExtractBackupArchive,
        lambda c: [c.archive, f'no {EVIL}', '--file', c.new],
    ),
    'a file that is there': (
        archive_content.ExtractBackupArchive,
        lambda c: [c.archive, IDS[0], '--file', c.record],
    ),
    'an option': (archive.CreateBackupArchive, lambda c: [c.new, IDS[0], '--compression', EVIL]),
    'two of one name': (
        archive_content.ExtractBackupArchive,
        lambda c: [c.archive, EVIL, '--file', c.new],
    ),
    'an image': (image.ImportBackupImage, lambda c: [IDS[0], '--file', c.new]),
}


@pytest.mark.parametrize('name', ERRORS)
def test_errors(clouds: Clouds, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, words = ERRORS[name]
    printed, error = clouds.run(command, *words(clouds))
    assert error
    expect_harmless(f'{printed}\n{error}\n{capsys.readouterr().err}')


def test_a_command_to_type_is_quoted(clouds: Clouds, tmp_path: pathlib.Path) -> None:
    name = f"{tmp_path}/a; 'b' $(c)"
    _printed, error = clouds.run(archive_content.ListBackupArchive, name)
    words = shlex.split(error.partition('Make one: openstack volume backup ')[2])
    assert words == ['archive', 'create', name, '<backup>']
