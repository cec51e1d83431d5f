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

"""Any stream that an image can come in, told by its first bytes."""

import dataclasses
from collections.abc import Iterator

from osc_backup_port import errors, model
from osc_backup_port.formats import raw, rbd_diff, rbd_export, stream

RAW = 'raw'
RBD = 'rbd'
RBD_DIFF = 'rbd-diff'

#: What a user may bring by mistake, by its first bytes.
_STRANGERS = {
    b'\x28\xb5\x2f\xfd': ('compressed with zstd', 'zstd -dc <file> |'),
    b'\x1f\x8b': ('compressed with gzip', 'gzip -dc <file> |'),
    b'\xfd7zXZ\x00': ('compressed with xz', 'xz -dc <file> |'),
    b'QFI\xfb': ('a qcow2 image', 'qemu-img convert -O raw <file> <raw file>'),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Incoming:
    """An image, or a part of one, that comes in.

    :param format: ``raw``, ``rbd`` or ``rbd-diff``
    :param layout: of the image, where the stream tells it
    :param count: how many increments there are
    :param increments: each has to be used up before the next is taken
    """

    format: str
    layout: model.ImageLayout | None
    count: int
    increments: Iterator[model.Increment]


def is_raw(head: bytes) -> bool:
    """Tell from the first 16 bytes of a stream whether it would be read as raw."""
    return not head.startswith((rbd_export.BANNER, *rbd_diff.BANNERS.values(), *_STRANGERS))


def open_stream(reader: stream.Reader, size: int) -> Incoming:
    """Recognise the format of a stream and read its beginning.

    :param size: bytes of the image, which a raw stream does not tell
    :raises InvalidInput: the stream contradicts itself, or is compressed
    :raises TruncatedStream: it ends too early; also while items are read
    """
    head = reader.peek(16)
    if not head:
        raise errors.TruncatedStream(
            f'{reader.name}: is empty.',
            'Export the image again: openstack volume backup export-image',
        )
    if head.startswith(rbd_export.BANNER):
        export = rbd_export.read(reader)
        return Incoming(RBD, export.layout, export.count, export.increments)
    if head.startswith(tuple(rbd_diff.BANNERS.values())):
        return Incoming(RBD_DIFF, None, 1, _single_diff(reader))
    for magic, (what, command) in _STRANGERS.items():
        if head.startswith(magic):
            raise errors.InvalidInput(f'{reader.name}: is {what}.', f'Unpack it first: {command}')
    whole = model.Increment(None, None, size, raw.read(reader, size))
    return Incoming(RAW, None, 1, iter([whole]))


def _single_diff(reader: stream.Reader) -> Iterator[model.Increment]:
    yield rbd_diff.read(reader)
    reader.expect_end()
