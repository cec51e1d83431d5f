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

"""Files written whole or not at all."""

import os
from pathlib import Path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace PATH by TEXT with MODE, making the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part{os.getpid()}')
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, 'w') as stream:
        stream.write(text)
    part.replace(path)


def is_done(marker: Path, version: str = 'done') -> bool:
    """Say whether the step that MARKER stands for was finished, for this VERSION of it."""
    try:
        return marker.read_text().strip() == version
    except OSError:
        return False


def mark_done(marker: Path, version: str = 'done') -> None:
    """Remember that the step that MARKER stands for is finished."""
    write(marker, version + '\n')


def ini(sections: dict[str, dict[str, object]]) -> str:
    """Return SECTIONS in the form that oslo.config and Ceph read."""
    blocks = []
    for section, options in sections.items():
        lines = [f'{key} = {value}' for key, value in options.items()]
        blocks.append('\n'.join([f'[{section}]', *lines]))
    return '\n\n'.join(blocks) + '\n'
