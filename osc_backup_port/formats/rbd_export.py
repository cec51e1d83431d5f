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

"""The rbd export format 2: an image with its snapshots.

A banner, records that describe the image, then one diff (version 2) for each
snapshot in their order and one for what came after the last of them.

Source: doc/dev/rbd-export.rst of Ceph.
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model
from osc_backup_port.formats import rbd_diff, stream

BANNER = b'rbd image v2\n'
_DIFFS_BANNER = b'rbd image diffs v2\n'
_LARGEST_RECORD = 1 << 20
_LARGEST_COUNT = 1 << 20
_U64 = struct.Struct('<Q')
_TAGS = {b'O': 'order', b'T': 'features', b'U': 'stripe_unit', b'C': 'stripe_count'}


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """An image in a stream.

    :param layout: without a size: each increment tells its own
    :param count: how many increments there are
    :param increments: each has to be used up before the next is taken
    """

    layout: model.ImageLayout
    count: int
    increments: Iterator[model.Increment]


def read(reader: stream.Reader) -> Export:
    """Read the description of the image; its increments read the rest.

    :raises InvalidInput: this is no such stream, or it contradicts itself
    :raises TruncatedStream: it ends too early; also while items are read
    """
    _expect(reader, BANNER)
    layout = _read_layout(reader)
    _expect(reader, _DIFFS_BANNER)
    (count,) = _U64.unpack(reader.read_exactly(8))
    if not 0 < count <= _LARGEST_COUNT:
        raise errors.InvalidInput(f'{reader.name}: says that it holds {count} increments.')
    return Export(layout, count, _read_increments(reader, count))


def _expect(reader: stream.Reader, banner: bytes) -> None:
    found = reader.read_exactly(len(banner))
    if found != banner:
        raise errors.InvalidInput(f'{reader.name}: holds {found!r}, expected {banner!r}.')


def _read_layout(reader: stream.Reader) -> model.ImageLayout:
    values: dict[str, int] = {}
    while (tag := reader.read_exactly(1)) != b'E':
        (length,) = _U64.unpack(reader.read_exactly(8))
        if length > _LARGEST_RECORD:
            raise errors.InvalidInput(
                f'{reader.name}: record {tag!r} says that it has {length} bytes.'
            )
        content = reader.read_exactly(length)
        if tag in _TAGS:
            if length != _U64.size:
                raise errors.InvalidInput(
                    f'{reader.name}: the {_TAGS[tag]} of the image has {length} bytes, expected 8.'
                )
            (values[_TAGS[tag]],) = _U64.unpack(content)
    return _checked_layout(reader, values)


def _checked_layout(reader: stream.Reader, values: dict[str, int]) -> model.ImageLayout:
    layout = model.ImageLayout(size=0, **values)
    if not 12 <= layout.order <= 25:
        raise errors.InvalidInput(
            f'{reader.name}: the object order is {layout.order}, expected 12 to 25.'
        )
    return layout


def _read_increments(reader: stream.Reader, count: int) -> Iterator[model.Increment]:
    for _ in range(count):
        increment = rbd_diff.read(reader)
        yield increment
    reader.expect_end()


def encode(
    layout: model.ImageLayout, count: int, increments: Iterable[model.Increment]
) -> Iterator[bytes]:
    """Yield an image as the bytes of an export.

    :param layout: of the image; features must not be None
    :param count: how many increments there are
    """
    numbers = {
        b'O': layout.order,
        b'T': layout.features or 0,
        b'U': layout.stripe_unit,
        b'C': layout.stripe_count,
    }
    yield b''.join(
        [
            BANNER,
            *(tag + _U64.pack(8) + _U64.pack(value) for tag, value in numbers.items()),
            b'E',
            _DIFFS_BANNER,
            _U64.pack(count),
        ]
    )
    for increment in increments:
        yield from rbd_diff.encode(increment, version=2)
