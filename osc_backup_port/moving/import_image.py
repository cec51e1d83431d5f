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

"""The bytes of one backup, out of a stream and into the cluster.

The image gets the name, and the snapshot, by which Cinder finds this backup.
Nothing half-done is visible under a name that Cinder looks for: a new image
is written under another name and renamed; one that is there is added to, and
the snapshot is the commit.
"""

import contextlib
import dataclasses
import time

from osc_backup_port import errors, model, progress, record, units
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import lease
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import incoming, stream
from osc_backup_port.moving import (
    chain_writer,
    image_info,
    read_back,
    target_pool,
    volume_metadata,
)
from osc_backup_port.transfer import limits, metering, pacing

IMPORTED = 'imported'
ALREADY_THERE = 'already there'


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose.

    :param image_name: where to put it; None: where Cinder looks for it
    :param volume_metadata: the content of the ``.meta`` object
    :param verify: read back what was written, and compare
    :param stored_size: bytes that the stream takes on its disk; 0: not known
    :param format: of the stream, where the user tells it
    :param info: what is told of it in a file beside it
    :param allow_foreign_image: put it into an image of another volume, if the record says so
    """

    image_name: str | None = None
    volume_metadata: bytes | None = None
    verify: bool = False
    stored_size: int = 0
    format: str | None = None
    info: image_info.ImageInfo | None = None
    allow_foreign_image: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What was imported; sizes in bytes."""

    state: str
    image: str
    snapshot: str
    format: str
    size: int
    moved: int
    skipped: int
    sha256: str | None
    volume_metadata: str
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A stream of which the format is known.

    :param size: bytes of the image, if it is a raw one
    """

    reader: stream.Reader
    format: str
    size: int
    info: image_info.ImageInfo | None

    def open(self) -> incoming.Incoming:
        return incoming.open_stream(self.reader, self.size, self.format, self._check)

    def _check(self) -> None:
        if self.info is not None:
            image_info.check_sha256(self.info, self.reader)


def recognise(
    reader: stream.Reader,
    backup: record.BackupRecord,
    options: Options,
    shown: progress.Progress,
) -> Source:
    """Find out what a stream is, by its beginning and its size; read nothing of it.

    :raises InvalidInput: that cannot be told for sure, or it is nothing that can be imported
    """
    size, info = backup.size * units.GIB, options.info
    if info is not None:
        image_info.check(info, reader, backup, options.format)
        return Source(reader, info.format, info.image_size, info)
    image_format = options.format or incoming.recognise(reader, size, backup.fits)
    actual = incoming.raw_size(reader, size, backup.fits)
    if image_format == incoming.RAW and actual != size:
        shown.say(
            f'{reader.name}: is taken for an image of {actual} bytes, though the record says '
            f'{size} ({backup.size} GiB). Right if the volume has that size; if not, the file '
            'was cut short.'
        )
    return Source(reader, image_format, actual, None)


def _check_name(
    pool: ceph_pool.Pool,
    name: str,
    backup: record.BackupRecord,
    parent: record.BackupRecord | None,
    options: Options,
) -> None:
    """See that Cinder finds in an image what is put there, and that it is nobody else's.

    :raises InvalidInput: it is not so
    """
    if not options.allow_foreign_image:
        ceph_driver.refuse_foreign_image(backup, ceph_driver.target_image(backup, parent))
    named = backup.base_image or (parent.base_image if parent else None)
    looked_at = (
        [named] if named else [ceph_driver.own_image(backup), ceph_driver.legacy_image(backup)]
    )
    if name not in looked_at:
        raise errors.InvalidInput(
            f'Backup {backup.id}: going by its record, Cinder looks for it in '
            f'{" and ".join(looked_at)}, and --image-name is {name}. It would not find the '
            'snapshot there, and restore other bytes.',
            f'Leave out --image-name. If the chain is in {name} already, give it the right name '
            f'first: {pool.commands.rbd("rename", name, looked_at[0])}',
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, and all that stands in its way.

    :param snapshot: of the backup, where it is there already
    """

    image: str
    snapshot: str | None
    obstacles: list[errors.PortError]

    @property
    def state(self) -> str:
        return ALREADY_THERE if self.snapshot else 'to be imported'


