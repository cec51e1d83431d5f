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

"""A raw image that comes out of something compressed, piece by piece."""

import io

import pytest

from osc_backup_port import errors, model
from osc_backup_port.formats import packed
from tests.unit.streams import reader

CONTENT = bytes(range(256)) * 4


class Source:
    """Unpacks to *content*, and remembers how much was asked for."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)
        self.asked = 0

    def unpack(self, count: int) -> bytes:
        self.asked += count
        return self._file.read(count)


@pytest.mark.parametrize('piece', [1, 7, 512, 1023, 1024, 1025, 5000])
def test_the_pieces_are_the_image(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(packed, 'PIECE', piece)

    items = list(packed.read(reader(b''), len(CONTENT), Source(CONTENT).unpack))
    position = 0
    for item in items:
        assert isinstance(item, model.Data)
        assert item.offset == position
        assert item.data == CONTENT[position : position + item.length]
        position += item.length
    assert position == len(CONTENT)


def test_one_byte_more_is_looked_for_and_no_other() -> None:
    source = Source(CONTENT * 1000)

    with pytest.raises(errors.InvalidInput, match='unpacks to more than 1024 bytes'):
        list(packed.read(reader(b''), len(CONTENT), source.unpack))
    assert source.asked == len(CONTENT) + 1


def test_less_than_the_record_says() -> None:
    with pytest.raises(errors.TruncatedStream, match=r'unpacks to 1024 bytes; .* 2000 bytes'):
        list(packed.read(reader(b''), 2000, Source(CONTENT).unpack))
