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

"""Counting what goes by."""

from collections.abc import Iterable, Iterator

from osc_backup_port import model, progress


class Meter:
    """Counts the bytes that were moved, and those that did not have to be.

    :ivar moved: bytes of data
    :ivar skipped: bytes of holes, of zeros and of what did not change
    """

    def __init__(self, shown: progress.Progress) -> None:
        self.moved = 0
        self.skipped = 0
        self._shown = shown

    def watch(self, items: Iterable[model.Item], size: int) -> Iterator[model.Item]:
        """Hand on the items of an image of *size* bytes, and count them."""
        position = 0
        for item in items:
            gap = max(item.offset - position, 0)
            self._count(0, gap)
            yield item
            if isinstance(item, model.Data):
                self._count(item.length, 0)
            else:
                self._count(0, item.length)
            position = max(position, item.offset + item.length)
        self._count(0, max(size - position, 0))

    def _count(self, moved: int, skipped: int) -> None:
        self.moved += moved
        self.skipped += skipped
        self._shown.advance(moved, skipped)
