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
from collections.abc import Iterator

from osc_backup_port import errors, model
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import lease, naming
from osc_backup_port.transfer import differing, limits, metering, writing, zeros


class ChainWriter:
    """Writes increments to one image, which is open to write and locked.

    :param name: what the image will be called, for errors
    :param fresh: the image was just made: it has no data and no snapshots
    :param meter: counts what is written
    """

    def __init__(
        self,
        image: ceph_image.Image,
        name: str,
        lock: lease.Lease,
        fresh: bool,
        meter: metering.Meter,
        bounds: limits.Limits = limits.DEFAULT,
    ) -> None:
        self._image = image
        self._name = name
        self._lock = lock
        self._meter = meter
        self._bounds = bounds
        self._is_empty = fresh
        self._point: str | None = None  # the snapshot that HEAD is known to equal
        self._made: list[str] = []

    def snapshot_of(self, backup_id: str | None) -> model.Snapshot | None:
        """Return the snapshot that a backup has on this image."""
        for snapshot in self._backups():
            if naming.backup_of_snapshot(snapshot.name) == backup_id:
                return snapshot
        return None

    def add(self, increment: model.Increment, snapshot: str | None) -> None:
        """Write an increment and commit it as *snapshot*.

        What is there already is read and left.  Without a snapshot the content
        is only a step to the next increment.

        :raises InvalidInput: the increment starts where this chain never was
        """
        present = self.snapshot_of(naming.backup_of_snapshot(snapshot))
        if present is not None:
            for _item in self._meter.watch(increment.items, increment.size):
                pass
            return
        self._write(increment)
        if snapshot is not None:
            self._lock.check()
            self._image.create_snapshot(snapshot)
            self._made.append(snapshot)
        self._point = snapshot or increment.to_snap

    def finish(self) -> None:
        """Leave HEAD at the newest backup."""
        newest = self._newest()
        if newest is not None and newest.name != self._point:
            self._lock.check()
            self._image.roll_back(newest.name)

    def undo(self) -> None:
        """Take back what this writer added, as if it had not begun."""
        for name in reversed(self._made):
            self._image.remove_snapshot(name)
        newest = self._newest()
        if newest is not None:
            self._image.roll_back(newest.name)

    def _write(self, increment: model.Increment) -> None:
        items = zeros.split_zeros(increment.items)
        items = self._meter.watch(items, increment.size)
        if increment.from_snap is not None:
            self._go_to(increment.from_snap)
        elif self._is_empty:
            items = differing.drop_zeros(items)
        else:
            items = differing.differing_items(items, self._image)
        self._is_empty = False
        if self._image.size() != increment.size:
            self._image.resize(increment.size)
        writing.write_items(self._image, items, self._bounds)

    def _go_to(self, name: str) -> None:
        """Make HEAD the point in time that an increment starts from.

        The snapshot of a backup may have another time in its name here.
        """
        if name == self._point:
            return
        backup_id = naming.backup_of_snapshot(name)
        start = self.snapshot_of(backup_id) if backup_id else None
        if start is None:
            there = ', '.join(snapshot.name for snapshot in self._backups()) or 'none'
            raise errors.InvalidInput(
                f'Image {self._name}: the increment starts from snapshot {name}, which is '
                f'not on it; there: {there}.',
                f'Import {_wanted(backup_id)} first, or export the backup in full (without '
                '--from-backup).',
            )
        if start.name != self._point and self._differs_from(start):
            self._lock.check()
            self._image.roll_back(start.name)
        self._point = start.name

    def _differs_from(self, snapshot: model.Snapshot) -> bool:
        if self._image.size() != snapshot.size:
            return True
        return next(self._image.extents(snapshot.name), None) is not None

    def _backups(self) -> list[model.Snapshot]:
        return [
            snapshot
            for snapshot in self._image.snapshots()
            if naming.backup_of_snapshot(snapshot.name)
        ]

    def _newest(self) -> model.Snapshot | None:
        return max(
            self._backups(),
            key=lambda snapshot: (naming.age_of_snapshot(snapshot.name), snapshot.id),
            default=None,
        )


def _wanted(backup_id: str | None) -> str:
    return f'backup {backup_id}' if backup_id else 'the image it belongs to'


@contextlib.contextmanager
def undone_on_error(writer: ChainWriter) -> Iterator[None]:
    """Undo what *writer* did when the block fails; the first error wins."""
    try:
        yield
    except BaseException as error:
        try:
            writer.undo()
        except errors.PortError as second:
            raise errors.CephError(
                f'{error}\nAnd what was done so far could not be undone: {second}'
            ) from error
        raise
