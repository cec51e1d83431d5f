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

"""What goes wrong with images: a clear error, and a pool as it was before."""

import collections.abc
import contextlib
import dataclasses
import fcntl
import functools
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
import typing

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

BACKUP = chains.BACKUP
IMPORT = (*BACKUP, 'import-image')
EXPORT = (*BACKUP, 'export-image')


def said(process: 'subprocess.CompletedProcess[bytes]') -> str:
    """Return what a command wrote to stderr, which has to have failed in an orderly way."""
    error = process.stderr.decode()
    assert process.returncode == 1, error
    assert 'Traceback' not in error
    assert 'Exception' not in error
    return error


def failing(cloud: shell.Cloud, *arguments: object, **options: typing.Any) -> str:
    """Run a command that has to fail; return what it wrote to stderr."""
    return said(cloud.openstack(*arguments, check=False, **options))


def in_shell(
    cloud: shell.Cloud, arguments: tuple[object, ...], after: str = '', before: str = 'true'
) -> str:
    """Run a command that has to fail, among others; return what it wrote to stderr."""
    command = f'set -o pipefail; {before}; {shlex.join(cloud.command(*arguments))} {after}'
    return said(
        subprocess.run(
            ['bash', '-c', command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=cloud.environment,
            check=False,
        )
    )


@pytest.fixture(scope='module')
def other(src: shell.Cloud, module_resources: Resources) -> chains.Chain:
    """A full backup of another volume."""
    return chains.make_chain(src, module_resources, 1)


@pytest.fixture(scope='module')
def others(other: chains.Chain, tmp_path_factory: pytest.TempPathFactory) -> chains.Export:
    """That backup as an rbd diff."""
    return chains.export(other, 0, 'rbd-diff', tmp_path_factory.mktemp('others'))


@pytest.fixture
def unchanged(pool: ceph.Pool) -> collections.abc.Iterator[None]:
    """The pool has to be the same after the test."""
    with pool.unchanged():
        yield


@pytest.fixture
def only_in_the_sandbox(dst: shell.Cloud) -> None:
    if dst.sandbox is None:
        pytest.skip('stops services, or needs a user that only the sandbox has')


def cut(image: pathlib.Path, place: str, folder: pathlib.Path) -> pathlib.Path:
    """Return a copy of an image that ends too early."""
    length = image.stat().st_size
    keep = {'nothing': 0, 'header': 30, 'half': length // 2, 'nearly all': length - 1}[place]
    copy = folder / image.name
    subprocess.run(['cp', '--sparse=always', image, copy], check=True)
    os.truncate(copy, keep)
    return copy


@pytest.mark.usefixtures('unchanged')
class TestImportRefuses:
    @pytest.mark.parametrize(
        'place',
        [
            'nothing',
            pytest.param('header', marks=pytest.mark.long),
            'half',
            pytest.param('nearly all', marks=pytest.mark.long),
        ],
    )
    @pytest.mark.parametrize('image_format', ['raw', 'rbd', 'rbd-diff'])
    def test_a_truncated_file(
        self,
        dst: shell.Cloud,
        raws: list[chains.Export],
        whole: chains.Export,
        diffs: list[chains.Export],
        image_format: str,
        place: str,
        tmp_path: pathlib.Path,
    ) -> None:
        export = {'raw': raws[0], 'rbd': whole, 'rbd-diff': diffs[0]}[image_format]
        file = cut(export.image, place, tmp_path)
        error = failing(dst, *IMPORT, '--metadata', export.record, '--file', file)
        size = file.stat().st_size
        wanted = f'has {size} bytes' if image_format == 'raw' else f'ends after {size} bytes'
        wanted = 'is empty' if place == 'nothing' else wanted
        assert f'{file}: {wanted}' in error
        assert 'export' in error or 'cut short' in error

    @pytest.mark.long
    def test_more_than_one_export(
        self, dst: shell.Cloud, diffs: list[chains.Export], tmp_path: pathlib.Path
    ) -> None:
        file = tmp_path / 'two'
        file.write_bytes(diffs[0].image.read_bytes() + diffs[1].image.read_bytes())
        error = failing(dst, *IMPORT, '--metadata', diffs[0].record, '--file', file)
        assert f'{file}: more bytes follow the end mark' in error

    @pytest.mark.long
    def test_the_image_of_another_backup(
        self, dst: shell.Cloud, diffs: list[chains.Export], others: chains.Export
    ) -> None:
        error = failing(dst, *IMPORT, '--metadata', diffs[0].record, '--file', others.image)
        assert f'holds backup {others.record.stem}' in error
        assert f'import-image {others.record.stem}' in error

    def test_an_increment_without_the_chain(
        self, dst: shell.Cloud, filled: chains.Chain, diffs: list[chains.Export]
    ) -> None:
        error = failing(dst, *IMPORT, *diffs[1].arguments)
        assert f'starts from snapshot backup.{filled.backups[0]}.snap.' in error
        assert f'Import backup {filled.backups[0]} first' in error

    def test_an_increment_with_a_gap_before_it(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        diffs: list[chains.Export],
    ) -> None:
        chains.forget(dst, resources, filled)
        chains.import_image(dst, *diffs[0].arguments)
        with pool.unchanged():
            error = failing(dst, *IMPORT, *diffs[2].arguments)
            assert f'Import backup {filled.backups[1]} first' in error
        pool.clear(filled.volume_id, filled.backups)

    def test_an_image_that_is_in_the_way(
        self, dst: shell.Cloud, pool: ceph.Pool, filled: chains.Chain, diffs: list[chains.Export]
    ) -> None:
        pool.rbd('create', '--size', '1G', filled.image)
        with pool.unchanged():
            error = failing(dst, *IMPORT, *diffs[0].arguments)
            assert f'Image {filled.image}' in error
            assert 'rename' in error
        pool.clear(filled.volume_id, filled.backups)

    def test_a_pool_that_is_not_there(
        self, dst: shell.Cloud, pool: ceph.Pool, diffs: list[chains.Export]
    ) -> None:
        error = failing(dst, *IMPORT, *diffs[0].arguments, '--ceph-pool', 'no-such-pool')
        assert 'there is no pool no-such-pool' in error
        assert pool.name in error
        assert '--ceph-pool' in error

    def test_a_user_without_keyring(self, dst: shell.Cloud, diffs: list[chains.Export]) -> None:
        error = failing(dst, *IMPORT, *diffs[0].arguments, '--ceph-user', 'stranger')
        assert 'no keyring for client.stranger' in error
        assert '--ceph-user' in error

    @pytest.mark.usefixtures('only_in_the_sandbox')
    def test_a_user_without_rights(
        self, dst: shell.Cloud, pool: ceph.Pool, diffs: list[chains.Export]
    ) -> None:
        error = failing(dst, *IMPORT, *diffs[0].arguments, '--ceph-user', 'nobody')
        # Ceph 18 gives no answer to a user who has no capability for OSDs at all.
        is_answered = ceph.release() < 18
        expected = 'does not permit client.nobody' if is_answered else 'no answer in time'
        assert expected in error
        assert 'client.nobody needs the capabilities' in error
        assert f'profile rbd pool={pool.name}' in error

    def test_a_keyring_that_is_refused(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        diffs: list[chains.Export],
        tmp_path: pathlib.Path,
    ) -> None:
        keyring = tmp_path / 'keyring'
        key = 'AQAAAAAAAAAAABAAd2hhdCBhIGtleSB0aGlzIGlzIQ=='
        keyring.write_text(f'[client.{pool.user}]\nkey = {key}\n')
        conf = ceph.conf_with(pool, tmp_path, keyring=keyring)
        error = failing(dst, *IMPORT, *diffs[0].arguments, '--ceph-conf', conf)
        assert f'auth get client.{pool.user}' in error

    def test_a_configuration_that_is_not_there(
        self, dst: shell.Cloud, diffs: list[chains.Export], tmp_path: pathlib.Path
    ) -> None:
        conf = tmp_path / 'no.conf'
        error = failing(dst, *IMPORT, *diffs[0].arguments, '--ceph-conf', conf)
        assert str(conf) in error
        assert '--ceph-conf' in error

    @pytest.mark.long
    def test_stdin_empty_or_closed(self, dst: shell.Cloud, diffs: list[chains.Export]) -> None:
        arguments = (*IMPORT, '--metadata', diffs[0].record)
        assert 'stdin: is empty' in in_shell(dst, arguments, '< /dev/null')
        assert 'stdin is closed' in in_shell(dst, arguments, '<&-')

    def test_an_unprivileged_user(
        self,
        src: shell.Cloud,
        src_member: shell.Cloud,
        resources: Resources,
        others: chains.Export,
        tmp_path: pathlib.Path,
    ) -> None:
        volume = resources.volume(src_member)
        backup = resources.backup(src_member, volume)
        for arguments in (
            (*EXPORT, backup, '--file', tmp_path / 'image'),
            (*IMPORT, backup, '--file', others.image),
        ):
            error = failing(src_member, *arguments)
            assert backup in error
            assert 'admin' in error


class TestExportRefuses:
    def test_a_backup_that_is_not_there(self, src: shell.Cloud, tmp_path: pathlib.Path) -> None:
        error = failing(src, *EXPORT, 'no-such-backup', '--file', tmp_path / 'image')
        assert "'no-such-backup'" in error
        assert not list(tmp_path.iterdir())

    def test_another_pool_than_that_of_the_backups(
        self, src: shell.Cloud, filled: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        pool = ceph.volume_pool(src).name
        arguments = (*EXPORT, filled.backups[1], '--file', tmp_path / 'image')
        error = failing(src, *arguments, '--ceph-pool', pool)
        assert f'not in pool {pool}' in error
        assert filled.image in error
        assert '--ceph-pool' in error
        assert not list(tmp_path.iterdir())

    def test_a_file_that_is_there(
        self, src: shell.Cloud, filled: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        file = tmp_path / 'image'
        file.write_text('precious')
        assert 'is there already' in failing(src, *EXPORT, filled.backups[0], '--file', file)
        assert file.read_text() == 'precious'

    def test_a_full_disk(
        self, src: shell.Cloud, filled: chains.Chain, tmp_path: pathlib.Path
    ) -> None:
        backup, file = filled.backups[0], tmp_path / 'image'
        full = in_shell(src, (*EXPORT, backup), '> /dev/full')
        assert 'stdout: No space left on device' in full
        # Of the same kind, and to be had without a disk: a limit of 16 MiB.
        error = in_shell(src, (*EXPORT, backup, '--file', file), before='ulimit -f 16384')
        assert f'{file}: File too large' in error
        assert not list(tmp_path.iterdir())

    def test_a_reader_that_goes_away(self, src: shell.Cloud, filled: chains.Chain) -> None:
        error = in_shell(src, (*EXPORT, filled.backups[0]), '| head -c 1000 > /dev/null')
        assert 'the program that reads our output has gone away' in error

    def test_stdout_closed(self, src: shell.Cloud, filled: chains.Chain) -> None:
        assert 'stdout is closed' in in_shell(src, (*EXPORT, filled.backups[0]), '>&-')


@contextlib.contextmanager
def half_done(
    cloud: shell.Cloud, export: chains.Export, *options: object
) -> collections.abc.Iterator['subprocess.Popen[bytes]']:
    """An import that has read half of its input and waits for the rest."""
    process = subprocess.Popen(
        cloud.command(
            *IMPORT, '--metadata', export.record, '--format', export.image.suffix[1:], *options
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cloud.environment,
    )
    content = export.image.read_bytes()
    with process:
        assert process.stdin is not None
        process.stdin.write(content[: len(content) // 2])
        process.stdin.flush()
        while _waiting_bytes(process.stdin) and process.poll() is None:
            time.sleep(0.01)
        try:
            yield process
        finally:
            process.kill()


def _waiting_bytes(pipe: typing.IO[bytes]) -> int:
    """Return how much of what was written to a pipe nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def ended(process: 'subprocess.Popen[bytes]', timeout: float = 60) -> str:
    """Return what a process that is about to fail wrote to stderr."""
    assert process.stderr is not None
    process.wait(timeout)
    command = subprocess.CompletedProcess(process.args, process.returncode, b'', b'')
    command.stderr = process.stderr.read()
    return said(command)


SIGNALS = pytest.mark.parametrize(
    'number', [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)


def writes_below(pid: int, folder: pathlib.Path) -> bool:
    """Tell whether a process has a file open in a folder, which need not have a name yet."""
    for descriptor in pathlib.Path(f'/proc/{pid}/fd').glob('*'):
        with contextlib.suppress(OSError):
            if str(descriptor.readlink()).startswith(f'{folder}/'):
                return True
    return False


class TestStopped:
    @SIGNALS
    def test_a_new_image(
        self, dst: shell.Cloud, pool: ceph.Pool, diffs: list[chains.Export], number: signal.Signals
    ) -> None:
        with pool.unchanged(), half_done(dst, diffs[0]) as process:
            assert any(name.endswith('.part') for name in pool.images())
            process.send_signal(number)
            assert f'Stopped by {number.name}' in ended(process)

    def test_an_increment(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        diffs: list[chains.Export],
    ) -> None:
        chains.forget(dst, resources, filled)
        chains.import_image(dst, *diffs[0].arguments)
        with pool.unchanged(), half_done(dst, diffs[1]) as process:
            process.send_signal(signal.SIGINT)
            assert 'Run the same command again' in ended(process)
        # As if nothing had been written: HEAD, too.
        assert pool.checksum(filled.image) == filled.sums[0]
        assert chains.import_image(dst, *diffs[1].arguments)['result'] == 'imported'
        assert pool.checksum(filled.image) == filled.sums[1]

    @pytest.mark.long
    @pytest.mark.parametrize('features', ['new image', 'as by Cinder', 'layering only'])
    def test_a_run_that_was_stopped_for_too_long(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        diffs: list[chains.Export],
        features: str,
    ) -> None:
        """It must not write under the snapshot that another run has made meanwhile."""
        chains.forget(dst, resources, filled)
        number = 0
        if features != 'new image':
            chains.import_image(dst, *diffs[0].arguments)
            number = 1
        if features == 'layering only':
            pool.rbd(
                'feature', 'disable', filled.image, 'fast-diff', 'object-map', 'exclusive-lock'
            )
        with half_done(dst, diffs[number]) as process:
            process.send_signal(signal.SIGSTOP)
            assert chains.import_image(dst, *diffs[number].arguments)['result'] == 'imported'
            content = pool.contents()

            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            written = diffs[number].image.read_bytes()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(written[len(written) // 2 :])
                process.stdin.close()
            error = ended(process)
        assert 'another run' in error
        assert 'took over' in error or 'have taken over' in error
        pool.expect(content)
        snapshot = pool.snapshot_of(filled.image, filled.backups[number])
        assert pool.checksum(snapshot) == filled.sums[number]
        assert pool.checksum(filled.image) == filled.sums[number]
        assert chains.import_image(dst, *diffs[number].arguments)['result'] == 'already there'

    @SIGNALS
    def test_an_export_to_a_file(
        self,
        src: shell.Cloud,
        filled: chains.Chain,
        number: signal.Signals,
        tmp_path: pathlib.Path,
    ) -> None:
        command = src.command(*EXPORT, filled.backups[0], '--file', tmp_path / 'image')
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=src.environment) as process:
            while process.poll() is None and not writes_below(process.pid, tmp_path):
                time.sleep(0.01)
            process.send_signal(number)
            assert f'Stopped by {number.name}' in ended(process)
        assert not list(tmp_path.iterdir())

    @SIGNALS
    def test_an_export_to_a_pipe(
        self, src: shell.Cloud, filled: chains.Chain, number: signal.Signals
    ) -> None:
        command = src.command(*EXPORT, filled.backups[0])
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=src.environment
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1000)
            process.send_signal(number)
            assert f'Stopped by {number.name}' in ended(process)

    @pytest.mark.long
    def test_killed_and_run_again(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        diffs: list[chains.Export],
        other: chains.Chain,
        others: chains.Export,
    ) -> None:
        """Once in the middle of a new image, once in the middle of an increment."""
        chains.forget(dst, resources, filled)
        clean = pool.contents()
        chains.import_image(dst, *diffs[0].arguments)
        with half_done(dst, diffs[1]) as increment, half_done(dst, others) as new:
            increment.kill()
            new.kill()
        results = chains.side_by_side(
            functools.partial(chains.import_image, dst, *diffs[1].arguments),
            functools.partial(chains.import_image, dst, *others.arguments),
        )
        assert [result['result'] for result in results] == ['imported', 'imported']
        begun = dataclasses.replace(filled, backups=filled.backups[:2])
        assert begun.sums_of(pool) == filled.sums[:2]
        assert other.sums_of(pool) == other.sums
        for chain in (filled, other):
            pool.clear(chain.volume_id, chain.backups)
        pool.expect(clean)

    @pytest.mark.long
    @pytest.mark.usefixtures('only_in_the_sandbox')
    @pytest.mark.long
    def test_a_cluster_that_is_lost(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        diffs: list[chains.Export],
        tmp_path: pathlib.Path,
    ) -> None:
        chains.forget(dst, resources, filled)
        conf = ceph.conf_with(pool, tmp_path, rados_osd_op_timeout=3, rados_mon_op_timeout=3)
        clean = pool.contents()
        with half_done(dst, diffs[0], '--ceph-conf', conf) as process:
            dst.service('ceph-osd', 'stop')
            try:
                assert process.stdin is not None
                content = diffs[0].image.read_bytes()
                process.stdin.write(content[len(content) // 2 :])
                process.stdin.close()
                assert re.search(r'ceph .*status', ended(process))
            finally:
                dst.service('ceph-osd', 'start')
        assert filled.image not in pool.images()
        assert chains.import_image(dst, *diffs[0].arguments)['result'] == 'imported'
        assert pool.checksum(filled.image) == filled.sums[0]
        pool.clear(filled.volume_id, filled.backups)
        pool.expect(clean)


class TestTwice:
    @pytest.mark.long
    def test_one_after_the_other(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        whole: chains.Export,
    ) -> None:
        chains.forget(dst, resources, filled)
        assert chains.import_image(dst, *whole.arguments)['result'] == 'imported'
        with pool.unchanged():
            assert chains.import_image(dst, *whole.arguments)['result'] == 'already there'

    def test_two_at_the_same_time(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        filled: chains.Chain,
        whole: chains.Export,
        diffs: list[chains.Export],
    ) -> None:
        """The same one twice, and a part of it."""
        chains.forget(dst, resources, filled)
        results = chains.side_by_side(
            *(
                functools.partial(chains.import_image, dst, *export.arguments)
                for export in (whole, whole, diffs[0])
            )
        )
        assert sorted(result['result'] for result in results[:2]) == ['already there', 'imported']
        assert filled.sums_of(pool) == filled.sums
        assert pool.checksum(filled.image) == filled.sums[2]
        locks = [name for name in pool.contents() if name.startswith('osc-backup-port.')]
        assert not [name for name in locks if filled.volume_id in name]
