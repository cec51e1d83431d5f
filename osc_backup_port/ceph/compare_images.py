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

"""Seeing that two images hold the same."""

import contextlib
import itertools
from collections.abc import Iterable

from osc_backup_port import errors, model, progress
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.transfer import limits, ranges, reading


def compare(
    one: ceph_image.Image,
    other: ceph_image.Image,
    bounds: limits.Limits,
    shown: progress.Progress,
) -> errors.InvalidInput | None:
    """Read all that either image has; return in what they differ.  Costs one read of each."""
    if one.size() != other.size():
        return _differs(one, other, f'one has {one.size()} bytes, the other {other.size()}')
    extents = _extents_of_either(one, other)
    offset = first_difference(one, other, extents, bounds, shown)
    if offset is not None:
        return _differs(one, other, f'the bytes at offset {offset} are not the same')
    shown.advance(0, one.size() - sum(extent.length for extent in extents))
    return None


def first_difference(
    one: ceph_image.Image,
    other: ceph_image.Image,
    extents: Iterable[model.Extent],
    bounds: limits.Limits,
    shown: progress.Progress | None = None,
) -> int | None:
    """Return an offset at which the bytes of *extents* differ, None if they are the same."""
    for_one, for_other = itertools.tee(extents)
    # Reads are under way when a difference is found: they end before the images are closed.
    with (
        contextlib.closing(reading.read_items(one, for_one, bounds)) as of_one,
        contextlib.closing(reading.read_items(other, for_other, bounds)) as of_other,
    ):
        for left, right in itertools.zip_longest(of_one, of_other):
            # The same bytes are cut into the same items.
            if left != right:
                return int((left or right).offset)
            if shown is not None:
                shown.advance(0, left.length)
    return None


def _extents_of_either(one: ceph_image.Image, other: ceph_image.Image) -> list[model.Extent]:
    either = ranges.Ranges()
    for image in (one, other):
        for extent in image.extents():
            if extent.exists:
                either.add(extent.offset, extent.offset + extent.length)
    return [model.Extent(start, end - start, True) for start, end in either]


def _differs(one: ceph_image.Image, other: ceph_image.Image, problem: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'Image {other.name}: is not what {one.name} of the other cloud is: {problem}.',
        'What was written is removed. Look at the health of both clusters, then try again.',
    )
