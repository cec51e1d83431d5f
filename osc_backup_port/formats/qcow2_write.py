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

"""Writing a qcow2 image, version 3, in one go: what has no data takes no space.

The file has no gaps: header, L1 table, then clusters and tables as they come, the refcounts
last. The header, without which nobody takes it for an image, is written when all else is.
Memory: two clusters and the L1 table, which has 8 bytes for each 512 MiB of the disk.

Source: docs/interop/qcow2.txt of QEMU.
"""

import struct
from collections.abc import Iterable

from osc_backup_port import errors, model, units
from osc_backup_port.formats import qcow2_read, stream

_BITS = 16
CLUSTER = 1 << _BITS
_ENTRIES = CLUSTER // 8
_SPAN = _ENTRIES * CLUSTER
#: Refcounts have 2^4 bits.
_REFCOUNT_ORDER = 4
_REFCOUNTS = CLUSTER // 2
_IS_USED_ONCE = 1 << 63
_SECTOR = 512
#: Data is written in pieces of at most this size.
_PIECE = 4 * units.MIB


def write(writer: stream.Writer, items: Iterable[model.Item], size: int) -> None:
    """Write a disk of *size* bytes, and finish the file.

    :param items: in ascending order
    :raises InvalidInput: no such image can be in that file, or have that size
    """
    if not writer.has_places:
        raise errors.InvalidInput(
            f'{writer.name}: is not a new file. A qcow2 image has to be written here and there.',
            'Give a name for the file: --file <path>. Into a pipe: --format raw, or zstd',
        )
    if size % _SECTOR:
        raise errors.InvalidInput(
            f'{writer.name}: the volume has {size} bytes. A qcow2 image has whole sectors of '
            f'{_SECTOR} bytes.',
            'Take another format: --format raw, or zstd',
        )
    disk = _Disk(writer, size)
    for item in items:
        if isinstance(item, model.Data):
            disk.put(item.offset, item.data)
    disk.finish()


class _Disk:
    """Gives clusters their places in the file, one after the other."""

    def __init__(self, writer: stream.Writer, size: int) -> None:
        self._writer = writer
        self._size = size
        self._l1 = [0] * -(-size // _SPAN)
        self._l1_clusters = -(-len(self._l1) * 8 // CLUSTER)
        self._used = 1 + self._l1_clusters
        # Of the table of clusters that is being filled.
        self._table = [0] * _ENTRIES
        self._table_number = 0
        # A cluster of which more may come.
        self._open = bytearray()
        self._open_number = 0

    def put(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            number, within = divmod(offset, CLUSTER)
            if within == 0 and len(view) >= CLUSTER:
                length = min(len(view) // CLUSTER * CLUSTER, _PIECE)
                # They are told in one table.
                length = min(length, (_ENTRIES - number % _ENTRIES) * CLUSTER)
                self._place(number, view[:length])
            else:
                length = min(CLUSTER - within, len(view))
                self._open_at(number)[within : within + length] = view[:length]
            offset, view = offset + length, view[length:]

    def finish(self) -> None:
        self._close_cluster()
        self._close_table()
        table_at, table_clusters = self._write_refcounts()
        l1 = struct.pack(f'>{len(self._l1)}Q', *self._l1)
        self._writer.write_at(CLUSTER, l1.ljust(self._l1_clusters * CLUSTER, b'\0'))
        self._writer.write_at(0, self._header(table_at, table_clusters))
        self._writer.finish_places()

    def _open_at(self, number: int) -> bytearray:
        if self._open and self._open_number != number:
            self._close_cluster()
        if not self._open:
            self._open, self._open_number = bytearray(CLUSTER), number
        return self._open

    def _close_cluster(self) -> None:
        if self._open:
            content, self._open = bytes(self._open), bytearray()
            self._place(self._open_number, content)

    def _place(self, number: int, data: 'bytes | memoryview') -> None:
        """Write whole clusters of the disk, the first of which is *number*."""
        self._close_cluster()
        table, at = divmod(number, _ENTRIES)
        if table != self._table_number:
            self._close_table()
            self._table_number = table
        count = len(data) // CLUSTER
        first = self._append(data)
        places = range(first, first + count * CLUSTER, CLUSTER)
        self._table[at : at + count] = [place | _IS_USED_ONCE for place in places]

    def _close_table(self) -> None:
        if any(self._table):
            place = self._append(struct.pack(f'>{_ENTRIES}Q', *self._table))
            self._l1[self._table_number] = place | _IS_USED_ONCE
            self._table = [0] * _ENTRIES

    def _append(self, data: 'bytes | memoryview') -> int:
        """Write whole clusters to the end of the file; return where they are."""
        place = self._used * CLUSTER
        self._writer.write_at(place, data)
        self._used += len(data) // CLUSTER
        return place

    def _write_refcounts(self) -> tuple[int, int]:
        """Count each cluster of the file as used once, those of the counts with them."""
        blocks, table_clusters = 0, 0
        # Each may make the other larger.
        while (needed := self._needed(blocks, table_clusters)) != (blocks, table_clusters):
            blocks, table_clusters = needed
        total = self._used + blocks + table_clusters
        block = b'\0\1' * _REFCOUNTS
        places = []
        for at in range(0, total, _REFCOUNTS):
            used = block[: 2 * min(_REFCOUNTS, total - at)]
            places.append(self._append(used.ljust(CLUSTER, b'\0')))
        table = struct.pack(f'>{len(places)}Q', *places)
        return self._append(table.ljust(table_clusters * CLUSTER, b'\0')), table_clusters

    def _needed(self, blocks: int, table_clusters: int) -> tuple[int, int]:
        total = self._used + blocks + table_clusters
        needed = -(-total // _REFCOUNTS)
        return needed, -(-needed * 8 // CLUSTER)

    def _header(self, refcounts_at: int, refcount_clusters: int) -> bytes:
        first = qcow2_read.HEADER.pack(
            qcow2_read.MAGIC,
            3,
            *(0, 0),
            _BITS,
            self._size,
            0,
            *(len(self._l1), CLUSTER),
            *(refcounts_at, refcount_clusters),
            *(0, 0),
        )
        length = qcow2_read.HEADER.size + qcow2_read.MORE.size
        more = qcow2_read.MORE.pack(0, 0, 0, _REFCOUNT_ORDER, length)
        # The zeros behind it end the list of extensions, which is empty.
        return (first + more).ljust(CLUSTER, b'\0')
