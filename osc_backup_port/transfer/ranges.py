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

"""Sets of numbers that are a few ranges."""

import bisect
from collections.abc import Iterator


class Ranges:
    """Disjoint ranges of numbers, ends excluded, in ascending order."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def add(self, start: int, end: int) -> None:
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def remove(self, start: int, end: int) -> None:
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end)
        if first >= last:
            return
        kept = [
            (low, high)
            for low, high in ((self._starts[first], start), (end, self._ends[last - 1]))
            if low < high
        ]
        self._starts[first:last] = [low for low, _high in kept]
        self._ends[first:last] = [high for _low, high in kept]

    def overlaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a range that these cover."""
        for at in range(bisect.bisect_right(self._ends, start), len(self._starts)):
            if self._starts[at] >= end:
                break
            yield max(start, self._starts[at]), min(end, self._ends[at])

    def gaps(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a range that none of these covers."""
        for at in range(bisect.bisect_right(self._ends, start), len(self._starts)):
            if self._starts[at] >= end:
                break
            if start < self._starts[at]:
                yield start, self._starts[at]
            start = self._ends[at]
        if start < end:
            yield start, end
