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

"""Daemons: started in their own session, known by a pid file, stopped for certain.

A pid file holds the pid together with the moment the kernel started that process, and the boot
it belongs to. Only when all three still fit is the process ours: a pid that the kernel gave to
somebody else, or a file from before a reboot, is never mistaken for a daemon.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import ports, waiting
from .errors import CancelledError, DaemonError, SandboxError
from .files import write

# In the environment of everything that we start; tells our children apart from others.
MARK = 'OBP_SANDBOX_DAEMON'
PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


@dataclass(frozen=True)
class Daemon:
    """One long-running program of one cloud.

    ``missing`` says in words what is still missing until it can be used, and nothing when it is
    ready. ``root`` is the cloud's folder. ``port`` is where it listens, if we chose it.
    """

    cloud: str
    name: str
    command: Sequence[str]
    root: Path
    environment: Mapping[str, str]
    missing: Callable[[], str] = field(compare=False)
    port: int | None = None
    ready_seconds: float = 90

    @property
    def log(self) -> Path:
        return self.root / 'log' / f'{self.name}.log'

    @property
    def pid_file(self) -> Path:
        return self.root / 'run' / f'{self.name}.json'

    @property
    def mark(self) -> str:
        return f'{self.root}:{self.name}'

    def failure(self, reason: str) -> DaemonError:
        return DaemonError(self.cloud, self.name, reason, self.log)


@dataclass(frozen=True)
class Running:
    """What the pid file says; ``started`` is in seconds since the epoch."""

    pid: int
    ticks: int
    boot: str
    started: float


def start_ticks(pid: int) -> int | None:
    """Return when the kernel started PID, in clock ticks since boot; None if it does not run.

    A zombie does not run: it only waits for its parent.
    """
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses and can itself hold anything.
    fields = stat.rpartition(')')[2].split()
    return None if fields[0] in 'ZX' else int(fields[19])


def boot_id() -> str:
    """Return what the kernel calls this boot."""
    return Path('/proc/sys/kernel/random/boot_id').read_text().strip()


def read_pid_file(path: Path) -> Running | None:
    """Return what PATH says, None when there is no such file or it cannot be read."""
    try:
        return Running(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running(daemon: Daemon) -> Running | None:
    """Return the process of DAEMON, None when it does not run."""
    known = read_pid_file(daemon.pid_file)
    if known is None or known.boot != boot_id() or start_ticks(known.pid) != known.ticks:
        return None
    return known


def members(daemon: Daemon) -> list[int]:
    """Return every living process that came out of DAEMON, itself included.

    Children inherit the mark. Workers that outlive a killed parent are found by it, wherever
    they moved to.
    """
    wanted = f'{MARK}={daemon.mark}'.encode()
    found = []
    for entry in os.scandir('/proc'):
        if not entry.name.isdigit():
            continue
        try:
            environment = Path(entry.path, 'environ').read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b'\0') and start_ticks(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def base_environment(home: Path, temporary: Path) -> dict[str, str]:
    """Return the environment of a daemon: nothing of the user's gets in."""
    return {
        'PATH': PATH,
        'HOME': str(home),
        'TMPDIR': str(temporary),
        'LANG': 'C.UTF-8',
        'LC_ALL': 'C.UTF-8',
    }


def start(daemon: Daemon) -> bool:
    """Start DAEMON unless it runs; say whether it was started. Does not wait until it is ready."""
    if running(daemon):
        return False
    stop(daemon)  # What is left of one that was killed.
    if daemon.port and not ports.is_free(daemon.port):
        raise SandboxError(
            f'{daemon.cloud}: {daemon.name} needs port {daemon.port} of {ports.HOST}, which '
            f"another program uses. Stop that program, or run 'down --purge' to choose new ports."
        )
    daemon.log.parent.mkdir(parents=True, exist_ok=True)
    if daemon.log.exists():
        # A log tells of one run, the one before is kept beside it.
        daemon.log.replace(daemon.log.with_suffix('.log.old'))
    with daemon.log.open('wb') as log:
        child = subprocess.Popen(
            daemon.command,
            env={**daemon.environment, MARK: daemon.mark},
            # As init does; the OSD of Debian 13 finds its plugins only from here.
            cwd='/',
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    record = {
        'pid': child.pid,
        'ticks': start_ticks(child.pid) or 0,
        'boot': boot_id(),
        'started': time.time(),
    }
    write(daemon.pid_file, json.dumps(record))
    return True


def wait_ready(daemon: Daemon) -> None:
    """Wait until DAEMON can be used; raise DaemonError when it dies or takes too long."""

    def missing() -> str:
        if not running(daemon):
            raise daemon.failure('ended while starting; the end of its log:')
        return daemon.missing()

    what = waiting.until(missing, daemon.ready_seconds)
    if what:
        raise daemon.failure(
            f'was not ready after {daemon.ready_seconds:.0f} s ({what}); the end of its log:'
        )


def launch(daemon: Daemon) -> bool:
    """Start DAEMON and wait until it is ready; say whether it had to be started."""
    started = start(daemon)
    wait_ready(daemon)
    return started


def stop(daemon: Daemon, seconds: float = 20) -> bool:
    """Stop DAEMON and all that came out of it; say whether anything ran.

    It is asked first, and killed after SECONDS.
    """
    leader = running(daemon)
    if leader:
        _signal([leader.pid], signal.SIGTERM)
        _wait_gone(lambda: running(daemon) is None, seconds)
    left = members(daemon)
    if left:
        # Children usually follow their parent by themselves.
        _wait_gone(lambda: not members(daemon), 1 if leader else 0)
    deadline = time.monotonic() + 5
    while (alive := members(daemon)) and time.monotonic() < deadline:
        _signal(alive, signal.SIGKILL)
        time.sleep(0.05)
    daemon.pid_file.unlink(missing_ok=True)
    return bool(leader or left)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_gone(gone: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not gone() and time.monotonic() < deadline:
        time.sleep(0.05)


def run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    seconds: float = 300,
    text: str = '',
) -> str:
    """Run COMMAND to its end and return its stdout; TEXT goes to its stdin.

    Raises SandboxError with the end of what it printed when it fails or takes too long.
    """
    try:
        # It dies with us: nothing may change a database that the next run looks at.
        child = subprocess.Popen(
            ['setpriv', '--pdeathsig', 'KILL', *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise SandboxError(f'{command[0]}: {error.strerror}') from None
    output, errors = _communicate(child, command, text, seconds)
    if child.returncode:
        tail = '\n'.join(f'    {line}' for line in (output + errors).splitlines()[-20:])
        raise SandboxError(f'{" ".join(command)}: exit code {child.returncode}\n{tail}')
    return output


def _communicate(
    child: subprocess.Popen[str], command: Sequence[str], text: str, seconds: float
) -> tuple[str, str]:
    """Return what CHILD prints; kill it after SECONDS, or when everything is cancelled."""
    deadline = time.monotonic() + seconds
    given: str | None = text
    while True:
        try:
            return child.communicate(given, timeout=min(seconds, 0.5))
        except subprocess.TimeoutExpired:
            given = None  # It goes on where it was, with what it was given at first.
            overdue = time.monotonic() >= deadline
            if overdue or waiting.cancelled.is_set():
                child.kill()
                child.communicate()
                words = ' '.join(command)
                if overdue:
                    raise SandboxError(f'{words}: no end after {seconds:.0f} s') from None
                raise CancelledError(f'{words}: cancelled') from None