def plan(
    pool: ceph_pool.Pool,
    backup: record.BackupRecord,
    parent: record.BackupRecord | None,
    options: Options,
) -> Plan:
    """Say what would be done; read nothing of the stream, and change nothing."""
    name = options.image_name or ceph_driver.target_image(backup, parent)
    present = _snapshot_there(pool, name, backup)
    obstacles: list[errors.PortError] = []
    try:
        _check_name(pool, name, backup, parent, options)
        volume_metadata.check(pool, backup.id, options.volume_metadata)
    except (errors.InvalidInput, errors.Conflict) as error:
        obstacles.append(error)
    if present is not None:
        return Plan(name, present.name, obstacles)
    obstacles += target_pool.check_space(pool, {name: options.stored_size})
    obstacles += target_pool.check_image(pool, name)
    return Plan(name, None, obstacles)


def run(
    pool: ceph_pool.Pool,
    backup: record.BackupRecord,
    parent: record.BackupRecord | None,
    source: Source,
    options: Options,
    shown: progress.Progress,
    bounds: limits.Limits = limits.DEFAULT,
) -> Result:
    """Import a stream as the bytes of *backup*.

    :raises InvalidInput: the stream is damaged, or is not of this backup
    :raises Conflict: what is there stands in the way, or another run does
    :raises CephError: the cluster was lost
    """
    started = time.monotonic()
    name = options.image_name or ceph_driver.target_image(backup, parent)
    meter = metering.Meter(shown, pacing.Pace(bounds.rate))
    import_ = _Import(pool, backup, name, source, meter, shown, bounds)
    import_.verify = options.verify
    with pool.lock(name) as lock:
        obstacles = plan(pool, backup, parent, options).obstacles
        if obstacles:
            raise _all_of(obstacles)
        present = _snapshot_there(pool, name, backup)
        state = IMPORTED
        if present is None:
            import_.write(lock)
            present = _snapshot_there(pool, name, backup)
        else:
            state = ALREADY_THERE
        lock.check()
        where = volume_metadata.store(pool, backup.id, options.volume_metadata)
    if present is None:
        raise errors.CephError(f'Image {name}: the snapshot of backup {backup.id} has vanished.')
    return Result(
        state,
        name,
        present.name,
        source.format if state == IMPORTED else '-',
        present.size,
        meter.moved,
        meter.skipped,
        source.reader.sha256 if state == IMPORTED else None,
        where,
        time.monotonic() - started,
    )


def _all_of(obstacles: list[errors.PortError]) -> errors.PortError:
    if len(obstacles) == 1:
        return obstacles[0]
    return errors.SomeFailed('Nothing was imported:', obstacles)


def _snapshot_there(
    pool: ceph_pool.Pool, name: str, backup: record.BackupRecord
) -> model.Snapshot | None:
    with contextlib.suppress(errors.NotFound), pool.open(name) as image:
        for snapshot in image.snapshots():
            if ceph_driver.backup_of_snapshot(snapshot.name) == backup.id:
                return snapshot
    return None


