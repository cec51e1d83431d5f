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

"""Files and pipes with a given content, for the tests of what reads them."""

import io
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import strategies as st

from osc_backup_port import model
from osc_backup_port.formats import image_formats, incoming, rbd_diff, rbd_export, stream

RBD_DATA = pathlib.Path(__file__).parent / 'data' / 'rbd'


def as_file(content: bytes) -> io.FileIO:
    """Return a regular file that is in memory."""
    file = io.FileIO(os.memfd_create('stream'), 'r+')
    file.write(content)
    file.seek(0)
    return file


def as_pipe(content: bytes) -> io.FileIO:
    """Return the end of a pipe that holds everything already; 64 KiB at most."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    assert os.write(sink, content) == len(content)
    os.close(sink)
    return io.FileIO(source)


def reader(content: bytes, piped: bool = False) -> stream.Reader:
    return stream.Reader(as_pipe(content) if piped else as_file(content), 'the-stream')


def open_any(source: stream.Reader, size: int) -> image_formats.Incoming:
    """Open a stream as what it begins as; here nobody hides one in a disk."""
    head, image_format = source.peek(16), incoming.RAW
    if head.startswith(rbd_export.BANNER):
        image_format = incoming.RBD
    elif head.startswith(tuple(rbd_diff.BANNERS.values())):
        image_format = incoming.RBD_DIFF
    return incoming.open_stream(source, size, image_format)


Image = tuple[str | None, str | None, bytes]


def read_image(content: bytes, size: int = 0, piped: bool = False) -> list[Image]:
    """Return all points in time of a stream: where from, where to, all of the bytes.

    A full point starts from zeros, any other from the one before it.
    """
    points: list[Image] = []
    arriving = open_any(reader(content, piped), size)
    there = b''
    for increment in arriving.increments:
        image = bytearray(increment.size)
        if increment.from_snap is not None:
            image[: len(there)] = there[: increment.size]
        for item in increment.items:
            data = item.data if isinstance(item, model.Data) else bytes(item.length)
            image[item.offset : item.offset + item.length] = data
        there = bytes(image)
        assert len(there) == increment.size
        points.append((increment.from_snap, increment.to_snap, there))
    assert len(points) == arriving.count
    return points


class Outgoing(NamedTuple):
    """What is written, with the number of its increments."""

    layout: model.ImageLayout
    count: int
    increments: Iterable[model.Increment]


def outgoing(items: Iterable[model.Item], size: int) -> Outgoing:
    """Return one point of an image, from nothing."""
    whole = model.Increment(None, None, size, iter(items))
    return Outgoing(model.ImageLayout(size), 1, iter([whole]))


def write(one: image_formats.ImageFormat, writer: stream.Writer, image: Outgoing) -> None:
    """Write a whole file."""
    made = one.begin(writer, image.layout, image.count)
    for increment in image.increments:
        made.add(increment)
    made.finish()


def write_point(image_format: str, items: Iterable[model.Item], size: int) -> bytes:
    """Return a file of one point of an image."""
    with as_file(b'') as file:
        writer = stream.Writer(file)
        write(image_formats.get(image_format), writer, outgoing(items, size))
        file.seek(0)
        content = file.read()
        assert writer.position == len(content)
        return content


def read_point(image_format: str, content: bytes, size: int, piped: bool = False) -> bytes:
    """Return the bytes of the volume in a file of one point; its items ascend."""
    arriving = incoming.open_stream(reader(content, piped), size, image_format)
    (increment,) = arriving.increments
    assert (arriving.format, arriving.count, increment.size) == (image_format, 1, size)
    return joined(increment.items, size)


def joined(items: Iterable[model.Item], size: int) -> bytes:
    """Return the bytes of an image of which *items* ascend."""
    image, end = bytearray(size), 0
    for item in items:
        assert item.offset >= end
        end = item.offset + item.length
        assert end <= size
        if isinstance(item, model.Data):
            image[item.offset : end] = item.data
    return bytes(image)


@st.composite
def ascending_items(draw: st.DrawFn, size: int, most: int = 8) -> list[model.Item]:
    """Return items of an image of *size* bytes as exports have them: they ascend."""
    cuts = sorted(draw(st.sets(st.integers(0, size), max_size=2 * most)))
    items: list[model.Item] = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        if draw(st.booleans()):
            items.append(model.Zero(start, end - start))
        else:
            pattern = draw(st.binary(min_size=1, max_size=5))
            data = pattern * ((end - start) // len(pattern) + 1)
            items.append(model.Data(start, data[: end - start]))
    return items
