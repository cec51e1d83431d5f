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

"""Any stream that an image can come in.

What a volume holds is its owner's choice, and the first bytes of a raw image are the first of
the volume.  So they decide nothing where a raw image is possible: the format is told, or it
follows from the size, or it is asked for.
"""

import dataclasses
import io
import shlex
import typing
from collections.abc import Callable, Iterable, Iterator

from osc_backup_port import errors, model, units
from osc_backup_port.formats import image_formats, strangers, stream

RAW, RBD, RBD_DIFF = 'raw', 'rbd', 'rbd-diff'

#: What comes before the data of an export or a diff is smaller than this, in all that is sane.
_DESCRIPTION = 64 * units.KIB

_TELL = 'Tell its format: --format'


def recognise(
    reader: stream.Reader,
    size: int,
    may_have: Callable[[int], bool],
    by_name: str | None = None,
) -> str:
    """Return the format of a stream of which nobody has told it.

    The name of the file may tell it.  Else a raw image is known by its size, which has to be
    *size*, or comes from a pipe.  An export or a diff is known by its beginning, where the
    stream cannot be a raw image.

    :param size: bytes of the volume: whole GiB, as its record has them
    :param may_have: tells whether the volume may have another size
    :param by_name: what the name of the file tells: see :func:`image_formats.of_file_name`
    :raises InvalidInput: more than one format is possible, or none
    """
    head, total = _head(reader), reader.size
    if by_name is not None:
        _expect_beginning(reader, head, by_name)
        return by_name
    found = _banner(head)
    if found and total not in (None, size):
        return found
    if found and _may_begin(reader, found, size):
        raise errors.InvalidInput(
            f'{reader.name}: begins as the format {found} does. A raw image may as well: what a '
            "disk begins with is its owner's choice.",
            f'{_TELL} {found}, or --format raw for the bytes of the volume as they are',
        )
    stranger = strangers.recognise(head, reader.peek_end(strangers.TAIL))
    if total == size or (total is None and stranger is None):
        return RAW
    if stranger is not None:
        raise errors.InvalidInput(
            f'{reader.name}: is {stranger.what}, or a raw image that begins as such a file does.',
            f'{_advice(stranger, reader)} If it is the raw image: --format {RAW}',
        )
    raise _wrong_size(reader, size, total or 0, may_have)


def _wrong_size(
    reader: stream.Reader, size: int, total: int, may_have: Callable[[int], bool]
) -> errors.InvalidInput:
    found = (
        f'{reader.name}: has {total} bytes, the record says that the image has {size} '
        f'({units.human_size(size)}). It does not begin as an rbd export or diff does either.'
    )
    if may_have(total):
        return errors.InvalidInput(
            found,
            'If it was cut short, copy it again. If the volume has a size that is no whole number '
            f'of GiB ("cinder manage" takes such ones), and this is all of it: --format {RAW}',
        )
    return errors.InvalidInput(found, 'The file was cut short, or belongs to another backup.')


def image_size(
    reader: stream.Reader, image_format: str, size: int, may_have: Callable[[int], bool]
) -> int:
    """Return how many bytes the volume in a stream has to have; nothing of it is read.

    Those that the file tells, where the volume may have that size; else those of the record.

    :raises InvalidInput: the stream does not begin as its format does
    """
    return image_formats.get(image_format).image_size(reader, size, may_have)


def open_stream(
    reader: stream.Reader,
    size: int,
    image_format: str | None = None,
    at_end: Callable[[], None] = lambda: None,
) -> image_formats.Incoming:
    """Read the beginning of a stream.

    :param size: bytes of the image, which a raw stream does not tell
    :param image_format: what it has to be; if nobody has told it, it is recognised
    :param at_end: called when all was read, before the last increment is used up
    :raises InvalidInput: the stream has another format, or contradicts itself
    :raises TruncatedStream: it ends too early; also while items are read
    """
    head = _head(reader)
    image_format = image_format or recognise(reader, size, lambda found: found == size)
    _expect_beginning(reader, head, image_format)
    arriving = image_formats.get(image_format).read(reader, size)
    increments = _ending(arriving.increments, arriving.count, reader, at_end)
    return dataclasses.replace(arriving, increments=increments)


def _ending(
    increments: Iterable[model.Increment],
    count: int,
    reader: stream.Reader,
    at_end: Callable[[], None],
) -> Iterator[model.Increment]:
    """Hand on the increments; the last is over only when the stream is, as it has to be."""

    def last(items: Iterable[model.Item]) -> Iterator[model.Item]:
        yield from items
        reader.expect_end()
        at_end()

    for number, increment in enumerate(increments, 1):
        is_last = number == count
        yield dataclasses.replace(increment, items=last(increment.items)) if is_last else increment


def _head(reader: stream.Reader) -> bytes:
    """:raises TruncatedStream: there is nothing"""
    head = reader.peek(strangers.HEAD)
    if not head:
        raise errors.TruncatedStream(
            f'{reader.name}: is empty.',
            'Export the image again: openstack volume backup export-image',
        )
    return head


def _banner(head: bytes) -> str | None:
    for name in image_formats.names():
        # An empty tuple begins nothing.
        if head.startswith(image_formats.get(name).banners):
            return name
    return None


def _may_begin(reader: stream.Reader, image_format: str, size: int) -> bool:
    """Tell whether what follows the banner is what has to."""
    head = typing.cast(io.RawIOBase, io.BytesIO(reader.peek(_DESCRIPTION)))
    beginning = stream.Reader(head, reader.name, checksum=False)
    try:
        next(image_formats.get(image_format).read(beginning, size).increments)
    except errors.TruncatedStream:
        return True
    except errors.InvalidInput:
        return False
    return True


def _expect_beginning(reader: stream.Reader, head: bytes, image_format: str) -> None:
    """:raises InvalidInput: the stream does not begin as its format does"""
    if image_formats.get(image_format).begins(head):
        return
    expected = f'expected the format {image_format}'
    if found := _banner(head):
        raise errors.InvalidInput(
            f'{reader.name}: begins as the format {found} does, {expected}.', f'{_TELL} {found}'
        )
    if stranger := strangers.recognise(head):
        raise errors.InvalidInput(
            f'{reader.name}: is {stranger.what}, {expected}.', _advice(stranger, reader)
        )
    raise errors.InvalidInput(
        f'{reader.name}: begins with {head[:16]!r}, {expected}.',
        f'If it is a raw image: {_TELL} {RAW}',
    )


def _advice(stranger: strangers.Stranger, reader: stream.Reader) -> str:
    """Return how to go on where a file is what it seems to be."""
    command = stranger.advice.format(file=shlex.quote(reader.name))
    if stranger.format not in image_formats.names():
        return command
    return f'{_TELL} {stranger.format}. Or {command[0].lower()}{command[1:]}'
