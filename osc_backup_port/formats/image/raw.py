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

from collections.abc import Callable, Iterator

from osc_backup_port import model
from osc_backup_port.formats import image_formats, raw, stream


class _Raw(image_formats.OnePoint):
    name = 'raw'
    # A name that ends in .img or .raw is given to anything, so that none tells it.
    summary = 'the volume, byte for byte, as a sparse file'

    def begins(self, head: bytes) -> bool:
        del head
        return True

    def image_size(self, reader: stream.Reader, size: int, may_have: Callable[[int], bool]) -> int:
        total = reader.size
        return size if total is None or not may_have(total) else total

    def items(self, reader: stream.Reader, size: int) -> Iterator[model.Item]:
        return raw.read(reader, size)

    def write(self, writer: stream.Writer, increment: model.Increment) -> None:
        raw.write(writer, increment.items, increment.size)


FORMAT = _Raw()
