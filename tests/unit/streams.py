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

from osc_backup_port import model
from osc_backup_port.formats import incoming, rbd_diff, rbd_export, stream

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


def open_any(source: stream.Reader, size: int) -> incoming.Incoming:
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
