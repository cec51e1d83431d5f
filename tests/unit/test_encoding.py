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

"""Numbers and texts as Ceph writes them."""

import struct

import pytest

from osc_backup_port.ceph import encoding


def test_what_is_written_is_read() -> None:
    told = encoding.number((1 << 64) - 2) + encoding.text('tö') + encoding.raw(b'')
    content = encoding.versioned(told)

    # As ENCODE_START(1, 1, ...) of Ceph.
    assert content[:6] == b'\1\1' + struct.pack('<I', 8 + 4 + 3 + 4)
    answer = encoding.Reader(content + content + struct.pack('<q', -1))
    answer.skip()
    answer.enter()
    assert (answer.number(), answer.text(), answer.raw()) == ((1 << 64) - 2, 'tö', b'')
    assert answer.signed() == -1


@pytest.mark.parametrize('content', [b'', b'\5\0\0', b'\5\0\0\0abcd', b'\1\0\0\0\xff'])
def test_what_was_cut_is_told(content: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        encoding.Reader(content).text()
