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

"""Raw images in gzip, with the gzip tool as the judge."""

import gzip
import random
import shutil
import subprocess

import pytest
from hypothesis import given, settings

from osc_backup_port import errors, model, units
from osc_backup_port.formats import incoming
from tests.unit import streams
from tests.unit.streams import (
    ascending_items,
    joined,
    outgoing,
    read_point,
    reader,
    write_point,
)

SIZE = 300_000
DATA = random.Random(5).randbytes(SIZE)


@settings(max_examples=30)
@given(ascending_items(SIZE))
def test_what_is_written_has_the_bytes(items: list[model.Item]) -> None:
    content = write_point('gzip', items, SIZE)

    assert gzip.decompress(content) == joined(items, SIZE)
    assert read_point('gzip', content, SIZE) == joined(items, SIZE)


def test_the_same_image_is_the_same_file() -> None:
    items = [model.Data(5, b'x')]

    assert write_point('gzip', items, SIZE) == write_point('gzip', items, SIZE)


@pytest.mark.skipif(shutil.which('gzip') is None, reason='the gzip tool is not installed')
def test_the_tool_reads_and_writes_the_same() -> None:
    content = write_point('gzip', [model.Data(0, DATA)], SIZE)
    unpacked = subprocess.run(['gzip', '-dc'], input=content, capture_output=True, check=True)
    packed = subprocess.run(['gzip', '-9c'], input=DATA, capture_output=True, check=True)

    assert unpacked.stdout == DATA
    assert unpacked.stderr == b''
    assert read_point('gzip', packed.stdout, SIZE) == DATA


def test_a_pipe_with_several_members() -> None:
    parts = [DATA[:10_000], b'', DATA[10_000:20_000], bytes(SIZE)]
    content = b''.join(map(gzip.compress, parts))

    whole = b''.join(parts)
    assert read_point('gzip', content, len(whole), piped=True) == whole


def test_an_error_leaves_no_good_end() -> None:
    """Whoever reads a pipe must not take what came before the error for a whole image."""
    written: list[bytes] = []

    class Pipe:
        def write(self, data: bytes) -> None:
            written.append(data)

    def failing() -> 'object':
        yield model.Data(0, DATA)
        raise errors.CephError('lost')

    with pytest.raises(errors.CephError):
        streams.write(incoming.image_formats.get('gzip'), Pipe(), outgoing(failing(), SIZE))
    assert written
    with pytest.raises(EOFError):
        gzip.decompress(b''.join(written))


class TestNoGoodFile:
    @pytest.mark.parametrize('missing', [1, 4, 8, 9, 1000])
    def test_cut_short(self, missing: int) -> None:
        content = gzip.compress(DATA)[:-missing]

        with pytest.raises(errors.TruncatedStream, match='in the middle of the compressed'):
            read_point('gzip', content, SIZE)

    @pytest.mark.parametrize('end', [b'x', b'\x1f\x8b', b'garbage' * 1000])
    def test_something_follows(self, end: bytes) -> None:
        with pytest.raises(errors.InvalidInput):
            read_point('gzip', gzip.compress(DATA) + end, SIZE)

    @pytest.mark.parametrize('at', [20, 150_000, -5, -1])
    def test_changed(self, at: int) -> None:
        content = bytearray(gzip.compress(DATA))
        content[at] ^= 0x08

        with pytest.raises(errors.InvalidInput, match='the-stream: '):
            read_point('gzip', bytes(content), SIZE)

    @pytest.mark.parametrize('size', [SIZE - 1, SIZE + 1])
    def test_of_another_size(self, size: int) -> None:
        with pytest.raises(errors.InvalidInput, match=f'unpacks to .*{size} bytes'):
            read_point('gzip', gzip.compress(DATA), size)

    def test_a_bomb_stops_at_the_end_of_the_volume(self) -> None:
        bomb = reader(gzip.compress(bytes(64 * units.MIB)) * 1000)
        arriving = incoming.open_stream(bomb, SIZE, 'gzip')

        with pytest.raises(errors.InvalidInput, match=f'unpacks to more than {SIZE} bytes'):
            list(next(arriving.increments).items)
        # One buffer of what is compressed: it was 60 MB.
        assert bomb.position <= units.MIB

    def test_it_is_something_else(self) -> None:
        with pytest.raises(errors.InvalidInput, match=r"begins with b'.*expected the format gzip"):
            read_point('gzip', bytes(SIZE), SIZE)
