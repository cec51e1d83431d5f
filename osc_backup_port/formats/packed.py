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

"""A raw image that something has compressed."""

from collections.abc import Callable, Iterator
from typing import Protocol

from osc_backup_port import errors, model, units
from osc_backup_port.formats import raw, stream

PIECE = 4 * units.MIB


def read(reader: stream.Reader, size: int, unpack: Callable[[int], bytes]) -> Iterator[model.Item]:
    """Yield the *size* bytes of an image; there must be no more, no less.

    No more than one byte behind them is unpacked, whatever the stream would unpack to.

    :param unpack: returns the next bytes, fewer than asked for only at the end
    :raises InvalidInput: the image has another size
    """
    offset = 0
    while data := unpack(min(PIECE, size + 1 - offset)):
        if offset + len(data) > size:
            raise errors.InvalidInput(
                f'{reader.name}: unpacks to more than {size} bytes ({units.human_size(size)}), '
                'where the record says that the image ends.',
                'The file belongs to another backup, or holds no raw image.',
            )
        yield model.Data(offset, data)
        offset += len(data)
    if offset < size:
        raise errors.TruncatedStream(
            f'{reader.name}: unpacks to {offset} bytes; the record says that the image has '
            f'{size} bytes ({units.human_size(size)}).',
            'The file belongs to another backup, or holds no raw image. If it holds an rbd export '
            'or diff: unpack it, and give that.',
        )


class Compressor(Protocol):
    """What zlib and zstandard compress with."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def write(writer: stream.Writer, increment: model.Increment, made: Compressor) -> None:
    """Write an image as a whole, compressed."""
    for data in raw.pieces(increment.items, increment.size):
        if content := made.compress(data):
            writer.write(content)
    writer.write(made.flush())
    writer.finish()


def cut_short(reader: stream.Reader) -> errors.TruncatedStream:
    return errors.TruncatedStream(
        f'{reader.name}: ends after {reader.position} bytes, in the middle of the compressed '
        'image.',
        'The file was cut short: copy or export it again.',
    )


def damaged(reader: stream.Reader, problem: object) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{reader.name}: cannot be unpacked ({problem}), at about byte {reader.position}.',
        'The file is damaged, or something was added to its end: copy or export it again.',
    )
