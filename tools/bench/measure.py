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

"""Running two commands in turn, and what each run of them took.

The figures are those that the kernel keeps of a finished process and all that it waited for:
a pipeline is measured as a whole, but its peak memory is that of its largest process.
"""

import contextlib
import dataclasses
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .place import undisturbed

_RUNNER = """
import os, sys, time
started = time.monotonic()
null = os.open(os.devnull, os.O_WRONLY)
child = os.posix_spawn('/bin/bash', ['bash', '-c', sys.argv[1]], os.environ,
                       file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
_, status, used = os.wait4(child, 0)
print(time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(1 if status else 0)
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished run: seconds, seconds, MiB."""

    wall: float
    cpu: float
    peak: float


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Runs of ours and of the peer, in turn; the first of each warmed up and is not here."""

    ours: list[Run]
    peer: list[Run]

    @property
    def ratio(self) -> float:
        """How many times faster ours is: the median of the pairs."""
        pairs = zip(self.ours, self.peer, strict=True)
        return statistics.median(peer.wall / ours.wall for ours, peer in pairs)


class Failed(Exception):
    """A command did not do what it should."""


def median(runs: Sequence[Run], field: str) -> float:
    return float(statistics.median(getattr(run, field) for run in runs))


def in_turn(
    ours: str,
    peer: str,
    count: int,
    environment: dict[str, str],
    between: Callable[[], None],
    warming: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Pairs:
    """Run A B A B, each *count* times after a run of both that is not counted.

    :param warming: is around each of those
    """
    found = Pairs([], [])
    try:
        for number in range(count + 1):
            for command, runs in ((ours, found.ours), (peer, found.peer)):
                between()
                with contextlib.nullcontext() if number or not count else warming():
                    finished = once(command, environment)
                if number or not count:
                    runs.append(finished)
    finally:
        with undisturbed():
            between()
    return found


def once(command: str, environment: dict[str, str]) -> Run:
    """Run a line of bash, in which every part of a pipeline has to succeed.

    Another process, small and fresh, starts it and asks the kernel: what is started inherits
    the peak memory of who starts it.
    """
    log = Path(environment['BENCH_FOLDER']) / 'stderr'
    with log.open('wb') as stderr:
        process = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', _RUNNER, f'set -euo pipefail; {command}'],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            start_new_session=True,
        )
        try:
            told, _ = process.communicate()
        except BaseException:
            _end_group(process)
            raise
    if process.returncode:
        raise Failed(f'{command}\nfailed: {log.read_text()[-2000:]}')
    wall, cpu, peak = map(float, told.split())
    return Run(wall, cpu, peak / 1024)


def _end_group(process: 'subprocess.Popen[bytes]') -> None:
    """End a command with all that it started, and wait until they are gone."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    process.wait()


def joined(*words: object) -> str:
    """Return words as a shell takes them."""
    return shlex.join(str(word) for word in words)
