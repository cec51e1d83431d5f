#!/usr/bin/python3
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


"""Read small increments again and again, under load, until librbd dies, or does not.

    python3 tools/close_race.py CEPH_CONF USER POOL [--increments N] [--control]

Each increment is read after a look at the image, as short as there is.  With ``--control``
that is an image opened at its snapshot and closed at once, as anybody would do it, which
kills the process (doc/source/reference/known-defects.rst).  Without, the way the package
opens and closes images has to hold.  An image is made in the pool, and
removed at the end.  The load is of the same niceness as the readers.

Memory that librbd has given back is overwritten at once, so that its late use is seen;
else it is seen only where that memory has got another use meanwhile.
"""

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import rbd

from osc_backup_port import model, units
from osc_backup_port.ceph import cluster
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.transfer import reading

_Look = Callable[[ceph_pool.Pool, str], None]

_IMAGE = 'osc-backup-port.close-race'
_POINTS = 21
# Of glibc: what is written over memory that is given back.
_OVERWRITE = {'MALLOC_PERTURB_': '85'}
_BUSY = 'while True: pass'
#: Seconds without an increment after which a reader hangs.
_HANGS = 120


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('conf')
    parser.add_argument('user')
    parser.add_argument('pool')
    parser.add_argument('--increments', type=int, default=20_000)
    parser.add_argument('--readers', type=int, default=5)
    parser.add_argument('--busy', type=int, default=8, help='processes that only use CPU time')
    parser.add_argument('--control', action='store_true', help='look at images without the remedy')
    parser.add_argument('--read', action='store_true', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = _arguments()
    settings = cluster.Settings(args.conf, args.user)
    if args.read:
        look = _look_as_anybody if args.control else _look_as_the_package
        return _read(settings, args.pool, args.increments, look)
    with cluster.open_pool(settings, args.pool) as pool, _chain(pool):
        return _supervise(args)


@contextlib.contextmanager
def _chain(pool: ceph_pool.Pool) -> Iterator[None]:
    pool.remove(_IMAGE)
    pool.create(_IMAGE, model.ImageLayout(units.GIB))
    with pool.open(_IMAGE, writable=True) as image:
        for number in range(_POINTS):
            done: list[object] = []
            at = number * 37 % 200 * 4 * units.MIB
            image.aio_write(os.urandom(65536), at, done.append)
            image.flush()
            image.create_snapshot(f's{number:02}')
    try:
        yield
    finally:
        pool.remove(_IMAGE)


def _look_as_anybody(pool: ceph_pool.Pool, snapshot: str) -> None:
    rbd.Image(pool._ioctx, _IMAGE, snapshot, read_only=True).close()


def _look_as_the_package(pool: ceph_pool.Pool, snapshot: str) -> None:
    with pool.open(_IMAGE, snapshot):
        pass


def _read(settings: cluster.Settings, pool_name: str, count: int, look: _Look) -> int:
    """Read so many increments, with a new client for every few of them."""
    done = 0
    while done < count:
        with cluster.open_pool(settings, pool_name) as pool:
            with pool.open(_IMAGE) as image:
                names = [snapshot.name for snapshot in image.snapshots()]
            for _ in range(10):
                for start, end in itertools.pairwise(names):
                    look(pool, end)
                    with pool.open(_IMAGE, end) as image:
                        items = list(reading.read_items(image, image.extents(start)))
                    if sum(item.length for item in items) != 65536:
                        print('wrong bytes', flush=True)
                        return 2
                    done += 1
                    print('.', end='', flush=True)
    return 0


class _Reader:
    def __init__(self, count: int) -> None:
        command = [sys.executable, *sys.argv, '--read', '--increments', str(count)]
        environment = {**os.environ, **_OVERWRITE}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._heard = time.monotonic()
        self.done = 0

    def look(self) -> int | None:
        """Count what was done; return how it ended, None while it goes on."""
        assert self._process.stdout is not None
        code = self._process.poll()
        told = self._process.stdout.read() or b''
        if told:
            self._heard = time.monotonic()
        self.done += told.count(b'.')
        if code is None and time.monotonic() - self._heard > _HANGS:
            self.kill()
            return -signal.SIGKILL
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _supervise(args: argparse.Namespace) -> int:
    busy = [subprocess.Popen([sys.executable, '-c', _BUSY]) for _ in range(args.busy)]
    share = -(-args.increments // args.readers)
    readers: list[_Reader] = []
    done, deaths, began, told = 0, 0, time.monotonic(), 0.0
    try:
        readers = [_Reader(share) for _ in range(args.readers)]
        while readers:
            time.sleep(0.2)
            for reader in list(readers):
                code = reader.look()
                if code is None:
                    continue
                readers.remove(reader)
                done += reader.done
                if code:
                    deaths += 1
                    how = signal.Signals(-code).name if code < 0 else f'exit code {code}'
                    print(f'a reader died: {how}, after {reader.done} increments', flush=True)
                    if share > reader.done:
                        readers.append(_Reader(share - reader.done))
            if time.monotonic() - told > 60 or not readers:
                told = time.monotonic()
                total = done + sum(reader.done for reader in readers)
                seconds = told - began
                print(f'{total} increments, {deaths} deaths, {seconds:.0f} s', flush=True)
    finally:
        for reader in readers:
            reader.kill()
        for process in busy:
            process.kill()
    return 1 if deaths else 0


if __name__ == '__main__':
    sys.exit(main())
