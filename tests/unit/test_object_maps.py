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

"""The map of the objects of an image, as Ceph 16.2.15 answers with it."""

import struct

import pytest

from osc_backup_port.ceph import encoding, object_maps

#: Of an image of nine objects, of which the first, the fourth, the fifth and the last are there.
NINE = bytes.fromhex('0e000000 0101 08000000 0900000000000000 41 c0 40 00000000')


def load(content: bytes) -> object_maps.ObjectMap:
    return object_maps.ObjectMap(encoding.Reader(content))


def made(bits: bytes, count: int) -> object_maps.ObjectMap:
    header = encoding.versioned(encoding.number(count))
    return load(encoding.raw(header) + bits + bytes(4))


def test_the_objects_that_are_there() -> None:
    found = load(NINE)
    assert found.count == 9
    assert list(found.runs()) == [(0, 1), (3, 5), (8, 9)]


@pytest.mark.parametrize(('bits', 'runs'), [(b'\0' * 9, []), (b'\xff' * 9, [(0, 36)])])
def test_all_or_nothing(bits: bytes, runs: list[tuple[int, int]]) -> None:
    assert list(made(bits, 36).runs()) == runs


def test_most_of_a_large_image_is_passed_over() -> None:
    bits = bytes(10 << 20) + b'\1' + bytes(10 << 20)
    at = 4 * (10 << 20) + 3
    assert list(made(bits, 4 * len(bits)).runs()) == [(at, at + 1)]


def test_two_maps_of_different_lengths_become_one() -> None:
    for one, other in ((NINE, b'\x30'), (b'\x30', NINE)):
        maps = [load(each) if each is NINE else made(each, 4) for each in (one, other)]
        maps[0].add(maps[1])
        assert (maps[0].count, list(maps[0].runs())) == (9, [(0, 2), (3, 5), (8, 9)])
    many = made(b'\xc0' + bytes(1 << 16) + b'\3', (2 + (1 << 16)) * 4)
    many.add(made(bytes(1 << 16) + b'\xc0', (1 + (1 << 16)) * 4))
    assert list(many.runs()) == [(0, 1), (4 << 16, (4 << 16) + 1), ((4 << 16) + 7, (4 << 16) + 8)]


@pytest.mark.parametrize('content', [b'', NINE[:18], NINE[:20], bytes(64), b'\xff' * 64])
def test_what_is_no_map(content: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        load(content)
