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

"""Numbers and texts as Ceph writes them, for methods of its object classes."""

import struct


def number(value: int) -> bytes:
    """Return 64 bits, without sign."""
    return struct.pack('<Q', value)


def text(value: str) -> bytes:
    return raw(value.encode())


def raw(value: bytes) -> bytes:
    return struct.pack('<I', len(value)) + value


def versioned(content: bytes) -> bytes:
    """Return a structure of version 1, that anybody can read who knows of version 1."""
    return struct.pack('<BBI', 1, 1, len(content)) + content


class Reader:
    """Takes an answer apart, from its beginning.

    Every method raises ``struct.error`` or ``ValueError`` where the answer is another one.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def number(self) -> int:
        return int(self._take('<Q'))

    def signed(self) -> int:
        return int(self._take('<q'))

    def count(self) -> int:
        return int(self._take('<I'))

    def raw(self) -> bytes:
        return self.take(self.count())

    def take(self, length: int) -> bytes:
        """Return the next bytes."""
        found = self._content[self._at : self._at + length]
        if len(found) < length:
            raise ValueError(f'{length} bytes should be there, {len(found)} are')
        self._at += length
        return found

    def text(self) -> str:
        return self.raw().decode()

    def enter(self) -> None:
        """Go into a structure; what a later version has at its end is not read."""
        self._take('<BBI')

    def skip(self) -> None:
        """Go behind a structure."""
        self._take('<BB')
        self.raw()

    def _take(self, form: str) -> int:
        values = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return int(values[-1])
