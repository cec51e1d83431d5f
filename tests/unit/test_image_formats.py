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

"""The formats of the file of an image: each is one module, found by its place."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osc_backup_port import errors, model
from osc_backup_port.formats import image, image_formats, incoming, rbd_diff, rbd_export, stream
from tests.unit import streams
from tests.unit.streams import (
    as_file,
    joined,
    read_image,
    read_point,
    reader,
    write_point,
)

SIZE = 8192
ITEMS: list[model.Item] = [
    model.Data(0, b'first'),
    model.Zero(4096, 512),
    model.Data(5000, b'second'),
]
POINTS = [
    name
    for name in image_formats.names()
    if image_formats.get(name).holds is image_formats.Holds.POINT
]
#: A format that nothing of ours knows: the bytes of the volume, each turned over.
THROWN_IN = """
from osc_backup_port import model
from osc_backup_port.formats import image_formats, raw


class Turned(image_formats.OnePoint):
    name = 'turned'
    suffixes = ('.turned', '.ned')
    summary = 'each byte is turned over'

    def begins(self, head):
        return head.startswith(b'TURNED')

    def items(self, reader, size):
        reader.read_exactly(6)
        data = bytes(255 - byte for byte in reader.read_exactly(size))
        return iter([model.Data(0, data)])

    def write(self, writer, increment):
        writer.write(b'TURNED')
        for piece in raw.pieces(increment.items, increment.size):
            writer.write(bytes(255 - byte for byte in piece))
        writer.finish()


