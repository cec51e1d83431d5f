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

"""A raw image: byte N of the file is byte N of the volume."""

from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model, units
from osc_backup_port.formats import stream

PIECE = 4 * units.MIB
_ZEROS = bytes(units.MIB)


def read(reader: stream.Reader, size: int) -> Iterator[model.Item]:
    """Yield the *size* bytes of a raw image; there must be no more, no less.

    :raises InvalidInput: the image has another size
    """
    while (missing := size - reader.position) > 0:
        offset = reader.position
        if hole := reader.skip_hole(missing):
            yield model.Zero(offset, hole)
        elif data := reader.read(min(PIECE - offset % PIECE, missing)):
            yield model.Data(offset, data)
        else:
            raise errors.TruncatedStream(
                f'{reader.name}: ends after {offset} bytes; the record says that the image '
                f'has {size} bytes ({units.human_size(size)}).',
                'The file was cut short, or belongs to another backup.',
            )
    if reader.peek(1):
        raise errors.InvalidInput(
            f'{reader.name}: goes on after {size} bytes ({units.human_size(size)}), where the '
            'record says that the image ends.',
            'The file belongs to another backup, or is not a raw image.',
        )


def write(writer: stream.Writer, items: Iterable[model.Item], size: int) -> None:
    """Write an image of *size* bytes, holes where it has none of *items*.

    :param items: in ascending order
    """
    for item in items:
        writer.write_zeros(item.offset - writer.position)
        if isinstance(item, model.Data):
            writer.write(item.data)
        else:
            writer.write_zeros(item.length)
    writer.write_zeros(size - writer.position)
    writer.finish()


def pieces(items: Iterable[model.Item], size: int) -> Iterator[bytes]:
    """Yield an image of *size* bytes, for what cannot have holes.

    :param items: in ascending order
    """
    position = 0
    for item in items:
        yield from _zeros(item.offset - position)
        if isinstance(item, model.Data):
            yield item.data
        else:
            yield from _zeros(item.length)
        position = item.offset + item.length
    yield from _zeros(size - position)


def _zeros(length: int) -> Iterator[bytes]:
    for at in range(0, length, len(_ZEROS)):
        yield _ZEROS[: length - at]
