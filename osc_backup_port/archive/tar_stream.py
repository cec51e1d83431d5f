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

"""An archive as one tar stream, for pipes and tape.

Every member is a file of bounded size, in the order in which it counts:
``increment.json`` last.  A stream that is cut short still holds every increment
before the cut.
"""

import contextlib
import dataclasses
import functools
import io
import logging
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from osc_backup_port import errors, model, pipes
from osc_backup_port.archive import catalog, manifest, names, sealed
from osc_backup_port.archive import store as archive_store
from osc_backup_port.transfer import zeros

LOG = logging.getLogger(__name__)

_BUFFER = 1 << 20
_LARGEST = max(manifest.MAX_SEGMENT_SIZE, sealed.MAX_SIZE)
#: Of a header that holds a long name, which no name of ours needs.
_LARGEST_HEADER = 8192
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)
#: What is found at the end of a stream, and says nothing against what came before.
AT_THE_END = (errors.TruncatedStream, errors.TrailingData)


class Output:
    """A store that can only be added to; :meth:`close` ends the stream.

    :param file: where the stream goes
    """

    name = 'stdout'
    takes_any_order = False
    keeps_locks = True

    def __init__(self, file: io.RawIOBase) -> None:
        pipes.widen(file)
        # tarfile takes no notice of a write that took a part only; this does.
        self._file = io.BufferedWriter(pipes.patient(file), _BUFFER)
        self._tar = tarfile.open(  # noqa: SIM115 - closed by close()
            fileobj=self._file, mode='w|', format=tarfile.PAX_FORMAT, bufsize=_BUFFER
        )

    def put(self, path: str, content: bytes) -> None:
        member = tarfile.TarInfo(path)
        member.size = len(content)
        member.mode = 0o600
        member.mtime = int(time.time())
        self._tar.addfile(member, io.BytesIO(content))
        LOG.debug('Archive stream on %s: %s written, %d bytes.', self.name, path, len(content))

    def create(self, path: str, content: bytes) -> None:
        self.put(path, content)

    def copy(self, old: str, new: str) -> None:  # noqa: ARG002 - nothing is there
        raise errors.InvalidInput(f'{old}: nothing can be copied within a stream.')

    def commit(self, path: str, backup_id: str, content: bytes) -> None:
        self.put(path, content)
        LOG.info('Archive stream on %s: backup %s is complete.', self.name, backup_id)

    def finish_commit(self, path: str, backup_id: str) -> bool:  # noqa: ARG002 - nothing is there
        return False

    def get(self, path: str, limit: int) -> bytes | None:  # noqa: ARG002 - nothing is there
        return None

    def entries(self, path: str) -> list[archive_store.Entry]:  # noqa: ARG002 - nothing is there
        return []

    def delete(self, path: str) -> None:
        raise errors.InvalidInput(f'{path}: nothing can be removed from a stream.')

    def lock(
        self,
        path: str,  # noqa: ARG002 - nobody else has the stream
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return contextlib.nullcontext(lambda: None)

    def close(self) -> None:
        self._tar.close()
        self._file.flush()
        self._file.detach()


class Member(NamedTuple):
    """A file in a stream, by the parts of its path."""

    path: list[str]
    content: bytes


class _Coming(NamedTuple):
    """A file in a stream whose content was not read yet."""

    path: list[str]
    read: Callable[[], bytes]


class Input:
    """Reads a stream, once, from its beginning.

    :param file: where the stream comes from
    """

    name = 'stdin'

    def __init__(self, file: io.RawIOBase) -> None:
        pipes.widen(file)
        self._members = _members(pipes.patient(file), self.name)
        self._next: _Coming | None = next(self._members, None)
        self._end: errors.InvalidInput | None = None
        self._empty: errors.InvalidInput | None = None

    def read_archive(self) -> manifest.Archive:
        """Read the mark of the archive, which comes first.

        :raises InvalidInput: this is no archive
        """
        first = self._take()
        if first is None:
            self.check_end()
        if first is None or first.path != [names.ARCHIVE]:
            raise errors.InvalidInput(
                f'{self.name}: is not the tar stream of an archive, which begins with '
                f'{names.ARCHIVE}.'
            )
        where = f'{self.name}/{names.ARCHIVE}'
        return manifest.decode_archive(_small(first.content, where), where)

    def increments(self) -> Iterator['IncrementStream']:
        """Yield the increments in their order; what is not read of one is passed over.

        :raises ForgedArchive: something is not where a writer puts it
        :raises TruncatedStream: the stream was cut, or an image has no increment
        :raises TrailingData: something follows the stream
        """
        seen: set[str] = set()
        backups: set[str] = set()
        image: _ImageStream | None = None
        while (member := self._next) is not None:
            where = f'{self.name}/{"/".join(member.path)}'
            if len(member.path) == 2 and member.path[1] == names.IMAGE:
                if member.path[0] in seen:
                    raise sealed.forged(where, 'is there twice')
                taken = self._take()
                if taken is None:
                    break
                seen.add(taken.path[0])
                self._see_some(image)
                image = _ImageStream(self.name, taken.path[0], _small(taken.content, where))
                continue
            if len(member.path) != 3 or image is None or member.path[0] != image.name:
                raise sealed.forged(where, 'is not expected here')
            increment = IncrementStream(self, image, member.path[1])
            if increment.backup_id in backups:
                raise sealed.forged(increment.where, 'that backup is there twice')
            backups.add(increment.backup_id)
            LOG.debug(
                'Archive stream: backup %s begins, %s.', increment.backup_id, increment.where
            )
            yield increment
            increment.use_up()
        self._see_some(image)
        self.check_end()
        if self._empty is not None:
            raise self._empty

    def _see_some(self, image: '_ImageStream | None') -> None:
        """Take down if an image has no increment, for when all others went by."""
        if image is not None and image.is_empty:
            self._empty = catalog.has_no_increment(image.where)

    def _take(self) -> Member | None:
        """Return the next file; None where the stream ends, or is cut within it."""
        coming, taken = self._next, None
        try:
            if coming is not None:
                taken = Member(coming.path, coming.read())
            self._next = next(self._members, None)
        except AT_THE_END as error:
            # Perhaps behind what is returned now, which may complete an increment.
            self._next, self._end = None, error
        return taken

    def check_end(self) -> None:
        """:raises InvalidInput: behind what was read, the stream was cut, or goes on"""
        if self._end is not None:
            raise self._end

    def take_of(self, folder: list[str]) -> Member | None:
        """Return the next file, if it lies in *folder*."""
        if self._next is None or self._next.path[:-1] != folder:
            return None
        return self._take()


class _ImageStream:
    """An image in a stream, and what went by of it.

    :ivar is_empty: nothing yet
    """

    def __init__(self, source_name: str, name: str, content: bytes) -> None:
        self.name = name
        self.where = f'{source_name}/{name}'
        self.chain = catalog.Chain(self.where)
        self._content = content
        self._last = (-1, '')

    @property
    def is_empty(self) -> bool:
        return self._last[0] < 0

    def layout(self) -> model.ImageLayout:
        """:raises DamagedArchive: it is not as it was written"""
        return manifest.decode_image(self._content, f'{self.where}/{names.IMAGE}')

    def begin(self, folder: str) -> str:
        """Return the backup that the next folder is of, which has its place behind the last.

        :raises ForgedArchive: it has not
        """
        parsed = names.parse_increment(folder)
        if parsed is None or parsed <= self._last:
            raise sealed.forged(f'{self.where}/{folder}', 'is not expected here')
        self._last = parsed
        return parsed[1]


class IncrementStream:
    """One increment in a stream: small files, segments, and what it says of them."""

    def __init__(self, source: Input, image: _ImageStream, folder: str) -> None:
        self.image = image.name
        self.backup_id = image.begin(folder)
        self.where = f'{image.where}/{folder}'
        self._source = source
        self._image = image
        self._folder = folder
        self._files: dict[str, bytes] = {}
        self._segments = 0

    def layout(self) -> model.ImageLayout:
        """:raises DamagedArchive: it could not be read"""
        return self._image.layout()

    @property
    def is_finished(self) -> bool:
        """Whether the document that makes it count went by."""
        return names.INCREMENT in self._files

    def small_file(self, name: str) -> bytes | None:
        return self._files.get(name)

    def segments(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each segment, before which nothing else stays unread."""
        while member := self._source.take_of([self.image, self._folder]):
            name = member.path[-1]
            if names.parse_segment(name) is None:
                self._keep(name, member.content)
                continue
            if names.parse_segment(name) != self._segments or self.is_finished:
                raise sealed.forged(f'{self.where}/{name}', 'is not expected here')
            self._segments += 1
            yield name, member.content
        if not self.is_finished:
            self._source.check_end()

    def _keep(self, name: str, content: bytes) -> None:
        is_last = name == names.INCREMENT
        limit = sealed.MAX_SIZE if is_last else catalog.MAX_SMALL_FILE
        is_known = is_last or name in (names.RECORD, names.VOLUME_METADATA)
        is_late = self.is_finished or (self._segments > 0 and not is_last)
        if not is_known or name in self._files or is_late or len(content) > limit:
            raise sealed.forged(f'{self.where}/{name}', 'is not expected here')
        self._files[name] = content

    def finish(self, check: Callable[[catalog.Backup], None] | None = None) -> catalog.Backup:
        """Return what the increment says; all of its segments were read.

        :param check: raises if the segments were not those
        :raises TruncatedStream: whatever wrote the stream gave up before that
        :raises DamagedArchive: it is not what was written
        """
        document = self._files.get(names.INCREMENT)
        if document is None:
            raise catalog.not_finished(self.where)
        backup = catalog.make_backup(
            self._image.where,
            self.image,
            self._folder,
            document,
            self._files.get(names.RECORD),
            self._files.get(names.VOLUME_METADATA),
        )
        if check is not None:
            check(backup)
        self._image.chain.add(backup)
        LOG.info('Archive stream: %s is read.', self.where)
        return backup

    def damage(self, error: errors.InvalidInput) -> catalog.Damage:
        return catalog.Damage(self.image, self.backup_id, error, self._folder)

    def use_up(self) -> None:
        for _segment in self.segments():
            pass


def _small(content: bytes, where: str) -> bytes:
    if len(content) > sealed.MAX_SMALL_SIZE:
        raise sealed.forged(
            where, f'has {len(content)} bytes, expected at most {sealed.MAX_SMALL_SIZE}'
        )
    return content


def read_catalog(source: Input) -> catalog.Catalog:
    """Read a whole stream for its documents; the data goes by and is not looked at.

    :raises InvalidInput: this is no archive, or none of it is to be trusted
    """
    archive = source.read_archive()
    found: dict[str, _Found] = {}
    lost = []
    try:
        for increment in source.increments():
            increment.use_up()
            found.setdefault(increment.image, _Found()).add(increment)
    except AT_THE_END as error:
        lost.append(catalog.Damage('', '', error))
    images = []
    for name, image in found.items():
        if image.layout is None:
            lost += image.damaged
            continue
        whole, unfinished, damaged = image.backups, image.unfinished, image.damaged
        images.append(
            catalog.Image(name, image.layout, tuple(whole), tuple(unfinished), tuple(damaged))
        )
    return catalog.Catalog(archive, tuple(images), tuple(lost))


@dataclasses.dataclass
class _Found:
    """What went by of one image."""

    layout: model.ImageLayout | None = None
    backups: list[catalog.Backup] = dataclasses.field(default_factory=list)
    unfinished: list[catalog.Damage] = dataclasses.field(default_factory=list)
    damaged: list[catalog.Damage] = dataclasses.field(default_factory=list)

    def add(self, increment: IncrementStream) -> None:
        try:
            self.layout = increment.layout()
            self.backups.append(increment.finish())
        except errors.TruncatedStream as error:
            self.unfinished.append(increment.damage(error))
        except errors.DamagedArchive as error:
            self.damaged.append(increment.damage(error))


class _Header(tarfile.TarInfo):
    """A header that takes no more memory than it should, and tells of the end.

    tarfile reads long names, and what pax adds, as a whole, however large the
    stream says that they are.  And it takes a stream that was cut between two
    members for a whole one.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> '_Header':
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            cast(_Tar, tarfile_).has_ended = True
            raise

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        if self.type not in (*_PLAIN, *_EXTENDED, tarfile.DIRTYPE) or self.size < 0:
            raise _not_ours(f'type {self.type!r} and {self.size} bytes')
        if self.type in _EXTENDED and self.size > _LARGEST_HEADER:
            raise _not_ours(f'a header of {self.size} bytes')
        return super()._proc_member(tarfile_)  # type: ignore[misc]


_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Tar(tarfile.TarFile):
    """:ivar has_ended: the mark of the end was met"""

    tarinfo = _Header
    has_ended = False


def _members(file: io.RawIOBase, name: str) -> Iterator[_Coming]:
    """Yield the files of a tar stream whose names and sizes are allowed."""
    with (
        _translated(name),
        _Tar.open(fileobj=cast(BinaryIO, file), mode='r|', bufsize=_BUFFER) as tar,
    ):
        while (info := tar.next()) is not None:
            # It keeps all that went by, to find it again.
            tar.members.clear()  # type: ignore[attr-defined]
            path = info.name.removeprefix('./').rstrip('/').split('/')
            if info.isdir() and len(path) <= 2:
                continue
            if info.type in _PLAIN and names.is_note(path[-1]):
                # Somebody packed what was in an object store.
                continue
            _check_member(info, path, name)
            yield _Coming(path, functools.partial(_read, tar, info, name))
        if not tar.has_ended:
            raise _cut_short(name)
        _refuse_trailing(tar, name)


def _read(tar: _Tar, info: tarfile.TarInfo, name: str) -> bytes:
    """Return the content of a file, read in pieces that are not joined by copying them all."""
    content = bytearray()
    with _translated(name):
        file = tar.extractfile(info)
        while file and (piece := file.read(_BUFFER)):
            content += piece
    if len(content) != info.size:
        raise _cut_short(name)
    # What is small is kept, and given to others.
    return cast(bytes, content) if info.size > catalog.MAX_SMALL_FILE else bytes(content)


@contextlib.contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, RecursionError, ValueError) as error:
        raise errors.TruncatedStream(
            f'{name}: is not a whole tar stream: {error}.', 'Send the stream again.'
        ) from None


def _refuse_trailing(tar: _Tar, name: str) -> None:
    """See that nothing but padding follows the mark of the end, as on a tape.

    :raises TrailingData: something does
    """
    while rest := cast(BinaryIO, tar.fileobj).read(_BUFFER):
        if not zeros.is_zero(rest):
            raise errors.TrailingData(
                f'{name}: something follows the end of the archive; expected nothing, or zeros. '
                'What came before it is complete.',
                'If these are several archives, one after the other, unpack them: mkdir <folder>; '
                'tar -x --ignore-zeros -C <folder> -f <file>; and use the folder. If it is '
                'something else, the stream was damaged on its way: send it again.',
            )


def _check_member(info: tarfile.TarInfo, path: list[str], name: str) -> None:
    where = f'{name}: member {info.name!r}'
    if info.type not in _PLAIN or info.issparse():
        raise sealed.forged(where, 'is not a file')
    if (
        len(path) > 3
        or (len(path) > 1 and not names.is_image(path[0]))
        or (len(path) > 2 and names.parse_increment(path[1]) is None)
    ):
        raise sealed.forged(where, 'is not expected in an archive')
    if not 0 <= info.size <= _LARGEST:
        raise sealed.forged(where, f'has {info.size} bytes, expected at most {_LARGEST}')


def _not_ours(found: str) -> errors.ForgedArchive:
    return sealed.forged('stdin: a member of the tar stream', f'has {found}')


def _cut_short(name: str) -> errors.TruncatedStream:
    return errors.TruncatedStream(f'{name}: the tar stream was cut short.', 'Send it again.')
