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
from osc_backup_port.transfer import pacing


class Meter:
    """Counts the bytes that were moved, and those that did not have to be.

    :param pace: how fast data may go by; None: as fast as it comes
    :ivar moved: bytes of data
    :ivar skipped: bytes of holes, of zeros and of what did not change
    """

    def __init__(self, shown: progress.Progress, pace: pacing.Pace | None = None) -> None:
        self.moved = 0
        self.skipped = 0
        self._shown = shown
        self._pace = pace

    def watch(self, items: Iterable[model.Item], size: int) -> Iterator[model.Item]:
        """Hand on all of the items of an image of *size* bytes, and count them."""
        track = Track(self, size)
        yield from track.watch(items)
        track.finish()

    def count(self, moved: int, skipped: int) -> None:
        self.moved += moved
        self.skipped += skipped
        self._shown.advance(moved, skipped)
        if self._pace is not None:
            self._pace.passed(moved)


class Track:
    """The items of one image, which go by in one part or in several."""

    def __init__(self, meter: Meter, size: int) -> None:
        self._meter = meter
        self._size = size
        self._position = 0

    def watch(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        """Hand on a part of the items, and count them."""
        for item in items:
            self._meter.count(0, max(item.offset - self._position, 0))
            yield item
            is_data = isinstance(item, model.Data)
            self._meter.count(item.length if is_data else 0, 0 if is_data else item.length)
            self._position = max(self._position, item.offset + item.length)

    def finish(self) -> None:
        """Count what lies behind the last of them."""
        self._meter.count(0, max(self._size - self._position, 0))
        self._position = self._size
