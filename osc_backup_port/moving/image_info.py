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

"""What is told of an exported image in a small file beside it: ``<file>.info``.

So an import knows the format, and does not guess it from what a disk happens to hold; and it
sees that it has the whole file, of this backup.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import typing
from collections.abc import Iterator

from osc_backup_port import documents, errors, files, record, units
from osc_backup_port.formats import image_formats, stream

_KIND = 'image of a volume backup'
_VERSION = 1
_LARGEST = 64 * units.KIB
_SHA256 = re.compile(r'[0-9a-f]{64}')


@dataclasses.dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a file holds.

    :param format: as ``--format`` takes it
    :param image_size: bytes of the volume
    :param file_size: bytes of the file
    :param sha256: of the file; None: was not computed
    """

    format: str
    backup_id: str
    image_size: int
    file_size: int
    sha256: str | None


def path_beside(image_file: pathlib.Path) -> pathlib.Path:
    return image_file.with_name(f'{image_file.name}.info')


class Output:
    """A file that an image is written to, and what is told of it.

    :ivar info: None until it is told; nobody asks where the bytes go into a pipe
    """

    def __init__(self, file: io.FileIO) -> None:
        self.file = file
        self.info: ImageInfo | None = None

    def describe(self, info: ImageInfo) -> None:
        self.info = info


@contextlib.contextmanager
def described_file(image_file: pathlib.Path) -> Iterator[Output]:
    """Write *image_file*, and what is told of it; both appear when the block ends, or none.

    A run that is killed between the two leaves the file of the image alone, which is whole.

    :raises Conflict: another file has the place of what is told
    """
    _check_place(image_file)
    with contextlib.ExitStack() as undo:
        with files.new_file(image_file) as file:
            output = Output(file)
            yield output
            _check_place(image_file)
        # Only who has got the name of the image may say what it is.
        undo.callback(image_file.unlink, missing_ok=True)
        if output.info is not None:
            files.write_file(path_beside(image_file), _encode(output.info), replace=True)
        undo.pop_all()


def _check_place(image_file: pathlib.Path) -> None:
    """See that what is told of a file that is gone is all that would be replaced."""
    path = path_beside(image_file)
    try:
        read(image_file)
    except errors.InvalidInput as error:
        raise errors.Conflict(
            f'{path}: is there already, and is no description of an image.',
            'Move it away, or choose another name for the image.',
        ) from error


def _encode(info: ImageInfo) -> bytes:
    told = {'kind': _KIND, 'version': _VERSION, **dataclasses.asdict(info)}
    return f'{json.dumps(told, indent=2)}\n'.encode()


def read(image_file: pathlib.Path) -> ImageInfo | None:
    """Return what is told of *image_file*; None where nothing is.

    :raises InvalidInput: what lies there in its place is nothing of ours
    """
    path = path_beside(image_file)
    # A pipe of that name would never end; and none can be where the name is too long.
    if not os.path.isfile(path):
        return None
    with path.open('rb') as file:
        content = file.read(_LARGEST)
    try:
        return _decode(documents.read_json(content))
    except (ValueError, KeyError, TypeError):
        raise errors.InvalidInput(
            f'{path}: is not what export-image writes beside the file of an image.',
            f'Move it away, and tell the format of {image_file.name}: --format',
        ) from None


def _decode(told: typing.Any) -> ImageInfo:
    """:raises ValueError: something is not as it is written"""
    if told['kind'] != _KIND or told['version'] != _VERSION:
        raise ValueError
    info = ImageInfo(**{field.name: told[field.name] for field in dataclasses.fields(ImageInfo)})
    sizes = (info.image_size, info.file_size)
    if info.format not in image_formats.names() or not all(type(size) is int for size in sizes):
        raise ValueError
    if info.sha256 is not None and not _SHA256.fullmatch(info.sha256):
        raise ValueError
    return info


def check(
    info: ImageInfo, reader: stream.Reader, backup: record.BackupRecord, told: str | None
) -> None:
    """Make sure that *info* is about this file and this backup.

    :param told: the format that the user told
    :raises InvalidInput: it is not
    """
    place = f'{reader.name}.info'
    if reader.size != info.file_size:
        raise errors.InvalidInput(
            f'{reader.name}: has {reader.size} bytes, {place} says {info.file_size}.',
            f'If the file was cut short, copy it again. If it is another one by now, move {place} '
            'away.',
        )
    if told not in (None, info.format):
        raise errors.InvalidInput(
            f'--format is {told}, but {place} says that {reader.name} has the format '
            f'{info.format}.',
            f'Leave --format out; or, if that is about another file, move {place} away.',
        )
    # An rbd export may hold several backups, and tells itself which; so does a diff.
    is_point = image_formats.get(info.format).holds is image_formats.Holds.POINT
    if is_point and info.backup_id != backup.id:
        raise errors.InvalidInput(
            f'{reader.name}: is of backup {info.backup_id}, says {place}; the record is of '
            f'backup {backup.id}.',
            'Give the file of this backup, or the record of that one.',
        )


def check_sha256(info: ImageInfo, reader: stream.Reader) -> None:
    """Make sure that all that was read is what was written, where that is known.

    :raises InvalidInput: it is not
    """
    found = reader.sha256
    if None not in (found, info.sha256) and found != info.sha256:
        raise errors.InvalidInput(
            f'{reader.name}: has the sha256 {found}, {reader.name}.info says {info.sha256}.',
            'The file was changed or damaged after its export, and nothing of it was imported: '
            'copy or export it again.',
        )
