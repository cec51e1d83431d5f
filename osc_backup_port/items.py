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

"""Rules of the items that an image is made of."""

import dataclasses
from collections.abc import Iterable, Iterator

from osc_backup_port import model


class ZeroFilter:
    """Passes on data only: an image that is new has zeros everywhere else.

    Zeros are kept where data may have come before them.  Where items are in
    ascending order, as they should be, that is nowhere.

    :param written: where the data ends that came before
    """

    def __init__(self, written: int = 0) -> None:
        self._written = written

    def __call__(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        """Pass on some items; the next ones may follow in another call."""
        for item in items:
            if isinstance(item, model.Data):
                self._written = max(self._written, item.offset + item.length)
                yield item
            elif item.offset < self._written:
                yield item


def drop_zeros(items: Iterable[model.Item]) -> Iterator[model.Item]:
    """Pass all items of an image that is new through a :class:`ZeroFilter`."""
    return ZeroFilter()(items)


def without_needless_zeros(increment: model.Increment) -> model.Increment:
    """Return *increment* without zeros where it comes from nothing, which are there already."""
    if increment.from_snap is not None:
        return increment
    return dataclasses.replace(increment, items=drop_zeros(increment.items))
