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

"""The formats of the file, or the pipe, that an image is in.

Each is a module of its own in :mod:`osc_backup_port.formats.image`, which has a ``FORMAT``.
It is found there by its place: a new format is a new module, and nothing else is touched.
"""

import abc
import dataclasses
import enum
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Protocol

from osc_backup_port import model
from osc_backup_port.formats import image, stream

#: These come first where formats are listed; the others follow by name.
_FIRST = ('raw', 'rbd', 'rbd-diff')


class Holds(enum.Enum):
    """What one file of a format holds."""

    #: One point in time as a whole.
    POINT = 'point'
    #: The way from one point, or from nothing, to another.
    INCREMENT = 'increment'
    #: The points of an image up to one.
    CHAIN = 'chain'


@dataclasses.dataclass(frozen=True, slots=True)
class Incoming:
    """An image, or a part of one, that comes in.

    :param format: its name
    :param layout: of the image, where the stream tells it
    :param count: how many increments there are
    :param increments: each has to be used up before the next is taken
    """

    format: str
    layout: model.ImageLayout | None
    count: int
    increments: Iterator[model.Increment]


class ImageWriter(Protocol):
    """A file while it is written."""

    def add(self, increment: model.Increment) -> None:
        """Write the next increment; when it returns, the items are used up."""
        ...

    def finish(self) -> None:
        """Write what comes behind the last one."""
        ...


class ImageFormat(abc.ABC):
    """What a module in ``formats/image`` offers as ``FORMAT``.

    :ivar name: as ``--format`` takes it
    :ivar holds: what one file holds
    :ivar suffixes: of the file names that tell it; ``()``: no name does
    :ivar summary: for the help of ``--format``: one clause
    :ivar banners: bytes that it is recognised by where the size excludes a raw image; ``()``: it
        never is
    """

    name: str
    holds: Holds
    summary: str
    suffixes: tuple[str, ...] = ()
    banners: tuple[bytes, ...] = ()

    def begins(self, head: bytes) -> bool:
        """Tell whether a stream of this format may begin with *head*, its first 512 bytes."""
        return head.startswith(self.banners)

    def image_size(self, reader: stream.Reader, size: int, may_have: Callable[[int], bool]) -> int:
        """Return how many bytes the volume in a stream has to have; nothing of it is read.

        :param size: bytes of the volume: whole GiB, as its record has them
        :param may_have: tells whether the volume may have another size
        :raises InvalidInput: what tells the size is damaged, or cannot be read
        """
        del reader, may_have
        return size

    @abc.abstractmethod
    def read(self, reader: stream.Reader, size: int) -> Incoming:
        """Read the beginning of a stream; its increments read the rest.

        :param size: bytes that the volume has to have
        :raises InvalidInput: it has another format or size, or contradicts itself; also while
            items are read
        :raises TruncatedStream: it ends too early; also while items are read
        """

    @abc.abstractmethod
    def begin(self, writer: stream.Writer, layout: model.ImageLayout, points: int) -> ImageWriter:
        """Begin to write.

        :param layout: of the image
        :param points: how many increments will come
        :raises InvalidInput: it cannot be written to such a file; also later
        :raises OSError: it cannot be written; also later
        """


class OneIncrement(ImageFormat):
    """A format of which a file holds one increment."""

    holds = Holds.INCREMENT

    @abc.abstractmethod
    def write(self, writer: stream.Writer, increment: model.Increment) -> None:
        """Write the whole of a stream, and finish it."""

    def begin(self, writer: stream.Writer, layout: model.ImageLayout, points: int) -> ImageWriter:
        del layout, points
        return _Single(self, writer)


@dataclasses.dataclass
class _Single:
    """The writer of a format that holds one increment."""

    _format: OneIncrement
    _writer: stream.Writer

    def add(self, increment: model.Increment) -> None:
        self._format.write(self._writer, increment)

    def finish(self) -> None:
        """It was finished with its increment."""


class OnePoint(OneIncrement):
    """A format of which a file holds one point in time as a whole."""

    holds = Holds.POINT

    @abc.abstractmethod
    def items(self, reader: stream.Reader, size: int) -> Iterator[model.Item]:
        """Read the bytes of a volume of *size*."""

    def read(self, reader: stream.Reader, size: int) -> Incoming:
        whole = model.Increment(None, None, size, self.items(reader, size))
        return Incoming(self.name, None, 1, iter([whole]))


def get(name: str) -> ImageFormat:
    """:raises KeyError: there is no such format; see :func:`names`"""
    return _formats()[name]


def names() -> tuple[str, ...]:
    """Return what ``--format`` may be, in the order of the help."""
    return tuple(_formats())


def of_file_name(path: str) -> str | None:
    """Return the format that the name of a file tells; None: it tells none.

    A name is chosen by who keeps the file. What is in it is chosen by the owner of the volume.
    """
    for one in _formats().values():
        if path.lower().endswith(one.suffixes):
            return one.name
    return None


def _formats() -> dict[str, ImageFormat]:
    return _found_in(tuple(image.__path__))


@functools.lru_cache(maxsize=1)
def _found_in(folders: tuple[str, ...]) -> dict[str, ImageFormat]:
    modules = [
        importlib.import_module(f'{image.__name__}.{found.name}')
        for found in pkgutil.iter_modules(folders)
    ]
    by_name: dict[str, ImageFormat] = {one.FORMAT.name: one.FORMAT for one in modules}
    ordered = [*_FIRST, *sorted(by_name.keys() - set(_FIRST))]
    return {name: by_name[name] for name in ordered}
