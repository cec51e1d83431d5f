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

"""The virtual environment of the services; several checkouts may share one."""

import fcntl
import hashlib
import os
from pathlib import Path

from .files import is_done, mark_done
from .process import run
from .progress import say
from .settings import HERE

# What is wanted, and the exact version of everything that comes with it. To renew the second:
# install the first into a virtual environment without the distribution's packages, pip freeze.
REQUIREMENTS = HERE / 'requirements.txt'
CONSTRAINTS = HERE / 'constraints.txt'


def ensure(venv: Path) -> None:
    """Make VENV, with what the requirements name; quick when it is there."""
    wanted = REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes()
    version = hashlib.sha256(wanted).hexdigest()
    marker = venv / 'sandbox-requirements'
    if is_done(marker, version):
        return
    venv.parent.mkdir(parents=True, exist_ok=True)
    with venv.with_name(venv.name + '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_done(marker, version):
            _make(venv)
            mark_done(marker, version)


def _make(venv: Path) -> None:
    say('sandbox', f'installing the services into {venv}')
    ignored = ('PYTHONHOME', 'PYTHONPATH', 'PYTHONDONTWRITEBYTECODE')
    # The rest of the user's environment stays: it says where packages come from.
    environment = {key: value for key, value in os.environ.items() if key not in ignored}
    # The distribution's Python, because rados and rbd come only as packages for it.
    make = ['/usr/bin/python3', '-m', 'venv', '--system-site-packages', str(venv)]
    run(make, environment)
    files = ['--requirement', str(REQUIREMENTS), '--constraint', str(CONSTRAINTS)]
    pip = [f'{venv}/bin/python', '-m', 'pip', '--disable-pip-version-check']
    run([*pip, 'install', '--quiet', *files], environment, seconds=1800)
