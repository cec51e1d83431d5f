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

"""The bytes of one backup in a file, or out of a pipe, as a source.

The image gets the name, and the snapshot, by which Cinder finds this backup.  An rbd export
holds the backups before it as well, which come with it.
"""

import collections
import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Generator, Iterator

from osc_backup_port import errors, model, progress, record, units
from osc_backup_port.ceph import commands
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import image_formats, incoming, stream
from osc_backup_port.moving import endpoints, image_info, plan
from osc_backup_port.transfer import limits

#: Bytes of the image between two notes of how far the work is.
_PART = units.GIB


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A stream of which the format is known.

    :param size: bytes of the image, if it is a raw one
    :param stored_size: bytes that it takes on its disk; 0: not known
    :param info: what is told of it in a file beside it
    """

    reader: stream.Reader
    format: str
    size: int
    stored_size: int = 0
    info: image_info.ImageInfo | None = None

    def open(self) -> image_formats.Incoming:
        return incoming.open_stream(self.reader, self.size, self.format, self._check)

    def _check(self) -> None:
        if self.info is not None:
            image_info.check_sha256(self.info, self.reader)

    @property
    def identity(self) -> str:
        """Tells the file from every other one; empty for a pipe, which goes by once."""
        told = self.reader.identity()
        return hashlib.sha256(repr((told, self.format)).encode()).hexdigest() if told else ''


def recognise(
    reader: stream.Reader,
    backup: record.BackupRecord,
    image_format: str | None,
    info: image_info.ImageInfo | None,
    shown: progress.Progress,
    stored_size: int = 0,
) -> File:
    """Find out what a stream is, by its beginning and its size; read nothing of it.

    :param image_format: what it is, where the user tells it
    :raises InvalidInput: that cannot be told for sure, or it is nothing that can be imported
    """
    size = backup.size * units.GIB
    if info is not None:
        image_info.check(info, reader, backup, image_format)
        return File(reader, info.format, info.image_size, stored_size, info)
    by_name = image_formats.of_file_name(reader.name)
    image_format = image_format or incoming.recognise(reader, size, backup.fits, by_name)
    actual = incoming.image_size(reader, image_format, size, backup.fits)
    if actual != size:
        shown.say(
            f'{reader.name}: is taken for an image of {actual} bytes, though the record says '
            f'{size} ({backup.size} GiB). Right if the volume has that size; if not, the file '
            'was cut short.'
        )
    return File(reader, image_format, actual, stored_size)


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """The backup that a file is to hold.

    :param backup: its record
    :param parent: the record of its parent, where its own names no image
    :param volume_metadata: of the volume, as it was exported
    :param image_name: where to put it; None: where Cinder looks for it
    :param allow_foreign_image: put it into an image of another volume, if the record says so
    """

    backup: record.BackupRecord
    parent: record.BackupRecord | None = None
    volume_metadata: bytes | None = None
    image_name: str | None = None
    allow_foreign_image: bool = False

    @property
    def target(self) -> str:
        return self.image_name or ceph_driver.target_image(self.backup, self.parent)

    def check_name(self, shell: commands.Commands) -> None:
        """See that Cinder finds in the image what is put there, and that it is nobody else's.

        :raises InvalidInput: it is not so
        """
        backup, parent = self.backup, self.parent
        if not self.allow_foreign_image:
            ceph_driver.refuse_foreign_image(backup, ceph_driver.target_image(backup, parent))
        named = backup.base_image or (parent.base_image if parent else None)
        looked_at = (
            [named] if named else [ceph_driver.own_image(backup), ceph_driver.legacy_image(backup)]
        )
        if self.target not in looked_at:
            raise errors.InvalidInput(
                f'Backup {backup.id}: going by its record, Cinder looks for it in '
                f'{" and ".join(looked_at)}, and --image-name is {self.target}. It would not '
                'find the snapshot there, and restore other bytes.',
                f'Leave out --image-name. If the chain is in {self.target} already, give it the '
                f'right name first: {shell.rbd("rename", self.target, looked_at[0])}',
            )


class Source(endpoints.Source):
    """A file, and the backup that it is to hold.

    :param file: None: only to see what stands in the way
    :ivar failures: why it must not come to where it would be put
    """

    def __init__(self, file: File | None, wanted: Wanted, shell: commands.Commands) -> None:
        self.place = f'{file.format} file {file.reader.name}' if file else 'no file'
        self.failures: list[plan.Finding] = []
        try:
            wanted.check_name(shell)
        except errors.InvalidInput as error:
            self.failures.append((wanted.backup.id, error))
        self._chain = Chain(file, wanted)

    def chains(self) -> list['Chain']:
        return [self._chain]


class Chain(endpoints.SourceChain):
    """What the file holds: the backup, and in an rbd export those before it."""

    def __init__(self, file: File | None, wanted: Wanted) -> None:
        self.name = wanted.target
        # What came out of another pipe is never used.
        self.identity = (file.identity if file else '') or uuid.uuid4().hex
        self._file = file
        self._wanted = wanted
        self._size = file.size if file else wanted.backup.size * units.GIB
        self._arriving: image_formats.Incoming | None = None
        self._reading: _Reading | None = None

    def is_proven_late(self) -> bool:
        """Whether there are several points; the checksum of the file is known at its end."""
        return self._open().count > 1

    def layout(self) -> model.ImageLayout:
        return self._open().layout or model.ImageLayout(self._size)

    def steps(self, present: endpoints.Present) -> list[plan.Step]:
        backup = self._wanted.backup
        is_there = backup.id in present.names
        name = present.names[backup.id] if is_there else ceph_driver.new_snapshot(backup)
        point = plan.Point(backup.id, name, self._size, backup, f'Backup {backup.id}')
        state = plan.State.PRESENT if is_there else plan.State.TO_DO
        return [plan.Step(point, None, state=state)]

    def _open(self) -> image_formats.Incoming:
        """:raises InvalidInput: the stream has another format, or contradicts itself"""
        if self._file is None:
            raise ValueError('there is no file')
        if self._arriving is None:
            with self._refusing():
                self._arriving = self._file.open()
        return self._arriving

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """See that nothing stays if the file is not what it should be.

        Or if nobody can go on with it: what came out of a pipe does not come again.
        """
        if self._file is None or not self._file.identity:
            self.is_refused = True
        try:
            yield
        except errors.InvalidInput:
            self.is_refused = True
            raise

    def arriving(self) -> Iterator[plan.Step]:
        """Yield a step for each increment.

        :raises InvalidInput: it is not of this backup, or is damaged
        """
        backup, opened = self._wanted.backup, self._open()
        seen: list[str] = []
        with self._refusing():
            for increment in opened.increments:
                point = self._point(increment, opened.count)
                self._check_size(increment, point)
                self._reading = _Reading(increment, self._identity(increment))
                yield plan.Step(point, increment.from_snap, is_wanted=bool(point.id))
                self._reading.use_up()
                seen.extend([point.name] if point.id else [])
            if backup.id not in map(ceph_driver.backup_of_snapshot, seen):
                raise errors.InvalidInput(
                    f'{self._name}: does not hold backup {backup.id}; it holds '
                    f'{", ".join(seen) or "no backup"}.',
                    'Give the file of this backup, or the record of one of those.',
                )

    @property
    def _name(self) -> str:
        return self._file.reader.name if self._file else 'the file'

    def _identity(self, increment: model.Increment) -> str:
        identity = self._file.identity if self._file else ''
        told = (identity, increment.from_snap, increment.to_snap, increment.size)
        return hashlib.sha256(repr(told).encode()).hexdigest() if identity else ''

    def _point(self, increment: model.Increment, count: int) -> plan.Point:
        """Return the point that an increment leads to: of a backup, or of none."""
        backup, name = self._wanted.backup, increment.to_snap or ''
        found = ceph_driver.backup_of_snapshot(name)
        if count == 1 and found is None:
            name, found = ceph_driver.new_snapshot(backup), backup.id
        elif count == 1 and found != backup.id:
            raise errors.InvalidInput(
                f'{self._name}: holds backup {found}, but the record is of backup {backup.id}.',
                f'Import it as what it is: openstack volume backup import-image {found}',
            )
        item = backup if found == backup.id else None
        where = f'Backup {found}' if found else f'{self._name}, {name or "HEAD"}'
        return plan.Point(found or '', name, increment.size, item, where)

    def _check_size(self, increment: model.Increment, point: plan.Point) -> None:
        backup = self._wanted.backup
        if point.id == backup.id and not backup.fits(increment.size):
            raise errors.InvalidInput(
                f'{self._name}: the image has {increment.size} bytes, the record says '
                f'{backup.size} GiB.',
                'The file belongs to another backup.',
            )

    @contextlib.contextmanager
    def read(self, step: plan.Step, bounds: limits.Limits) -> Iterator['_Reading']:  # noqa: ARG002 - a file is read piece by piece
        if self._reading is None:
            raise ValueError('nothing goes by')
        with self._refusing():
            yield self._reading

    def volume_metadata(self, point: plan.Point) -> bytes | None:
        return self._wanted.volume_metadata if point.id == self._wanted.backup.id else None

    def bytes_to_read(self, step: plan.Step) -> int:  # noqa: ARG002 - it is the whole file
        return self._file.stored_size if self._file else 0


class _Reading(endpoints.Reading):
    """One increment of a file.

    A mark is the sum of what went by of the image, in the order of the file.
    """

    def __init__(self, increment: model.Increment, identity: str) -> None:
        self._cutter = _Cutter(increment.items)
        self.increment = dataclasses.replace(increment, items=iter(()))
        self.identity = identity

    def parts(self, first: int, cut: bool) -> Generator[endpoints.Part, None, None]:
        cutter = self._cutter
        collections.deque(cutter.take(first), maxlen=0)
        if not cut:
            yield endpoints.Part(cutter.rest(), self.increment.size)
            return
        end = first
        while cutter.has_more():
            end += _PART
            yield endpoints.Part(cutter.take(_PART), end)

    def use_up(self) -> None:
        """Pass over what was not read."""
        collections.deque(self._cutter.rest(), maxlen=0)


class _Cutter:
    """Hands on items, so many bytes of them at a time."""

    def __init__(self, items: Iterator[model.Item]) -> None:
        self._items = items
        self._next: model.Item | None = None

    def has_more(self) -> bool:
        if self._next is None:
            self._next = next(self._items, None)
        return self._next is not None

    def take(self, count: int) -> Iterator[model.Item]:
        while count and self.has_more():
            item, self._next = self._next, None
            if item is None:
                return
            if item.length > count:
                item, self._next = _split(item, count)
            count -= item.length
            yield item

    def rest(self) -> Iterator[model.Item]:
        if self._next is not None:
            item, self._next = self._next, None
            yield item
        yield from self._items


def _split(item: model.Item, count: int) -> tuple[model.Item, model.Item]:
    at = item.offset + count
    if isinstance(item, model.Data):
        return model.Data(item.offset, item.data[:count]), model.Data(at, item.data[count:])
    return model.Zero(item.offset, count), model.Zero(at, item.length - count)
