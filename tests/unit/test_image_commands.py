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

"""``export-image`` and ``import-image``: arguments in, columns out, over a pool in memory."""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import pathlib
import signal
import stat
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from osc_lib import exceptions

from osc_backup_port import errors, model
from osc_backup_port.ceph import cluster as ceph_cluster
from osc_backup_port.ceph import pool
from osc_backup_port.formats import rbd_diff, record_file
from osc_backup_port.osc import cloud, image
from tests.fakes import ceph as fake_ceph
from tests.unit import chains
from tests.unit.chains import BASE, IDS, SIZE
from tests.unit.fake_cinder import FakeCinder

META = b'{"version": 2, "volume-base-metadata": {}}'


class App:
    """What a command uses of the shell."""

    LOG = logging.getLogger('test')

    def __init__(self, **config: str) -> None:
        self.stdout = io.StringIO()
        self.stderr = io.StringIO()
        self.client_manager = object()
        self.cloud = types.SimpleNamespace(config=config)


class Shell:
    """Runs the commands; notes which pool they ask for."""

    def __init__(self, cluster: fake_ceph.Cluster) -> None:
        self.cluster = cluster
        self.opened: list[tuple[ceph_cluster.Settings, str]] = []
        self.app = App()

    @contextlib.contextmanager
    def open_pool(self, settings: ceph_cluster.Settings, name: str) -> Iterator[pool.Pool]:
        self.opened.append((settings, name))
        yield self.cluster.pool()

    def run(self, command_class: Any, *arguments: object, **config: str) -> dict[str, Any]:
        self.app = App(**config)
        command = command_class(self.app, argparse.Namespace())
        words = [*map(str, arguments), '--no-progress', '-f', 'json']
        command.run(command.get_parser('test').parse_args(words))
        text = self.app.stdout.getvalue() or self.app.stderr.getvalue()
        return dict(json.loads(text))

    def fail(self, command_class: Any, *arguments: object, **config: str) -> str:
        with pytest.raises(exceptions.CommandError) as caught:
            self.run(command_class, *arguments, **config)
        return str(caught.value)


