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

"""The map of an image: which of its objects there are, two bits for each."""

import re
from collections.abc import Iterator

from osc_backup_port.ceph import encoding

#: Objects in a byte.
_EACH = 4
#: Bytes that two maps are put together by.
_PIECE = 1 << 16
_SOME = re.compile(rb'[^\0]+')


class ObjectMap:
    """A map at one point in time, as ``rbd.object_map_load`` answers with it.

    :raises ValueError: it is none
    """

    def __init__(self, answer: encoding.Reader) -> None:
        header = encoding.Reader(answer.raw())
        header.enter()
        self.count = header.number()
        self._bits = answer.take((self.count + _EACH - 1) // _EACH)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield the numbers of the first object, and of that behind the last, of each run."""
        start = end = 0
        for number in self._numbers():
            if number != end:
                if end > start:
                    yield start, end
                start = number
            end = number + 1
        if end > start:
            yield start, end

    def _numbers(self) -> Iterator[int]:
        # Most of a large image may be empty: that goes by without a step of ours.
        for found in _SOME.finditer(self._bits):
            for at in range(*found.span()):
                states = self._bits[at]
                for number in range(_EACH):
                    # The first object has the highest bits.
                    if states >> 2 * (_EACH - 1 - number) & 3:
                        yield at * _EACH + number

    def add(self, other: 'ObjectMap') -> None:
        """Know of the objects of another map, too."""
        self.count = max(self.count, other.count)
        shorter, longer = sorted((self._bits, other._bits), key=len)
        bits = bytearray(longer)
        for at in range(0, len(shorter), _PIECE):
            piece = shorter[at : at + _PIECE]
            both = int.from_bytes(piece, 'big') | int.from_bytes(bits[at : at + len(piece)], 'big')
            bits[at : at + len(piece)] = both.to_bytes(len(piece), 'big')
        self._bits = bytes(bits)
