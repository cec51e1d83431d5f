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

"""A pid file never leads to a process that is not ours, and nothing of ours is left behind."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import ports, process, waiting
from sandbox.errors import CancelledError, DaemonError, SandboxError
from sandbox.process import Daemon

ENVIRONMENT = {'PATH': process.PATH}


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(
        cloud='src',
        name='sleeper',
        command=['sleep', '60'],
        root=tmp_path,
        environment=ENVIRONMENT,
        missing=lambda: '',
    )
    yield daemon
    process.stop(daemon)


def test_starts_once_and_stops(sleeper: Daemon) -> None:
    assert process.running(sleeper) is None
    assert process.launch(sleeper)
    first = process.running(sleeper)
    assert first is not None
    assert not process.launch(sleeper)
    assert process.running(sleeper) == first
    assert process.stop(sleeper)
    assert process.start_ticks(first.pid) is None
    assert not sleeper.pid_file.exists()
    assert not process.stop(sleeper)


def test_a_daemon_starts_in_the_root_folder(sleeper: Daemon) -> None:
    # Where the OSD of Debian 13 looks for "lib/x86_64-linux-gnu/rados-classes".
    process.launch(sleeper)
    found = process.running(sleeper)
    assert found is not None
    assert os.readlink(f'/proc/{found.pid}/cwd') == '/'


@pytest.mark.parametrize('field', ['ticks', 'boot'])
def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(
    sleeper: Daemon, field: str
) -> None:
    with subprocess.Popen(['sleep', '60']) as other:
        record = {
            'pid': other.pid,
            'ticks': process.start_ticks(other.pid),
            'boot': process.boot_id(),
            'started': time.time(),
        }
        record[field] = 1 if field == 'ticks' else 'the boot before'
        sleeper.pid_file.parent.mkdir(parents=True)
        sleeper.pid_file.write_text(json.dumps(record))
        assert process.running(sleeper) is None
        assert not process.stop(sleeper)
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize('content', ['', '12', '{"pid": 1}', '[]', '\0'])
def test_a_damaged_pid_file_means_that_it_does_not_run(sleeper: Daemon, content: str) -> None:
    sleeper.pid_file.parent.mkdir(parents=True)
    sleeper.pid_file.write_text(content)
    assert process.running(sleeper) is None


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(['true'])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.start_ticks(child.pid) is None
    child.wait()


def test_the_program_name_may_hold_anything(tmp_path: Path) -> None:
    program = tmp_path / 'a) R 1 (b'
    program.symlink_to('/bin/sleep')
    with subprocess.Popen([program, '60']) as child:
        ticks = process.start_ticks(child.pid)
        child.kill()
    with subprocess.Popen(['sleep', '60']) as later:
        after = process.start_ticks(later.pid)
        later.kill()
    assert ticks is not None
    assert after is not None
    assert 0 <= after - ticks < 60 * os.sysconf('SC_CLK_TCK')


def test_workers_of_a_killed_parent_are_stopped_too(sleeper: Daemon) -> None:
    script = 'sleep 60 & sleep 60'
    parent = dataclasses.replace(sleeper, command=['sh', '-c', script])
    process.start(parent)
    found = process.running(parent)
    assert found is not None
    assert waiting.until(lambda: '' if len(process.members(parent)) == 3 else 'workers', 5) == ''
    os.kill(found.pid, 9)
    assert waiting.until(lambda: 'parent' if process.running(parent) else '', 5) == ''
    assert len(process.members(parent)) == 2
    assert process.stop(parent)
    assert process.members(parent) == []


def test_one_that_does_not_listen_to_reason_is_killed(sleeper: Daemon) -> None:
    script = 'import signal, time; signal.signal(15, signal.SIG_IGN); print("x"); time.sleep(60)'
    deaf = dataclasses.replace(sleeper, command=[sys.executable, '-uc', script])
    process.start(deaf)
    assert waiting.until(lambda: '' if deaf.log.read_text() else 'not deaf yet', 10) == ''
    assert process.stop(deaf, seconds=0.2)
    assert process.members(deaf) == []


def test_a_failure_shows_the_end_of_the_log_and_where_it_is(sleeper: Daemon) -> None:
    script = 'seq 100; exit 1'
    failing = dataclasses.replace(
        sleeper, command=['sh', '-c', script], missing=lambda: 'everything'
    )
    with pytest.raises(DaemonError) as caught:
        process.launch(failing)
    text = str(caught.value)
    assert text.startswith('src: sleeper ended while starting')
    assert '    100\n' in text
    assert '    80\n' not in text
    assert str(failing.log) in text


def test_one_that_never_becomes_ready_says_what_is_missing(sleeper: Daemon) -> None:
    slow = dataclasses.replace(sleeper, missing=lambda: 'no answer', ready_seconds=0.1)
    with pytest.raises(DaemonError, match=r'not ready after 0 s \(no answer\)'):
        process.launch(slow)


def test_a_port_in_use_is_named_before_anything_starts(sleeper: Daemon) -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SandboxError, match=f'needs port {port}'):
            process.start(dataclasses.replace(sleeper, port=port))
    assert process.running(sleeper) is None


def test_the_log_of_the_run_before_is_kept(sleeper: Daemon) -> None:
    for word in ('first', 'second'):
        process.start(dataclasses.replace(sleeper, command=['sh', '-c', f'echo {word}; sleep 60']))
        assert waiting.until(lambda: '' if sleeper.log.read_text() else 'log', 5) == ''
        process.stop(sleeper)
    assert sleeper.log.read_text() == 'second\n'
    assert sleeper.log.with_suffix('.log.old').read_text() == 'first\n'


def test_run_returns_the_output_and_reports_a_failure() -> None:
    assert process.run(['cat'], ENVIRONMENT, text='hello') == 'hello'
    assert process.run(['sh', '-c', 'sleep 1; cat'], ENVIRONMENT, text='later') == 'later'
    with pytest.raises(SandboxError, match=r'exit code 3\n    trouble'):
        process.run(['sh', '-c', 'echo trouble >&2; exit 3'], ENVIRONMENT)
    with pytest.raises(SandboxError, match='no end after 0 s'):
        process.run(['sleep', '60'], ENVIRONMENT, seconds=0.1)
    with pytest.raises(SandboxError, match='no-such-program: No such file'):
        process.run(['no-such-program'], ENVIRONMENT)


def test_waiting_ends_when_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    event = threading.Event()
    monkeypatch.setattr(waiting, 'cancelled', event)
    assert waiting.until(lambda: 'never', 0) == 'never'
    event.set()
    with pytest.raises(CancelledError):
        waiting.until(lambda: 'never', 60)


def test_a_program_is_killed_when_all_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    event = threading.Event()
    monkeypatch.setattr(waiting, 'cancelled', event)
    event.set()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        process.run(['sleep', '60'], ENVIRONMENT)
    assert time.monotonic() - began < 10
