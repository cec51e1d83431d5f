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

"""The object ``backup.<backup id>.meta`` with the metadata of the volume.

Without it a restore loses the name, the properties, the image properties and
the bootable flag of the volume.  As a file it has the name of the object.
"""

import enum
import pathlib

from osc_backup_port import documents, errors, files, model
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver


class Outcome(enum.Enum):
    """What became of the volume metadata of a backup."""

    STORED = enum.auto()
    PRESENT = enum.auto()
    #: There is none: a restore will bring back neither name, properties nor the bootable flag.
    NONE = enum.auto()


def file_beside(image_file: pathlib.Path, backup_id: str) -> pathlib.Path:
    """Return where the metadata lies that belongs to the file of an image."""
    return image_file.with_name(ceph_driver.metadata_object(backup_id))


def read_file(path: pathlib.Path, required: bool) -> bytes | None:
    """Return the content of a metadata file, None where there is none.

    :raises InvalidInput: it is not what Cinder writes
    """
    content: bytes | None
    if required:
        # The user has named it: it may be a pipe.
        with path.open('rb') as file:
            content = file.read(model.MAX_VOLUME_METADATA + 1)
    else:
        content = files.read_file(path, model.MAX_VOLUME_METADATA)
    if content is None:
        return None
    try:
        is_too_large = len(content) > model.MAX_VOLUME_METADATA
        version = None if is_too_large else documents.read_json(content)['version']
    except (ValueError, KeyError, TypeError):
        version = None
    if version not in (1, 2):
        raise errors.InvalidInput(
            f'{path}: is not the metadata of a volume: expected a JSON object with "version": 2.',
            'Export the image again, or move this file away to import without it.',
        )
    return content


def check(pool: ceph_pool.Pool, backup_id: str, content: bytes | None) -> bool:
    """Make sure that *content* can be imported; tell whether there is some already.

    :raises Conflict: the pool has other metadata for this backup
    """
    name = ceph_driver.metadata_object(backup_id)
    there = pool.read_object(name)
    if content is not None and there not in (None, content):
        raise errors.Conflict(
            f'Object {name} in pool {pool.name}: is there with other content.',
            f'Look at both: {pool.commands.rados("get", name, "-")}. To take the file, remove the '
            f'object first: {pool.commands.rados("rm", name)}',
        )
    return there is not None


def store(pool: ceph_pool.Pool, backup_id: str, content: bytes | None) -> Outcome:
    """Write the object, of which :func:`check` has told that it is not there."""
    if content is None:
        return Outcome.NONE
    pool.write_object(ceph_driver.metadata_object(backup_id), content)
    return Outcome.STORED
