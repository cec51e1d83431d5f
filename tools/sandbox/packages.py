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

"""The programs of the distribution that the sandbox needs."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

from . import rabbit
from .errors import SandboxError
from .process import PATH
from .progress import say

# What shows that a package is there, and the package. Files, because that is quick and tells
# the truth on other distributions, too.
_PROGRAMS = {
    'ceph-mon': 'ceph-mon',
    'ceph-mgr': 'ceph-mgr',
    'ceph-osd': 'ceph-osd',
    'ceph': 'ceph-common',
    'rbd': 'ceph-common',
    'radosgw': 'radosgw',
    'qemu-img': 'qemu-utils',
    'zstd': 'zstd',
    'mariadbd': 'mariadb-server',
    'mariadb-install-db': 'mariadb-server',
    'mariadb': 'mariadb-client',
    'epmd': 'erlang-base',
    'setpriv': 'util-linux',
    'unshare': 'util-linux',
    rabbit.SERVER: 'rabbitmq-server',
}
_MODULES = {'rados': 'python3-rados', 'rbd': 'python3-rbd', 'ensurepip': 'python3-venv'}
_POLICY = Path('/usr/sbin/policy-rc.d')


def missing(wanted: Collection[str] = ()) -> list[str]:
    """Return the names of the packages that are missing, of those WANTED or of all."""
    absent = {name for program, name in _PROGRAMS.items() if not shutil.which(program, path=PATH)}
    probe = (
        'import importlib.util, sys\n'
        'print(*[name for name in sys.argv[1:] if not importlib.util.find_spec(name)])'
    )
    done = subprocess.run(
        ['/usr/bin/python3', '-I', '-c', probe, *_MODULES], capture_output=True, text=True
    )
    absent |= {_MODULES[name] for name in done.stdout.split()}
    return sorted(absent.intersection(wanted or absent))


def command(names: list[str]) -> list[str]:
    """Return the command that installs the packages NAMES."""
    return ['apt-get', 'install', '-y', '--no-install-recommends', *names]


def check() -> None:
    """Raise SandboxError with the command to run when a package is missing."""
    names = missing()
    if names:
        raise SandboxError(
            "some packages are missing. Run 'python3 tools/sandbox install', or as root:\n"
            f'    apt-get update && {" ".join(command(names))}'
        )


def install(wanted: Collection[str] = ()) -> None:
    """Install what is missing, of WANTED or of all; nothing is done when it is there."""
    names = missing(wanted)
    if not names:
        return
    say('sandbox', f'installing {" ".join(names)}')
    root = [] if os.geteuid() == 0 else ['sudo']
    environment = ['env', 'DEBIAN_FRONTEND=noninteractive']
    held = _hold_services(root)
    try:
        for step in (['apt-get', 'update'], command(names)):
            if subprocess.run([*root, *environment, *step]).returncode:
                raise SandboxError(f'{" ".join(step)} failed')
    finally:
        if held:
            subprocess.run([*root, 'rm', '-f', str(_POLICY)])
    names = missing(wanted)
    if names:
        raise SandboxError(f'still missing after the installation: {" ".join(names)}')


def _hold_services(root: list[str]) -> bool:
    """Keep the packages from starting servers of the system; say whether that is to be undone.

    Debian's scripts ask policy-rc.d, and 101 means no.
    """
    if _POLICY.exists():
        return False
    with tempfile.NamedTemporaryFile('w', suffix='.policy') as script:
        script.write('#!/bin/sh\nexit 101\n')
        script.flush()
        copy = ['install', '-m', '755', script.name, str(_POLICY)]
        return subprocess.run([*root, *copy]).returncode == 0
