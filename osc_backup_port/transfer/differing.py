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

"""The whole content of an image, brought down to what differs from another.

Used where a full copy meets an image that holds other backups of the same
chain already: what is the same stays shared with them.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from osc_backup_port import items as image_items
from osc_backup_port import model
from osc_backup_port.transfer import ranges, zeros

drop_zeros = image_items.drop_zeros


class ReadableImage(Protocol):
    """What is there already."""

    def read(self, offset: int, length: int) -> bytes: ...

    def extents(self) -> Iterator[model.Extent]: ...


def differing_items(items: Iterable[model.Item], image: ReadableImage) -> Iterator[model.Item]:
    """Yield what has to be written to *image* so that it holds just *items*.

    :param items: all of the content, in any order; the rest is holes
    """
    covered, seen = ranges.Ranges(), ranges.Ranges()
    for item in items:
        start, end = item.offset, item.offset + item.length
        seen_before = list(seen.gaps(start, end)) != [(start, end)]
        seen.add(start, end)
        if isinstance(item, model.Data):
            covered.add(start, end)
        else:
            covered.remove(start, end)
        if seen_before:
            # An earlier item of the same place may still be on its way, so
            # what could be read there now says nothing.
            yield item
        elif isinstance(item, model.Data):
            yield from _differing_blocks(item, image.read(item.offset, item.length))
    for extent in image.extents():
        if extent.exists:
            for start, end in covered.gaps(extent.offset, extent.offset + extent.length):
                yield model.Zero(start, end - start)


def _differing_blocks(item: model.Data, there: bytes) -> Iterator[model.Data]:
    if item.data == there:
        return
    for at in range(0, item.length, zeros.BLOCK):
        block = item.data[at : at + zeros.BLOCK]
        if not there.startswith(block, at):
            yield model.Data(item.offset + at, block)