def sha256_of(file: io.FileIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(16 << 20):
        digest.update(piece)
    return digest.hexdigest()


@pytest.fixture
def cinder(monkeypatch: pytest.MonkeyPatch) -> FakeCinder:
    fake = FakeCinder()
    monkeypatch.setattr(cloud.CloudCommand, 'cinder', lambda self: fake)
    return fake


@pytest.fixture
def shell(cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell(cluster)
    monkeypatch.setattr(ceph_cluster, 'open_pool', made.open_pool)
    return made


@pytest.fixture
def chain(cluster: fake_ceph.Cluster, cinder: FakeCinder) -> chains.Chain:
    made = chains.make_chain(cluster, 2)
    for item in made.backups:
        cinder.add(item)
    cluster.objects[f'backup.{IDS[1]}.meta'] = META
    return made


class TestExport:
    def test_a_sparse_file_and_the_metadata_beside_it(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'image.raw'

        columns = shell.run(image.ExportBackupImage, IDS[1], '--file', path, '--checksum')

        with io.FileIO(path) as file:
            assert (chains.blocks_of_file(file) == chain.contents[1]) is True
            digest = sha256_of(file)
        assert path.stat().st_blocks * 512 < SIZE // 100
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        beside = tmp_path / f'backup.{IDS[1]}.meta'
        assert beside.read_bytes() == META
        assert columns['sha256'] == digest
        assert columns['file'] == str(path)
        assert columns['volume_metadata'] == str(beside)
        assert (columns['backup'], columns['image'], columns['format']) == (IDS[1], BASE, 'raw')
        assert columns['bytes_moved'] + columns['bytes_skipped'] == SIZE
        info = tmp_path / 'image.raw.info'
        assert sorted(tmp_path.iterdir()) == sorted([path, beside, info])
        assert stat.S_IMODE(info.stat().st_mode) == 0o600
        assert json.loads(info.read_text()) == {
            'kind': 'image of a volume backup',
            'version': 1,
            'format': 'raw',
            'backup_id': IDS[1],
            'image_size': SIZE,
            'file_size': SIZE,
            'sha256': digest,
        }

    @pytest.mark.parametrize(
        ('options', 'hashed'),
        [
            (['--format', 'raw'], False),
            (['--format', 'raw', '--checksum'], True),
            (['--format', 'rbd'], True),
            (['--format', 'rbd-diff'], True),
            (['--format', 'rbd-diff', '--no-checksum'], False),
        ],
    )
    def test_holes_are_not_hashed_unless_asked_for(
        self,
        shell: Shell,
        chain: chains.Chain,
        tmp_path: pathlib.Path,
        options: list[str],
        hashed: bool,
    ) -> None:
        path = tmp_path / 'image'

        columns = shell.run(image.ExportBackupImage, IDS[1], '--file', path, *options)

        assert (columns['sha256'] is not None) == hashed

    def test_format_is_of_the_image_and_f_of_the_columns(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'image.rbd'

        columns = shell.run(image.ExportBackupImage, IDS[1], '--format', 'rbd', '--file', path)

        assert path.read_bytes().startswith(b'rbd image v2\n')
        assert columns['format'] == 'rbd'

    def test_stdout_carries_the_image_and_stderr_the_columns(
        self, shell: Shell, chain: chains.Chain, capfdbinary: Any
    ) -> None:
        columns = shell.run(image.ExportBackupImage, IDS[1], '--format', 'rbd-diff')

        out = capfdbinary.readouterr().out
        assert out.startswith(b'rbd diff v1\n')
        assert hashlib.sha256(out).hexdigest() == columns['sha256']
        assert shell.app.stdout.getvalue() == ''
        assert columns['file'] == 'stdout'
        assert columns['volume_metadata'].startswith('not exported: name a file for it')

    def test_stdout_that_is_a_terminal_is_refused(
        self, shell: Shell, chain: chains.Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        terminal, other = os.openpty()
        with open(other, 'w') as screen:
            monkeypatch.setattr(sys, 'stdout', screen)
            message = shell.fail(image.ExportBackupImage, IDS[1])
        os.set_blocking(terminal, False)

        assert 'stdout is a terminal' in message
        with pytest.raises(OSError, match=r'Errno (5|11)'):
            os.read(terminal, 1)

    def test_a_reader_that_goes_away(
        self, shell: Shell, chain: chains.Chain, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, sink = os.pipe()
        os.close(source)
        with open(sink, 'w') as broken:
            monkeypatch.setattr(sys, 'stdout', broken)
            message = shell.fail(image.ExportBackupImage, IDS[1], '--format', 'rbd-diff')

            # The interpreter flushes at exit: that must not fail once more.
            broken.write('x')
            broken.flush()

        assert message == 'stdout: the program that reads our output has gone away.'

    @pytest.mark.parametrize('image_format', ['raw', 'rbd'])
    def test_from_backup_goes_with_rbd_diff_only(
        self, shell: Shell, chain: chains.Chain, image_format: str
    ) -> None:
        message = shell.fail(
            image.ExportBackupImage, IDS[1], '--from-backup', IDS[0], '--format', image_format
        )

        assert message == f'--from-backup goes with --format rbd-diff, not with {image_format}.'
        assert shell.opened == []

    def test_a_file_that_is_there_is_kept(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'image.raw'
        path.write_bytes(b'precious')

        message = shell.fail(image.ExportBackupImage, IDS[1], '--file', path)

        assert 'is there already' in message
        assert path.read_bytes() == b'precious'

    @pytest.mark.parametrize('option', ['--file', '--volume-metadata'])
    def test_a_folder_that_is_missing_is_told_first(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path, option: str
    ) -> None:
        wanted = {'--file': tmp_path / 'image', option: tmp_path / 'no such' / 'file'}

        words = [word for pair in wanted.items() for word in pair]
        message = shell.fail(image.ExportBackupImage, IDS[1], *words)

        assert f"mkdir -p '{tmp_path}/no such'" in message
        assert shell.opened == []
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_export_leaves_no_file(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        shell.cluster.hook = lambda what: 5 if what.startswith('aio_read') else 0

        message = shell.fail(image.ExportBackupImage, IDS[1], '--file', tmp_path / 'image.raw')

        assert 'Input/output error' in message
        assert list(tmp_path.iterdir()) == []

    def test_a_plan_of_what_cannot_be_read(self, shell: Shell, chain: chains.Chain) -> None:
        asked = ('diff_iterate', 'execute rbd_object_map')
        shell.cluster.hook = lambda what: 5 if what.startswith(asked) else 0

        message = shell.fail(image.ExportBackupImage, IDS[1], '--dry-run')

        assert BASE in message

    def test_an_unknown_format(self, shell: Shell, chain: chains.Chain) -> None:
        with pytest.raises(SystemExit):
            shell.run(image.ExportBackupImage, IDS[1], '--format', 'vmdk')

    @pytest.mark.parametrize(
        ('options', 'config', 'expected'),
        [
            ([], {}, (None, None, 'backups')),
            (
                [],
                {
                    'backup_ceph_conf': '/c',
                    'backup_ceph_user': 'cinder',
                    'backup_ceph_pool': 'cinder.backups',
                },
                ('/c', 'cinder', 'cinder.backups'),
            ),
            (
                ['--ceph-conf', '/o', '--ceph-user', 'me', '--ceph-pool', 'mine'],
                {'backup_ceph_conf': '/c', 'backup_ceph_user': 'cinder', 'backup_ceph_pool': 'x'},
                ('/o', 'me', 'mine'),
            ),
        ],
    )
    def test_where_the_cluster_is(
        self,
        shell: Shell,
        chain: chains.Chain,
        tmp_path: pathlib.Path,
        options: list[str],
        config: dict[str, str],
        expected: tuple[str | None, str | None, str],
    ) -> None:
        path = tmp_path / 'image'

        shell.run(
            image.ExportBackupImage, IDS[0], '--file', path, '--no-checksum', *options, **config
        )

        settings = ceph_cluster.Settings(expected[0], expected[1])
        assert shell.opened == [(settings, expected[2])]


@pytest.fixture
def files(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with an image, its record and its metadata, from another cloud."""
    other = fake_ceph.Cluster()
    chain = chains.make_chain(other, 1)
    exported, _result = chains.export(chain, 0, 'rbd-diff')
    (tmp_path / 'image').write_bytes(exported.readall())
    (tmp_path / 'record.json').write_text(record_file.write_record(chain.backups[0]))
    (tmp_path / f'backup.{IDS[0]}.meta').write_bytes(META)
    other.close()
    return tmp_path


class TestImport:
    def test_a_record_in_a_file_and_a_cluster_are_enough(
        self, shell: Shell, files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cinder(self: cloud.CloudCommand) -> None:
            raise AssertionError('asked Cinder')

        monkeypatch.setattr(cloud.CloudCommand, 'cinder', cinder)

        columns = shell.run(
            image.ImportBackupImage,
            '--metadata',
            files / 'record.json',
            '--file',
            files / 'image',
        )

        assert list(shell.cluster.images) == [BASE]
        assert shell.cluster.objects == {f'backup.{IDS[0]}.meta': META}
        assert (columns['result'], columns['image']) == ('imported', BASE)
        assert (columns['snapshot'], columns['size']) == (chains.snapshot(0), SIZE)
        digest = hashlib.sha256((files / 'image').read_bytes()).hexdigest()
        assert columns['sha256'] == digest

    def test_a_dry_run_tells_and_does_nothing(self, shell: Shell, files: pathlib.Path) -> None:
        arguments = ('--metadata', files / 'record.json', '--file', files / 'image')
        before = shell.cluster.dump()
        columns = shell.run(image.ImportBackupImage, *arguments, '--dry-run')
        assert (columns['result'], columns['image']) == ('to be imported', BASE)
        assert shell.cluster.dump() == before
        shell.run(image.ImportBackupImage, *arguments)
        columns = shell.run(image.ImportBackupImage, *arguments, '--dry-run')
        assert columns['result'] == 'already there'
        assert columns['snapshot'] == chains.snapshot(0)

    def test_all_that_stands_in_the_way(self, shell: Shell, files: pathlib.Path) -> None:
        shell.cluster.free = 1
        shell.cluster.objects[f'backup.{IDS[0]}.meta'] = b'other'
        before = shell.cluster.dump()
        arguments = ('--metadata', files / 'record.json', '--file', files / 'image')
        message = shell.fail(image.ImportBackupImage, *arguments, '--dry-run')
        assert 'is there with other content' in message
        assert 'has room for 1 B' in message
        shell.cluster.objects.clear()
        before = shell.cluster.dump()
        assert 'has room for 1 B' in shell.fail(image.ImportBackupImage, *arguments)
        assert shell.cluster.dump() == before

    def test_from_stdin_for_a_record_that_is_imported(
        self, shell: Shell, cinder: FakeCinder, files: pathlib.Path, monkeypatch: Any
    ) -> None:
        cinder.add(chains.backup(0))
        with open(files / 'image') as stdin:
            monkeypatch.setattr(sys, 'stdin', stdin)
            columns = shell.run(image.ImportBackupImage, IDS[0])

        assert list(shell.cluster.images) == [BASE]
        assert columns['volume_metadata'].startswith('none: a restore will bring back')

    def test_stdin_that_is_a_terminal_is_refused(
        self, shell: Shell, cinder: FakeCinder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cinder.add(chains.backup(0))
        _terminal, other = os.openpty()
        with open(other) as keyboard:
            monkeypatch.setattr(sys, 'stdin', keyboard)
            message = shell.fail(image.ImportBackupImage, IDS[0])

        assert 'stdin is a terminal' in message

    @pytest.mark.parametrize('arguments', [[], [IDS[0], '--metadata', 'x']], ids=str)
    def test_one_of_backup_and_metadata(self, shell: Shell, arguments: list[str]) -> None:
        with pytest.raises(SystemExit):
            shell.run(image.ImportBackupImage, *arguments)

    def test_metadata_that_is_none_is_refused_before_anything_is_written(
        self, shell: Shell, files: pathlib.Path
    ) -> None:
        (files / f'backup.{IDS[0]}.meta').write_bytes(b'{"version": 3}')

        message = shell.fail(
            image.ImportBackupImage,
            '--metadata',
            files / 'record.json',
            '--file',
            files / 'image',
        )

        assert 'is not the metadata of a volume' in message
        assert shell.cluster.dump() == {'images': {}, 'objects': {}}

    def test_a_file_that_is_not_there(self, shell: Shell, files: pathlib.Path) -> None:
        message = shell.fail(
            image.ImportBackupImage, '--metadata', files / 'record.json', '--file', files / 'no'
        )

        assert message == f'{files / "no"}: No such file or directory'

    def test_a_backup_that_is_not_in_ceph(self, shell: Shell, cinder: FakeCinder) -> None:
        from tests.unit.records import make_record

        service = 'cinder.backup.drivers.nfs.NFSBackupDriver'
        cinder.add(make_record(service, id=IDS[0], service=service, service_metadata=None))

        message = shell.fail(image.ImportBackupImage, IDS[0], '--file', os.devnull)

        assert 'data does not lie in Ceph' in message

    def test_the_words_for_an_encrypted_backup(
        self, shell: Shell, files: pathlib.Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        key = '11111111-2222-3333-4444-555555555555'
        encrypted = chains.backup(0, encryption_key_id=key)
        (files / 'record.json').write_text(record_file.write_record(encrypted))

        shell.run(
            image.ImportBackupImage, '--metadata', files / 'record.json', '--file', files / 'image'
        )

        assert f'only where the key manager has the key {key}' in capsys.readouterr().err

    @pytest.mark.parametrize(
        'number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
    )
    def test_a_signal_leaves_nothing(
        self, shell: Shell, files: pathlib.Path, number: signal.Signals
    ) -> None:
        def hook(what: str) -> int:
            if what.startswith('aio_write'):
                os.kill(os.getpid(), number)
                shell.cluster.hook = lambda what: 0
            return 0

        shell.cluster.hook = hook
        before = signal.getsignal(number)

        message = shell.fail(
            image.ImportBackupImage, '--metadata', files / 'record.json', '--file', files / 'image'
        )

        assert message == (
            f'Stopped by {number.name}.\nRun the same command again: completed work is kept.'
        )
        assert shell.cluster.dump() == {'images': {}, 'objects': {}}
        assert signal.getsignal(number) is before

    def test_a_second_signal_does_not_stop_the_cleaning_up(
        self, shell: Shell, files: pathlib.Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        sent: list[str] = []

        def hook(what: str) -> int:
            if what.startswith('remove ' if sent else 'aio_write'):
                sent.append(what)
                os.kill(os.getpid(), signal.SIGTERM)
                if len(sent) == 2:
                    shell.cluster.hook = lambda what: 0
            return 0

        shell.cluster.hook = hook

        message = shell.fail(
            image.ImportBackupImage, '--metadata', files / 'record.json', '--file', files / 'image'
        )

        assert message.startswith('Stopped by SIGTERM.')
        assert len(sent) == 2
        assert 'SIGTERM: cleaning up; once more to leave at once.' in capfd.readouterr().err
        assert shell.cluster.dump() == {'images': {}, 'objects': {}}


@pytest.fixture
def disguised(cluster: fake_ceph.Cluster, cinder: FakeCinder) -> Iterator[chains.Chain]:
    """A backup of a disk that is, from its first byte to its last, a diff of this very backup."""
    made = chains.Chain(cluster, BASE, [chains.backup(0)], [])
    whole = model.Increment(None, chains.snapshot(0), SIZE, iter([]))
    head = b''.join(rbd_diff.encode(whole))[: -len(rbd_diff.END)]
    fill = SIZE - len(head) - 17 - 1
    with chains.make_image(cluster) as made_image:
        content = cluster.images[BASE].content
        content.write(0, head + b'w' + bytes(8) + fill.to_bytes(8, 'little'))
        content.write(8192, b'precious data')
        content.write(SIZE - 1, rbd_diff.END)
        made_image.create_snap(chains.snapshot(0))
        made.contents.append(content.dump())
    cinder.add(made.backups[0])
    return made


class TestRoundTrip:
    """What export-image wrote is read again as what it is, and nothing is guessed."""

    def export(self, shell: Shell, path: pathlib.Path, *options: str) -> None:
        shell.run(image.ExportBackupImage, IDS[0], '--file', path, *options)
        shell.cluster.images.clear()
        shell.cluster.objects.clear()

    @pytest.mark.parametrize('image_format', ['raw', 'rbd', 'rbd-diff'])
    def test_a_disk_that_looks_like_a_diff(
        self,
        shell: Shell,
        disguised: chains.Chain,
        tmp_path: pathlib.Path,
        image_format: str,
    ) -> None:
        path = tmp_path / 'image'
        self.export(shell, path, '--format', image_format)

        columns = shell.run(image.ImportBackupImage, IDS[0], '--file', path)

        assert columns['format'] == image_format
        assert shell.cluster.dump_image(BASE)['head'] == disguised.contents[0]

    def test_without_what_was_told_it_has_to_be_told(
        self, shell: Shell, disguised: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'image'
        self.export(shell, path)
        (tmp_path / 'image.info').unlink()

        for more in ([], ['--dry-run']):
            message = shell.fail(image.ImportBackupImage, IDS[0], '--file', path, *more)
            assert 'A raw image may as well' in message
            assert '--format raw' in message
        assert shell.cluster.images == {}

        shell.run(image.ImportBackupImage, IDS[0], '--file', path, '--format', 'raw')
        assert shell.cluster.dump_image(BASE)['head'] == disguised.contents[0]

    @pytest.mark.parametrize('image_format', ['raw', 'rbd', 'rbd-diff'])
    def test_one_bit_that_flipped(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path, image_format: str
    ) -> None:
        path = tmp_path / 'image'
        self.export(shell, path, '--format', image_format, '--checksum')
        with path.open('r+b') as file:
            at = 4194304 if image_format == 'raw' else file.seek(-1000, 2)
            file.seek(at)
            bits = file.read(1)
            file.seek(at)
            file.write(bytes([bits[0] ^ 1]))

        message = shell.fail(image.ImportBackupImage, IDS[0], '--file', path)

        assert 'has the sha256' in message
        assert shell.cluster.images == {}

    def test_a_damaged_increment_leaves_the_chain_as_it_was(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        full, more = tmp_path / 'full', tmp_path / 'more'
        shell.run(image.ExportBackupImage, IDS[0], '--file', full, '--format', 'rbd-diff')
        options = ('--format', 'rbd-diff', '--from-backup', IDS[0])
        shell.run(image.ExportBackupImage, IDS[1], '--file', more, *options)
        shell.cluster.images.clear()
        shell.run(image.ImportBackupImage, IDS[0], '--file', full)
        before = shell.cluster.dump()
        content = bytearray(more.read_bytes())
        content[-1000] ^= 1
        more.write_bytes(content)
        made: list[str] = []
        shell.cluster.hook = lambda what: made.append(what) or 0

        message = shell.fail(image.ImportBackupImage, IDS[1], '--file', more)

        assert 'has the sha256' in message
        assert shell.cluster.dump() == before
        # It never was a backup, not for a moment.
        assert [what for what in made if what.startswith('create_snap')] == []

    def test_a_file_that_was_cut_short(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'image'
        self.export(shell, path)
        os.truncate(path, SIZE - 4096)

        for more in ([], ['--format', 'raw'], ['--dry-run']):
            message = shell.fail(image.ImportBackupImage, IDS[0], '--file', path, *more)
            assert f'has {SIZE - 4096} bytes, {path}.info says {SIZE}' in message

    def test_the_file_of_another_backup(
        self, shell: Shell, chain: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / 'image'
        self.export(shell, path)

        message = shell.fail(image.ImportBackupImage, IDS[1], '--file', path)

        assert f'is of backup {IDS[0]}' in message
        assert shell.cluster.images == {}

    def test_no_room_is_told_before_anything_is_read(
        self,
        shell: Shell,
        chain: chains.Chain,
        tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        real = os.fstatvfs

        def full(descriptor: int) -> Any:
            told = real(descriptor)
            return types.SimpleNamespace(f_bavail=10, f_frsize=4096, f_blocks=told.f_blocks)

        monkeypatch.setattr(os, 'fstatvfs', full)
        asked: list[str] = []
        shell.cluster.hook = lambda what: asked.append(what) or 0
        path = tmp_path / 'image'

        message = shell.fail(image.ExportBackupImage, IDS[0], '--file', path)

        assert f'{path}: there is room for 40.0 KiB, expected' in message
        assert [what for what in asked if what.startswith('aio_read')] == []
        assert list(tmp_path.iterdir()) == []


def test_a_signal_is_not_lost_in_a_library_that_goes_on_after_errors(
    shell: Shell, cinder: FakeCinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FakeCinder.find

    def find(self: FakeCinder, name: str) -> Any:
        with contextlib.suppress(Exception):
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, name)

    monkeypatch.setattr(FakeCinder, 'find', find)

    message = shell.fail(image.ExportBackupImage, 'x', '--file', '/tmp/nowhere')

    assert message == 'Stopped by SIGINT.\nRun the same command again: completed work is kept.'


def test_every_error_of_ours_becomes_one_message(
    shell: Shell, cinder: FakeCinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(self: FakeCinder, name: str) -> Any:
        raise errors.NotFound('Backup x: not there.', 'Look: openstack volume backup list')

    monkeypatch.setattr(FakeCinder, 'find', find)

    message = shell.fail(image.ExportBackupImage, 'x', '--file', '/tmp/nowhere')

    assert message == 'Backup x: not there.\nLook: openstack volume backup list'
