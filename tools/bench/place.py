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
    """The pool of a cloud's backups.

    :ivar way: the ceph.conf by which what is measured gets there; None: that of the cloud
    """

    cloud: str
    conf: str
    user: str
    pool: str
    way: Path | None = None

    @property
    def seen_by(self) -> str:
        """The ceph.conf of what is measured."""
        return str(self.way or self.conf)

    def far(self, folder: Path, seconds: float) -> 'Cluster':
        """Return the same, whose answers take so long on their way, on the average.

        Each waits by itself, in the client, for up to twice that time.  They would wait for each
        other in the OSD, which no network does.
        """
        way = folder / f'{self.cloud}-{"far" if seconds else "near"}.conf'
        # The last section is that of clients.
        lines = [Path(self.conf).read_text()]
        if seconds:
            lines += [
                'ms_inject_delay_type = osd\n',
                'ms_inject_delay_probability = 1\n',
                f'ms_inject_delay_max = {2 * seconds}\n',
            ]
        way.write_text(''.join(lines))
        return dataclasses.replace(self, way=way)

    @contextlib.contextmanager
    def logging(self, log: Path) -> Iterator[None]:
        """Let what is measured log its messages while the block runs."""
        assert self.way is not None
        before = self.way.read_text()
        told = f'debug_ms = 1\nlog_file = {log}\nlog_coarse_timestamps = false\n'
        self.way.write_text(f'{before}{told}log_to_stderr = false\n')
        try:
            yield
        finally:
            self.way.write_text(before)

    @property
    def rbd(self) -> str:
        """The beginning of a command of the stock tool."""
        return f'rbd --conf {self.seen_by} --id {self.user} --pool {self.pool} --no-progress'

    @property
    def ours(self) -> str:
        """The beginning of one of ours: an operation in a fresh process."""
        # What packages of the environment have Python do at each start is none of it: -S.
        return f'{sys.executable} -S {OURS} {self.seen_by} {self.user} {self.pool}'

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
