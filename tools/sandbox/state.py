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

"""The state file: the ports and secrets chosen at a cloud's first start, and the lock."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import model, ports
from .errors import SandboxError
from .files import write
from .model import Cloud
from .progress import say
from .settings import Settings, make_private


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the sandbox for this process alone; wait for another one that has it."""
    make_private(settings.state)
    with settings.lock_file.open('w') as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('sandbox', 'another run is at work here, waiting for it')
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def known(settings: Settings) -> list[Cloud]:
    """Return the clouds that were started before, in the order they were made."""
    return [_cloud(settings, name, entry) for name, entry in _read(settings).items()]


def find(settings: Settings, name: str) -> Cloud:
    """Return the cloud NAME; raise SandboxError when there is none."""
    for cloud in known(settings):
        if cloud.name == name:
            return cloud
    raise SandboxError(f"there is no cloud {name!r} in {settings.state}; 'up {name}' makes it")


def find_or_make(settings: Settings, names: Sequence[str]) -> list[Cloud]:
    """Return the clouds NAMES; the ones that are new get their ports and secrets now."""
    entries = _read(settings)
    for name in names:
        if model.check_name(name) not in entries:
            taken = [port for entry in entries.values() for port in entry['ports'].values()]
            entries[name] = {
                'ports': ports.choose(model.PORTS, taken),
                'secrets': model.new_secrets(),
            }
    _write(settings, entries)
    return [_cloud(settings, name, entries[name]) for name in dict.fromkeys(names)]


def forget(settings: Settings, names: Sequence[str]) -> None:
    """Remove the clouds NAMES from the state file."""
    entries = {name: entry for name, entry in _read(settings).items() if name not in names}
    _write(settings, entries)


def _read(settings: Settings) -> dict[str, dict[str, Any]]:
    try:
        content: dict[str, dict[str, Any]] = json.loads(settings.state_file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SandboxError(f'{settings.state_file}: {error}') from None
    return content


def _write(settings: Settings, entries: dict[str, dict[str, Any]]) -> None:
    write(settings.state_file, json.dumps(entries, indent=1) + '\n')


def _cloud(settings: Settings, name: str, entry: dict[str, Any]) -> Cloud:
    return Cloud(
        name=name,
        root=settings.state / name,
        sockets=settings.sockets / name,
        venv=settings.venv,
        ports=entry['ports'],
        secrets=entry['secrets'],
    )
