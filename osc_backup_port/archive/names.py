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

"""The names of everything in an archive, and which of them are safe.

A name from an archive is never used before one of these patterns has matched
it, so that none can climb out of the folder.
"""

import re

from osc_backup_port import errors
from osc_backup_port.driver import ceph as ceph_driver

ARCHIVE = 'archive.json'
IMAGE = 'image.json'
RECORD = 'record.json'
VOLUME_METADATA = 'volume-metadata.json'
INCREMENT = 'increment.json'
#: Of a writer, in the folder of an image.
LOCK = 'lock.json'

#: Whose an increment's folder is, in a store that keeps no locks.
WRITER = 'writer.json'

_UUID = r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
_IMAGE = re.compile(rf'volume-{_UUID}\.backup\.({_UUID}|base)', re.ASCII)
_INCREMENT = re.compile(rf'(0|[1-9][0-9]{{0,8}})-({_UUID})', re.ASCII)
_SEGMENT = re.compile(r'([0-9]{5}|[1-9][0-9]{5,8})\.rbd-diff(\.zst)?', re.ASCII)
_NOTE = re.compile(
    rf'lock(\.[0-9a-f]+)?\.json|{_UUID}\.commit\.json|writer\.json|increment\.json\.new',
    re.ASCII,
)
#: The names of snapshots that an archive takes are those that Cinder gives.
backup_of_snapshot = ceph_driver.backup_of_snapshot
_PROOF = re.compile(r'[0-9]{5,9}\.proof\.json', re.ASCII)


def is_image(name: str) -> bool:
    return _IMAGE.fullmatch(name) is not None


def check_image(name: str) -> str:
    """Return the name of an image, if it is one that Cinder gives.

    :raises InvalidInput: it is not
    """
    if not is_image(name):
        raise errors.InvalidInput(
            f'{name!r} is not the name of an image of a backup, which is '
            'volume-<volume id>.backup.<backup id or base>.'
        )
    return name


def increment(number: int, backup_id: str) -> str:
    return f'{number}-{backup_id}'


def parse_increment(name: str) -> tuple[int, str] | None:
    """Return number and backup id of an increment's folder, None for another."""
    match = _INCREMENT.fullmatch(name)
    return (int(match.group(1)), match.group(2)) if match else None


def is_uuid(text: str) -> bool:
    return re.fullmatch(_UUID, text) is not None


def segment(number: int, compressed: bool) -> str:
    return f'{number:05}.rbd-diff{".zst" if compressed else ""}'


def parse_segment(name: str) -> int | None:
    """Return the number of a segment, None for another file."""
    match = _SEGMENT.fullmatch(name)
    return int(match.group(1)) if match else None


def commit(backup_id: str) -> str:
    """Return the name of the object by which a backup is committed in an object store."""
    return f'{backup_id}.commit.json'


def parse_commit(name: str) -> str | None:
    """Return the id of the backup that an object commits, None for another object."""
    backup_id = name.removesuffix('.commit.json')
    return backup_id if backup_id != name and is_uuid(backup_id) else None


def proof(first: int) -> str:
    """Return the name of the file that says what segments from *first* on were written."""
    return f'{first:05}.proof.json'


def is_proof(name: str) -> bool:
    return _PROOF.fullmatch(name) is not None


def is_data(name: str) -> bool:
    """Tell whether a file is a segment, or says what was written into some."""
    return parse_segment(name) is not None or is_proof(name)


def is_note(name: str) -> bool:
    """Tell whether a file is one that writers keep for each other; no reader needs it."""
    return _NOTE.fullmatch(name) is not None or is_proof(name)


def is_part(name: str) -> bool:
    """Tell whether a file in a folder is one that a dead run was writing."""
    return name.endswith('.part')


def is_compressed(segment_name: str) -> bool:
    return segment_name.endswith('.zst')