class _Import:
    """One stream on its way into one image."""

    def __init__(
        self,
        pool: ceph_pool.Pool,
        backup: record.BackupRecord,
        name: str,
        source: Source,
        meter: metering.Meter,
        shown: progress.Progress,
        bounds: limits.Limits,
    ) -> None:
        self._pool = pool
        self._backup = backup
        self._name = name
        self._source = source
        self._reader = source.reader
        self._shown = shown
        self._bounds = bounds
        self.meter = meter
        self.verify = False

    def write(self, lock: lease.Lease) -> None:
        arriving = self._source.open()
        if self._pool.has_image(self._name):
            self._add_to_image(arriving, lock)
        else:
            self._make_image(arriving, lock)

    def _make_image(self, arriving: incoming.Incoming, lock: lease.Lease) -> None:
        """Write a new image under a temporary name, and rename it."""
        part = ceph_driver.temporary_image(self._name)
        # One that a dead run left behind is not trusted.  The lock is ours.
        self._pool.remove(part)
        layout = arriving.layout or model.ImageLayout(self._source.size)
        left = f'Image {part} may be left in pool {self._pool.name}; the next run removes it.'
        with chain_writer.undone_on_error(lock, left, lambda _error: self._pool.remove(part)):
            self._pool.create(part, chain_writer.new_layout(layout))
            with self._pool.open(part, writable=True) as image:
                writer = self._writer(image, lock, fresh=True)
                self._write_increments(arriving, writer)
            lock.check()
            self._pool.rename(part, self._name)

    def _add_to_image(self, arriving: incoming.Incoming, lock: lease.Lease) -> None:
        """Add to the chain that is there."""
        with self._pool.open(self._name, writable=True) as image:
            chain_writer.check_may_add(self._pool.name, image)
            writer = self._writer(image, lock, fresh=False)
            left = f'Image {self._name} may not be as its newest backup; the next run mends it.'
            with chain_writer.undone_on_error(lock, left, lambda _error: writer.undo()):
                self._write_increments(arriving, writer)

    def _writer(
        self, image: ceph_image.Image, lock: lease.Lease, fresh: bool
    ) -> chain_writer.ChainWriter:
        return chain_writer.ChainWriter(image, self._name, lock, fresh, self.meter, self._bounds)

    def _write_increments(
        self, arriving: incoming.Incoming, writer: chain_writer.ChainWriter
    ) -> None:
        seen: list[str] = []
        for increment in arriving.increments:
            snapshot = self._snapshot_for(increment, arriving)
            self._check_size(increment, snapshot)
            self._shown.begin('Importing', increment.size)
            if self.verify and snapshot is not None:
                self._add_and_compare(writer, increment, snapshot)
            else:
                writer.add(increment, snapshot)
            seen.extend([snapshot] if snapshot else [])
        if writer.snapshot_of(self._backup.id) is None:
            raise errors.InvalidInput(
                f'{self._reader.name}: does not hold backup {self._backup.id}; it holds '
                f'{", ".join(seen) or "no backup"}.',
                'Give the file of this backup, or the record of one of those.',
            )
        writer.finish()

    def _add_and_compare(
        self, writer: chain_writer.ChainWriter, increment: model.Increment, snapshot: str
    ) -> None:
        check = read_back.ReadBack(self._bounds, self._shown)
        items = check.watch(increment.from_snap, increment.items)
        writer.add(dataclasses.replace(increment, items=items), snapshot)
        written = writer.snapshot_of(ceph_driver.backup_of_snapshot(snapshot))
        if written is not None:
            check.compare(self._pool.open(writer.image_name, written.name))

    def _snapshot_for(self, increment: model.Increment, arriving: incoming.Incoming) -> str | None:
        """Return the snapshot to commit an increment as; None: none of its own."""
        backup_id = ceph_driver.backup_of_snapshot(increment.to_snap)
        if arriving.count > 1:
            return increment.to_snap if backup_id else None
        if backup_id is None:
            return ceph_driver.new_snapshot(self._backup)
        if backup_id != self._backup.id:
            raise errors.InvalidInput(
                f'{self._reader.name}: holds backup {backup_id}, but the record is of backup '
                f'{self._backup.id}.',
                f'Import it as what it is: openstack volume backup import-image {backup_id}',
            )
        return increment.to_snap

    def _check_size(self, increment: model.Increment, snapshot: str | None) -> None:
        is_ours = ceph_driver.backup_of_snapshot(snapshot) == self._backup.id
        if is_ours and not self._backup.fits(increment.size):
            raise errors.InvalidInput(
                f'{self._reader.name}: the image has {increment.size} bytes, the record says '
                f'{self._backup.size} GiB.',
                'The file belongs to another backup.',
            )
