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

"""Raw images in zstd, with the zstd tool as the judge."""

import random
import shutil
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given, settings

from osc_backup_port import errors, model, units
from osc_backup_port.formats import incoming
from tests.unit.streams import ascending_items, joined, read_point, reader, write_point

SIZE = 300_000
DATA = random.Random(6).randbytes(SIZE)
WITH_CHECKSUM = zstandard.ZstdCompressor(write_checksum=True)

needs_the_tool = pytest.mark.skipif(
    shutil.which('zstd') is None, reason='the zstd tool is not installed'
)


def tool(*arguments: str, content: bytes) -> bytes:
    done = subprocess.run(
        ['zstd', '-q', '-c', *arguments], input=content, capture_output=True, check=True
    )
    assert done.stderr == b''
    return done.stdout


@settings(max_examples=30)
@given(ascending_items(SIZE))
def test_what_is_written_has_the_bytes(items: list[model.Item]) -> None:
    content = write_point('zstd', items, SIZE)

    assert zstandard.decompress(content) == joined(items, SIZE)
    assert read_point('zstd', content, SIZE) == joined(items, SIZE)


def test_what_is_written_has_its_size_and_a_checksum() -> None:
    told = zstandard.get_frame_parameters(write_point('zstd', [model.Data(0, DATA)], SIZE))

    assert told.content_size == SIZE
    assert told.has_checksum


@needs_the_tool
@pytest.mark.parametrize(
    'arguments',
    [['-1'], ['-19', '--long=27'], ['--ultra', '-22'], ['--no-check', '-T2', '-B1K']],
)
def test_the_tool_reads_and_writes_the_same(arguments: list[str]) -> None:
    content = write_point('zstd', [model.Data(0, DATA)], SIZE)

    assert tool('-d', content=content) == DATA
    image = (DATA + bytes(SIZE)) * 10
    assert read_point('zstd', tool(*arguments, content=image), len(image)) == image


@pytest.mark.parametrize('size', [0, 1, 255, 256, 65_791, 65_792, SIZE])
@pytest.mark.parametrize('told', [True, False])
def test_all_forms_of_the_header(size: int, told: bool) -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=told)
    content = compressor.compress(DATA[:size]) + compressor.compress(b'end')

    assert read_point('zstd', content, size + 3) == DATA[:size] + b'end'


def test_a_pipe_with_several_frames() -> None:
    skippable = b'\x55\x2a\x4d\x18' + (5).to_bytes(4, 'little') + b'12345'
    parts = [DATA[:10_000], b'', DATA[10_000:20_000], bytes(SIZE)]
    content = skippable + skippable.join(map(WITH_CHECKSUM.compress, parts)) + skippable

    whole = b''.join(parts)
    assert read_point('zstd', content, len(whole), piped=True) == whole


class TestNoGoodFile:
    @pytest.mark.parametrize('missing', [1, 4, 5, 1000, SIZE])
    def test_cut_short(self, missing: int) -> None:
        content = WITH_CHECKSUM.compress(DATA)[:-missing]

        with pytest.raises(errors.TruncatedStream, match='in the middle of the compressed'):
            read_point('zstd', content, SIZE)

    @pytest.mark.parametrize('end', [b'x', b'garbage', b'\x28\xb5\x2f\xfd'])
    def test_something_follows(self, end: bytes) -> None:
        with pytest.raises(errors.InvalidInput, match='the-stream: '):
            read_point('zstd', WITH_CHECKSUM.compress(DATA) + end, SIZE)

    @pytest.mark.parametrize('at', [4, 20, 150_000, -5, -1])
    def test_changed(self, at: int) -> None:
        content = bytearray(WITH_CHECKSUM.compress(DATA))
        content[at] ^= 0x08

        with pytest.raises(errors.InvalidInput, match='the-stream: '):
            read_point('zstd', bytes(content), SIZE)

    @pytest.mark.parametrize('size', [SIZE - 1, SIZE + 1])
    def test_of_another_size(self, size: int) -> None:
        with pytest.raises(errors.InvalidInput, match=f'unpacks to .*{size} bytes'):
            read_point('zstd', zstandard.compress(DATA), size)

    def test_a_bomb_stops_at_the_end_of_the_volume(self) -> None:
        bomb = reader(zstandard.compress(bytes(units.GIB)))
        size = 10 * units.MIB
        arriving = incoming.open_stream(bomb, size, 'zstd')
        unpacked: list[model.Item] = []

        with pytest.raises(errors.InvalidInput, match=f'unpacks to more than {size} bytes'):
            unpacked.extend(next(arriving.increments).items)
        assert sum(item.length for item in unpacked) <= size
        # Of a few bytes for each 128 KiB.
        assert bomb.position < 2000

    @needs_the_tool
    def test_it_needs_too_much_memory(self) -> None:
        content = tool('--long=28', content=DATA)

        with pytest.raises(errors.InvalidInput, match=r'more than 128\.0 MiB of memory') as caught:
            read_point('zstd', content, SIZE)
        assert 'zstd -dc --long=31' in str(caught.value)

    def test_it_needs_a_dictionary(self) -> None:
        dictionary = zstandard.ZstdCompressionDict(DATA[:5000])
        content = bytearray(zstandard.ZstdCompressor(dict_data=dictionary).compress(DATA))
        # Of a dictionary that has an id.
        content[4:5] = bytes([content[4] | 1, 7])

        with pytest.raises(errors.InvalidInput, match='cannot be unpacked'):
            read_point('zstd', bytes(content), SIZE)

    def test_it_is_something_else(self) -> None:
        with pytest.raises(errors.InvalidInput, match=r"begins with b'.*expected the format zstd"):
            read_point('zstd', bytes(SIZE), SIZE)


def test_the_library_is_not_there_before_it_is_needed() -> None:
    program = (
        'import sys; from osc_backup_port.formats import image_formats; image_formats.names(); '
        'sys.exit("zstandard" in sys.modules)'
    )

    assert subprocess.run([sys.executable, '-c', program]).returncode == 0