FORMAT = Turned()
"""


def test_the_order_of_the_help() -> None:
    names = image_formats.names()

    assert names[:3] == ('raw', 'rbd', 'rbd-diff')
    assert list(names[3:]) == sorted({'gzip', 'qcow2', 'zstd'} | set(names[3:]))


@pytest.mark.parametrize('name', image_formats.names())
def test_each_format_tells_of_itself(name: str) -> None:
    one = image_formats.get(name)

    assert one.name == name
    assert one.summary
    assert not one.summary.endswith('.')
    assert all(suffix.startswith('.') and suffix.islower() for suffix in one.suffixes)


def test_no_two_formats_have_the_same_sign() -> None:
    every = [image_formats.get(name) for name in image_formats.names()]

    for signs in ([one.suffixes for one in every], [one.banners for one in every]):
        flat: list[object] = [sign for of_one in signs for sign in of_one]
        assert len(flat) == len(set(flat))


def test_there_is_no_such_format() -> None:
    with pytest.raises(KeyError):
        image_formats.get('vmdk')


@pytest.mark.parametrize(
    ('path', 'told'),
    [
        ('x.qcow2', 'qcow2'),
        ('/a.gz/X.QCOW2', 'qcow2'),
        ('x.raw.gz', 'gzip'),
        ('x.gz', 'gzip'),
        ('x.zst', 'zstd'),
        ('x.raw', None),
        ('x.img', None),
        ('qcow2', None),
        ('x.qcow2.bak', None),
        ('/a.gz/x', None),
        ('', None),
    ],
)
def test_what_a_name_tells(path: str, told: str | None) -> None:
    assert image_formats.of_file_name(path) == told


@pytest.mark.parametrize('name', POINTS)
class TestAFormatOfOnePoint:
    def test_the_bytes_come_back(self, name: str) -> None:
        assert read_point(name, write_point(name, ITEMS, SIZE), SIZE) == joined(ITEMS, SIZE)

    def test_an_empty_disk(self, name: str) -> None:
        assert read_point(name, write_point(name, [], SIZE), SIZE) == bytes(SIZE)

    @pytest.mark.parametrize('size', [SIZE - 512, SIZE + 512])
    def test_another_size_is_refused(self, name: str, size: int) -> None:
        content = write_point(name, ITEMS, SIZE)

        with pytest.raises(errors.InvalidInput, match=r'the-stream: .*record says'):
            read_point(name, content, size)

    def test_it_begins_as_it_says(self, name: str) -> None:
        assert image_formats.get(name).begins(write_point(name, ITEMS, SIZE)[:512])

    def test_its_name_is_enough_to_recognise_it(self, name: str) -> None:
        found = incoming.recognise(reader(write_point(name, ITEMS, SIZE)), SIZE, bool, name)

        assert found == name

    def test_it_may_be_the_raw_image_of_a_volume_too(self, name: str) -> None:
        """A disk may hold any file: its owner must not get it taken for that file."""
        content = write_point(name, ITEMS, SIZE)

        assert incoming.recognise(reader(content), len(content), bool) == 'raw'


@pytest.mark.parametrize('name', POINTS)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damage_is_an_error_that_we_know(name: str, data: st.DataObject) -> None:
    """Whatever comes, it is read or refused; at the right size, since that is looked at first."""
    content = bytearray(write_point(name, ITEMS, SIZE))
    places = st.integers(0, min(len(content), 160) - 1) | st.integers(0, len(content) - 1)
    for at in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    del content[data.draw(st.just(len(content)) | places) :]

    with contextlib.suppress(errors.InvalidInput):
        assert len(read_point(name, bytes(content), SIZE)) == SIZE


@pytest.mark.parametrize('suffix', ['.qcow2', '.gz', '.zst'])
def test_a_name_that_is_wrong(suffix: str) -> None:
    """Also where the size is that of the volume: whoever named it so meant it."""
    told = image_formats.of_file_name(suffix)
    assert told

    with pytest.raises(errors.InvalidInput, match=f'expected the format {told}') as caught:
        incoming.recognise(reader(bytes(SIZE)), SIZE, bool, told)
    assert '--format raw' in str(caught.value)


class TestIncrements:
    """A chain, and one increment, as the rbd tool reads them."""

    def increments(self) -> Iterator[model.Increment]:
        yield model.Increment(None, 'one', SIZE, iter(ITEMS))
        yield model.Increment('one', 'two', SIZE, iter([model.Zero(0, 512)]))

    def write(self, name: str, increments: Iterator[model.Increment], count: int) -> bytes:
        layout = model.ImageLayout(SIZE, features=61)
        with as_file(b'') as file:
            outgoing = streams.Outgoing(layout, count, increments)
            streams.write(image_formats.get(name), stream.Writer(file), outgoing)
            file.seek(0)
            return file.read()

    def test_a_chain(self) -> None:
        content = self.write('rbd', self.increments(), 2)
        plain = [
            model.Increment(None, 'one', SIZE, iter([ITEMS[0], ITEMS[2]])),
            *list(self.increments())[1:],
            model.Increment('two', None, SIZE, iter(())),
        ]

        layout = model.ImageLayout(SIZE, features=61)
        assert content == b''.join(rbd_export.encode(layout, 3, plain))
        first = joined(ITEMS, SIZE)
        second = bytes(512) + first[512:]
        assert read_image(content) == [
            (None, 'one', first),
            ('one', 'two', second),
            ('two', None, second),
        ]

    def test_an_increment_keeps_its_zeros(self) -> None:
        increment = model.Increment('one', 'two', SIZE, iter([model.Zero(0, 512)]))
        content = self.write('rbd-diff', iter([increment]), 1)

        again = model.Increment('one', 'two', SIZE, iter([model.Zero(0, 512)]))
        assert content == b''.join(rbd_diff.encode(again))


class TestAModuleThatIsThrownIn:
    @pytest.fixture(autouse=True)
    def _thrown_in(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        (tmp_path / 'turned.py').write_text(THROWN_IN)
        monkeypatch.setattr(image, '__path__', [*image.__path__, str(tmp_path)])
        yield
        sys.modules.pop(f'{image.__name__}.turned', None)

    def test_is_listed(self) -> None:
        assert 'turned' in image_formats.names()
        assert image_formats.of_file_name('disk.ned') == 'turned'

    def test_is_written_and_read_by_its_name(self) -> None:
        content = write_point('turned', ITEMS, SIZE)

        assert content.startswith(b'TURNED' + bytes(255 - byte for byte in b'first'))
        assert read_point('turned', content, SIZE) == joined(ITEMS, SIZE)

    def test_is_refused_where_it_does_not_begin_so(self) -> None:
        with pytest.raises(errors.InvalidInput, match='expected the format turned'):
            incoming.recognise(reader(bytes(SIZE)), SIZE, bool, 'turned')
