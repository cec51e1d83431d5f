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

"""A qcow2 image of QEMU: one file, no backing file, not encrypted.

It is read and written by ourselves: see :mod:`osc_backup_port.formats.qcow2_read`. Its sha256
is that of the file, which is read once more for it when it is written or read.
"""

from collections.abc import Callable, Iterator

from osc_backup_port import errors, model, units
from osc_backup_port.formats import image_formats, qcow2_read, qcow2_write, stream


class _Qcow2(image_formats.OnePoint):
    name = 'qcow2'
    suffixes = ('.qcow2',)
    summary = 'a disk image of QEMU, not for pipes'

    def begins(self, head: bytes) -> bool:
        return head.startswith(qcow2_read.MAGIC)

    def image_size(self, reader: stream.Reader, size: int, may_have: Callable[[int], bool]) -> int:
        told = qcow2_read.read_header(reader).size
        return told if may_have(told) else size

    def items(self, reader: stream.Reader, size: int) -> Iterator[model.Item]:
        header = qcow2_read.read_header(reader)
        if header.size != size:
            raise errors.InvalidInput(
                f'{reader.name}: holds a disk of {header.size} bytes, the record says that the '
                f'image has {size} ({units.human_size(size)}).',
                'The file belongs to another backup, or the disk was resized.',
            )
        return qcow2_read.read(reader, header)

    def write(self, writer: stream.Writer, increment: model.Increment) -> None:
        qcow2_write.write(writer, increment.items, increment.size)


FORMAT = _Qcow2()
