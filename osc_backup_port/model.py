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

"""What flows from a source to a sink, and what an image is made of.

All offsets and lengths are in bytes.  A stream of items describes a part of
an image: what no item names is as it was before (an increment), or a hole
(an increment from the beginning of time).
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from osc_backup_port import units

#: The largest volume metadata, in its object or in its file; it has some 2 KiB.
MAX_VOLUME_METADATA = units.MIB


class Extent(NamedTuple):
    """A range of an image that changed: into data, or into a hole."""

    offset: int
    length: int
    exists: bool


class Data(NamedTuple):
    """Bytes at an offset."""

    offset: int
    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)


class Zero(NamedTuple):
    """A range that reads as zeros."""

    offset: int
    length: int


Item = Data | Zero


@dataclasses.dataclass(frozen=True, slots=True)
class Increment:
    """The way from one point in time of an image to another.

    :param from_snap: the snapshot it starts from; None: the beginning of time
    :param to_snap: the snapshot it leads to; None: it leads to no snapshot
    :param size: the size of the image at its end
    :param items: what changed; can be iterated once
    """

    from_snap: str | None
    to_snap: str | None
    size: int
    items: Iterator[Item]


class Snapshot(NamedTuple):
    """A snapshot of an image; ids grow with time."""

    id: int
    name: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class ImageLayout:
    """How an image is laid out in objects.

    :param order: the size of an object is ``2 ** order``
    :param features: librbd's feature bits; None: those that Cinder gives to
        the images of its backups
    :param stripe_unit: 0 where the image has no striping of its own
    """

    size: int
    order: int = 22
    features: int | None = None
    stripe_unit: int = 0
    stripe_count: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class NewImages:
    """What is chosen for images that are made; None: as the other backups in the pool have it.

    :param journals: keep a journal, for mirroring
    :param stripe_unit: in bytes; 0, with a count of 0: no striping
    """

    data_pool: str | None = None
    journals: bool | None = None
    stripe_unit: int | None = None
    stripe_count: int | None = None
