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

"""A raw image in gzip: also several members one after the other, as pigz and cat make them."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from osc_backup_port import model, units
from osc_backup_port.formats import image_formats, packed, stream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAGIC = b'\x1f\x8b'
#: Level 6, which the gzip tool takes, needs three times as long for 7 % less.
_LEVEL = 1
#: What zlib calls the header and the end that gzip has; without a name and a time.
_WITH_HEADER = 16 + zlib.MAX_WBITS
#: The standard library asks for 8 KiB at a time.
_BUFFER = units.MIB


class _Gzip(image_formats.OnePoint):
    name = 'gzip'
    suffixes = ('.gz',)
    summary = 'a raw image, compressed with gzip'

    def begins(self, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def items(self, reader: stream.Reader, size: int) -> Iterator[model.Item]:
        # Its end has a size, modulo 4 GiB and of its last member: that tells nothing.
        return packed.read(reader, size, _Unpacker(reader).unpack)

    def write(self, writer: stream.Writer, increment: model.Increment) -> None:
        # Not through GzipFile: it writes a good end also when it is left for an error.
        made = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WITH_HEADER)
        packed.write(writer, increment, made)


class _Unpacker:
    def __init__(self, reader: stream.Reader) -> None:
        self._reader = reader
        source = io.BufferedReader(_Source(reader), _BUFFER)
        self._file = gzip.GzipFile(fileobj=source, mode='rb')

    def unpack(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except EOFError:
            raise packed.cut_short(self._reader) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise packed.damaged(self._reader, error) from error


class _Source(io.RawIOBase):
    """A reader as the standard library takes one."""

    def __init__(self, reader: stream.Reader) -> None:
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: 'WriteableBuffer') -> int:
        view = memoryview(buffer)
        data = self._reader.read(len(view))
        view[: len(data)] = data
        return len(data)


FORMAT = _Gzip()
