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

"""The clouds that are measured with: those of the sandbox."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sandbox import settings, state
from sandbox.errors import SandboxError

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = Path(__file__).resolve().parent / 'ours.py'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The pool of a cloud's backups."""

    cloud: str
    conf: str
    user: str
    pool: str

    @property
    def rbd(self) -> str:
        """The beginning of a command of the stock tool."""
        return f'rbd --conf {self.conf} --id {self.user} --pool {self.pool} --no-progress'

    @property
    def ours(self) -> str:
        """The beginning of one of ours: an operation in a fresh process."""
        # What packages of the environment have Python do at each start is none of it: -S.
        return f'{sys.executable} -S {OURS} {self.conf} {self.user} {self.pool}'

    @contextlib.contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Make every operation of the OSD wait before it is carried out."""
        name = 'osd_debug_inject_dispatch_delay'
        if seconds:
            self._admin('set', f'{name}_duration', str(seconds))
            self._admin('set', f'{name}_probability', '1.0')
        try:
            yield
        finally:
            if seconds:
                with undisturbed():
                    self._admin('rm', f'{name}_probability')
                    self._admin('rm', f'{name}_duration')

    @contextlib.contextmanager
    def compressing(self) -> Iterator[None]:
        """Let the OSD keep what can be compressed in less of the disk."""
        settings = {
            'compression_algorithm': 'snappy',
            # In pieces of 8 KiB, as it is by default, no more than a half would be saved.
            'compression_min_blob_size': 512 * 1024,
            'compression_max_blob_size': 512 * 1024,
            'compression_mode': 'force',
        }
        try:
            for name, value in settings.items():
                self._ceph('osd', 'pool', 'set', self.pool, name, str(value))
            yield
        finally:
            with undisturbed():
                self._ceph('osd', 'pool', 'set', self.pool, 'compression_mode', 'none')

    def _admin(self, verb: str, *words: str) -> None:
        self._ceph('config', verb, 'osd.0', *words)

    def _ceph(self, *words: str) -> None:
        subprocess.run(['ceph', '--conf', self.conf, *words], check=True, capture_output=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no second signal stop the block, which cleans up after the first."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def clusters() -> dict[str, Cluster]:
    """Return the clusters of the clouds that are known, by the name of the cloud."""
    return {
        cloud.name: Cluster(
            cloud.name, str(cloud.ceph_conf), 'cinder-backup', str(cloud.backup_pool)
        )
        for cloud in state.known(settings.load())
    }


def environment(folder: Path) -> dict[str, str]:
    """Return what a measured command finds in its environment."""
    return {
        'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        'HOME': str(folder),
        'LANG': 'C.UTF-8',
        'PYTHONPATH': ':'.join([str(ROOT), *(path for path in sys.path if 'packages' in path)]),
        'OS_CLIENT_CONFIG_FILE': str(settings.load().clouds_yaml),
        'BENCH_FOLDER': str(folder),
    }


__all__ = ['Cluster', 'SandboxError', 'clusters', 'environment', 'undisturbed']
