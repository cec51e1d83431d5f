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

"""Adding points in time to the image of a chain.

A snapshot is the commit: what is written counts from the moment it is made.
The HEAD of the image always ends as the newest backup on it, because that is
what Cinder's next incremental backup builds on.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from osc_backup_port import errors, model
from osc_backup_port import items as image_items
from osc_backup_port.ceph import commands, heads, lease
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.transfer import differing, limits, metering, writing, zeros

#: Seconds: osd_client_watch_timeout is 30.
WATCH_TIMEOUT = 40

_Filter = Callable[[Iterable[model.Item]], Iterator[model.Item]]


class ChainWriter:
    """Writes increments to one image, which is open to write and locked.

    :param name: what the image will be called, for errors
    :param snapshots: those that it has; None: it was just made, and has no data either
    :param meter: counts what is written
    """

    def __init__(
        self,
        image: ceph_image.Image,
        name: str,
        lock: lease.Lease,
        snapshots: Sequence[model.Snapshot] | None,
        meter: metering.Meter,
        bounds: limits.Limits = limits.DEFAULT,
    ) -> None:
        self._image = image
        self._name = name
        self._lock = lock
        self._meter = meter
        self._bounds = bounds
        self._is_empty = snapshots is None
        # Nobody else makes any while the image is locked: asked once.
        self._snapshots = sorted(snapshots or ())
        self._point: str | None = None  # the snapshot that HEAD is known to equal
        self._made: list[str] = []
        self._known_size: int | None = None
        self._track: metering.Track | None = None

    def snapshot_of(self, backup_id: str | None) -> model.Snapshot | None:
        """Return the snapshot that a backup has on this image."""
        for snapshot in self._snapshots:
            if ceph_driver.backup_of_snapshot(snapshot.name) == backup_id:
                return snapshot
        return None

    def knows(self, start: str | None) -> bool:
        """Tell whether an increment can start from there: a point of this image, or nothing."""
        return start in (None, self._point) or self._point_of(start) is not None

    def begin(self, increment: model.Increment) -> Callable[[Iterable[model.Item]], None]:
        """Make HEAD the point that *increment* starts from.

        Returns what writes all of its items to there.  An increment that starts
        from nothing, on an image that has something, is brought down to what
        differs.
        """
        wanted: _Filter = iter
        if increment.from_snap is not None:
            self._go_to(increment.from_snap)
        elif self._is_empty:
            wanted = image_items.ZeroFilter()
        else:
            wanted = self._differing
        return self._writer(increment.size, wanted)

    def takes_parts(self, increment: model.Increment) -> bool:
        """Tell whether its items may be written in several parts.

        Not where they are compared with what is there: what is missing from
        all of them has to become a hole.
        """
        return increment.from_snap is not None or self._is_empty

    def resume(self, increment: model.Increment) -> Callable[[Iterable[model.Item]], None]:
        """Go on with an increment of which HEAD has a part already.

        Returns what writes the rest of its items.
        """
        wanted: _Filter = iter
        if increment.from_snap is None:
            extents = (extent for extent in self._image.extents() if extent.exists)
            written = max((extent.offset + extent.length for extent in extents), default=0)
            wanted = image_items.ZeroFilter(written)
        return self._writer(increment.size, wanted)

    def commit(self, snapshot: str | None, point: str | None = None) -> None:
        """Make HEAD a snapshot.

        :param point: what increments call this point, where it has no snapshot
        """
        if snapshot is not None:
            self._lock.check()
            size = self._size()
            self._image.create_snapshot(snapshot)
            self._made.append(snapshot)
            # Its id is not known, but that it is larger than all others.
            number = self._snapshots[-1].id + 1 if self._snapshots else 0
            self._snapshots.append(model.Snapshot(number, snapshot, size))
        self._point = snapshot or point
        if self._track is not None:
            self._track.finish()

    def look_again(self) -> None:
        """List the snapshots anew: an error, or a signal, may have come while one was made."""
        self._snapshots = sorted(self._image.snapshots())
        self._known_size = None

    def finish(self) -> None:
        """Leave HEAD at the newest backup."""
        self._lock.check()
        newest = ceph_driver.newest(self._snapshots)
        if newest is not None and newest.name != self._point:
            self._image.roll_back(newest.name)

    def undo(self) -> None:
        """Take back what this writer added, as if it had not begun."""
        for name in reversed(self._made):
            self._image.remove_snapshot(name)
        self.look_again()
        newest = ceph_driver.newest(self._snapshots)
        if newest is not None:
            self._image.roll_back(newest.name)

    def _differing(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        return differing.differing_items(items, self._image)

    def _writer(self, size: int, wanted: _Filter) -> Callable[[Iterable[model.Item]], None]:
        self._is_empty = False
        self._point = None
        self._lock.check()
        if self._size() != size:
            self._image.resize(size)
            self._known_size = size

        self._track = track = metering.Track(self._meter, size)

        def write(items: Iterable[model.Item]) -> None:
            metered = track.watch(zeros.split_zeros(items))
            writing.write_items(self._image, self._while_locked(wanted(metered)), self._bounds)

        return write

    def _size(self) -> int:
        """Return the size of HEAD, which nobody else changes.

        librbd is asked once: behind each snapshot it would refresh the image for that, with six
        questions.
        """
        if self._known_size is None:
            self._known_size = self._image.size()
        return self._known_size

    def _while_locked(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        for item in items:
            self._lock.check()
            yield item

    def _go_to(self, name: str) -> None:
        """Make HEAD the point in time that an increment starts from.

        The snapshot of a backup may have another time in its name here.
        """
        if name == self._point:
            return
        start = self._point_of(name)
        if start is None:
            backup_id = ceph_driver.backup_of_snapshot(name)
            there = ', '.join(one.name for one in ceph_driver.by_age(self._snapshots)) or 'none'
            raise errors.InvalidInput(
                f'Image {self._name}: the increment starts from snapshot {name}, which is '
                f'not on it; there: {there}.',
                f'Import {_wanted(backup_id)} first, or export the backup in full (without '
                '--from-backup).',
            )
        if start.name != self._point and heads.differs(self._image, start):
            self._lock.check()
            self._image.roll_back(start.name)
            self._known_size = start.size
        self._point = start.name

    def _point_of(self, name: str | None) -> model.Snapshot | None:
        backup_id = ceph_driver.backup_of_snapshot(name)
        return self.snapshot_of(backup_id) if backup_id else None

    @property
    def last(self) -> str:
        """The snapshot that was made last, empty where there is none."""
        return self._snapshots[-1].name if self._snapshots else ''


def check_may_add(pool_name: str, image: ceph_image.Image) -> list[model.Snapshot]:
    """Make sure that an image is a chain which nobody else is changing.

    :return: its snapshots
    :raises Conflict: it is not
    """
    wait_until_alone(image)
    snapshots = image.snapshots()
    if not any(ceph_driver.backup_of_snapshot(snap.name) for snap in snapshots):
        raise not_a_chain(pool_name, image.name, image.commands)
    return snapshots


def not_a_chain(pool_name: str, name: str, shell: commands.Commands) -> errors.Conflict:
    """Return the error for an image that is there, and has no snapshot of a backup."""
    aside = shell.rbd('rename', name, f'{name}.aside')
    return errors.Conflict(
        f'Image {name} in pool {pool_name}: is there, without the snapshot of any backup. It '
        'was imported without snapshots, or it is a backup of a volume snapshot or of a volume '
        'that is not in Ceph; which, cannot be told.',
        f'Set it aside: {aside}. If a backup of this cloud needs it, import the new one into '
        'another cloud, or another pool.',
    )


def wait_until_alone(image: ceph_image.Image) -> None:
    """Make sure that nobody else has an image open to write.

    The cluster counts a client that died as one that does, for half a minute: wait
    for that.  Until then librbd refuses to roll back, for one.

    :raises Conflict: somebody has
    """
    deadline = time.monotonic() + WATCH_TIMEOUT
    while (writers := image.other_writers()) and time.monotonic() < deadline:
        time.sleep(1)
    if writers:
        raise errors.Conflict(
            f'Image {image.name}: is being written by {", ".join(writers)}.',
            'Wait until the backup that uses it has ended, then try again.',
        )


def new_layout(layout: model.ImageLayout) -> model.ImageLayout:
    """Return how to make an image: the striping of another, Cinder's features."""
    striped = layout.stripe_count > 1
    return model.ImageLayout(
        size=layout.size,
        order=layout.order,
        stripe_unit=layout.stripe_unit if striped else 0,
        stripe_count=layout.stripe_count if striped else 0,
    )


def _wanted(backup_id: str | None) -> str:
    return f'backup {backup_id}' if backup_id else 'the image it belongs to'


@contextlib.contextmanager
def undone_on_error(lock: lease.Lease, what: str, undo: Callable[[], None]) -> Iterator[None]:
    """Call *undo* when the block fails; the first error wins.

    Not where the lock is lost: what is there may be another run's by now.

    :param what: what stays half done if that fails, too, and who cleans up then
    """
    try:
        yield
    except BaseException as error:
        if not lock.is_lost:
            try:
                undo()
            except errors.PortError as second:
                _tell_also(error, f'{what} Cleaning up failed: {second.problem}')
        raise


def _tell_also(error: BaseException, text: str) -> None:
    if isinstance(error, errors.PortError):
        error.tell_also(text)
    else:
        error.args = (f'{error} {text}',)
