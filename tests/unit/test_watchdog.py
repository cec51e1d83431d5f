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

"""A signal is answered, even where a library waits for a cluster for ever."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from osc_backup_port.ceph import cluster as ceph_cluster
from osc_backup_port.osc import watchdog
from tests.fakes import ceph as fake_ceph

#: A call into a library that no signal ends: a lock that is taken twice.
STUCK = """
import argparse, ctypes, sys, threading
from osc_backup_port import errors
from osc_backup_port.ceph import cluster
from osc_backup_port.osc import base
cluster.silent_pools = lambda seconds: {silent}
class Command:
    def run(self, parsed_args):
        libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(lock)
        # Told by a thread, when this one is in the library: a signal before that is answered.
        threading.Timer(1, print, ['begun'], dict(flush=True)).start()
        libc.pthread_mutex_lock(lock)
class Ours(base.CommandMixin, Command):
    pass
Ours().run(argparse.Namespace())
"""


def stopped(silent: list[str], timeout: float) -> 'subprocess.CompletedProcess[str] | None':
    """Return what became of a stuck command after a signal; None: it still runs."""
    with subprocess.Popen(
        [sys.executable, '-c', STUCK.format(silent=silent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'begun\n'
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
        _out, error = process.communicate()
        return subprocess.CompletedProcess([], process.returncode, '', error)


def test_where_the_cluster_is_silent_the_process_ends() -> None:
    process = stopped(['backups'], 30)

    assert process is not None
    assert process.returncode == 1
    assert 'Stopped by SIGTERM. The cluster of pool backups does not answer' in process.stderr
    assert 'run the same command again' in process.stderr


def test_where_the_cluster_answers_it_is_waited_for() -> None:
    assert stopped([], 4) is None


def test_nothing_of_it_stays() -> None:
    threads, before = threading.active_count(), signal.set_wakeup_fd(-1)
    with watchdog.leaving_when_lost():
        assert threading.active_count() == threads + 1

    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(before) == -1


def test_a_pool_is_asked(cluster: fake_ceph.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits, and one that answers with an error, which is an answer, too."""
    pool = cluster.pool()
    monkeypatch.setattr(ceph_cluster, '_OPEN', {pool})
    assert ceph_cluster.silent_pools(1) == []
    cluster.silent = True
    started = time.monotonic()

    assert ceph_cluster.silent_pools(0.2) == ['backups']
    assert time.monotonic() - started < 5
