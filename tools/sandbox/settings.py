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

"""Where things are: all state is under one folder."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import SandboxError

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """The folders of this sandbox; all absolute."""

    state: Path
    venv: Path
    sockets: Path

    @property
    def clouds_yaml(self) -> Path:
        return self.state / 'clouds.yaml'

    @property
    def state_file(self) -> Path:
        return self.state / 'state.json'

    @property
    def lock_file(self) -> Path:
        return self.state / 'lock'


def load() -> Settings:
    """Return the folders, from SANDBOX_DIR and SANDBOX_VENV or the defaults in the checkout."""
    default = HERE.parent.parent / '.sandbox'
    state = Path(os.environ.get('SANDBOX_DIR') or default).resolve()
    venv = Path(os.environ.get('SANDBOX_VENV') or state / 'venv').absolute()
    return Settings(state, venv, sockets_of(state))


def sockets_of(state: Path) -> Path:
    """Return the folder for Unix sockets of the sandbox in STATE.

    A socket's path is limited to 107 bytes, so it cannot be inside a checkout, which may be deep,
    nor in TMPDIR.
    """
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:10]
    return Path('/tmp') / f'obp-{digest}'


def make_private(folder: Path) -> None:
    """Make FOLDER for us alone; refuse one that somebody else made in a shared place."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise SandboxError(f'{folder} is not a folder of ours; remove it first')
    folder.chmod(0o700)
