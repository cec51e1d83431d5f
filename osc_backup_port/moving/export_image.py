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

"""The bytes of one backup, out of the cluster and into a stream."""

import contextlib
import dataclasses
import time
from collections.abc import Generator, Iterator

from osc_backup_port import errors, model, progress, record, units
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import locating
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import incoming, raw, rbd_diff, rbd_export, stream
from osc_backup_port.moving import image_info
from osc_backup_port.transfer import differing, limits, metering, pacing, reading


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What will be exported.

    :param base: where the increment starts from; None: from nothing
    """

    backup_id: str
    source: locating.Location
    base: model.Snapshot | None
    format: str


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What was exported; sizes in bytes."""

    image: str
    snapshot: str | None
    size: int
    stream_size: int
    moved: int
    skipped: int
    sha256: str | None
    seconds: float


def plan(
    pool: ceph_pool.Pool,
    backup: record.BackupRecord,
    parent: record.BackupRecord | None,
    image_format: str,
    from_backup: str | None = None,
) -> Plan:
    """Find what to export.

    :param from_backup: the id of the backup that an rbd-diff starts from
    :raises NotFound: the bytes of the backup are not in the pool
    :raises Conflict: they are in more than one place
    :raises InvalidInput: the options contradict what is there
    """
    source = locating.locate(pool, backup, parent)
    base = _find_base(source, backup.id, from_backup) if from_backup else None
    return Plan(backup.id, source, base, image_format)


def describe(planned: Plan, result: Result) -> image_info.ImageInfo:
    """Return what is to be told of a file that was written."""
    return image_info.ImageInfo(
        planned.format, planned.backup_id, result.size, result.stream_size, result.sha256
    )


def _find_base(source: locating.Location, backup_id: str, from_backup: str) -> model.Snapshot:
    for snapshot in source.chain:
        if ceph_driver.backup_of_snapshot(snapshot.name) == from_backup:
            if source.snapshot is None or snapshot.id >= source.snapshot.id:
                raise errors.InvalidInput(
                    f'Backup {from_backup} is not older than backup {backup_id}, so that no '
                    'increment leads from it.',
                    'Exchange the two, or leave --from-backup out.',
                )
            return snapshot
    there = ', '.join(snapshot.name for snapshot in source.chain) or 'none'
    raise errors.InvalidInput(
        f'Backup {from_backup} has no snapshot on image {source.image}, which holds backup '
        f'{backup_id}; there: {there}.',
        'Take a backup of the same chain, or leave --from-backup out.',
    )


def run(
    pool: ceph_pool.Pool,
    planned: Plan,
    writer: stream.Writer,
    shown: progress.Progress,
    bounds: limits.Limits = limits.DEFAULT,
) -> Result:
    """Write what was planned.

    :raises CephError: the cluster was lost
    :raises OSError: the stream cannot be written
    """
    started = time.monotonic()
    meter = metering.Meter(shown, pacing.Pace(bounds.rate))
    exporter = _Exporter(pool, planned, meter, shown, bounds)
    size = exporter.write(writer)
    snapshot = planned.source.snapshot
    return Result(
        planned.source.image,
        snapshot.name if snapshot else None,
        size,
        writer.position,
        meter.moved,
        meter.skipped,
        writer.sha256,
        time.monotonic() - started,
    )


class _Exporter:
    """Reads points in time of one image and writes them in one of the formats."""

    def __init__(
        self,
        pool: ceph_pool.Pool,
        planned: Plan,
        meter: metering.Meter,
        shown: progress.Progress,
        bounds: limits.Limits,
    ) -> None:
        self._pool = pool
        self._plan = planned
        self._meter = meter
        self._shown = shown
        self._bounds = bounds

    def write(self, writer: stream.Writer) -> int:
        """Write the stream; return the size of the image."""
        source = self._plan.source
        point = source.snapshot.name if source.snapshot else None
        # Opening is a dozen questions, one after the other: once is enough.
        with self._pool.open(source.image, point) as image:
            self._check_room(writer, image)
            layout = image.layout()
            if self._plan.format == incoming.RBD:
                self._write_export(writer, layout)
            else:
                base = self._plan.base.name if self._plan.base else None
                self._shown.begin('Exporting', layout.size)
                # Reads are under way when a write fails: they end before the image is closed.
                with contextlib.closing(self._read(image, base)) as items:
                    metered = self._meter.watch(items, layout.size)
                    if self._plan.format == incoming.RAW:
                        raw.write(writer, metered, layout.size)
                    else:
                        wanted = metered if base else differing.drop_zeros(metered)
                        increment = model.Increment(base, point, layout.size, iter(wanted))
                        self._write_all(writer, rbd_diff.encode(increment))
        return layout.size

    def _check_room(self, writer: stream.Writer, image: ceph_image.Image) -> None:
        """Make sure that the disk of the file has room, as far as that is known before.

        :raises Conflict: it has not
        """
        base = self._plan.base.name if self._plan.base else None
        needed, free = image.used(base), writer.free()
        if needed is not None and free is not None and needed > free:
            raise errors.Conflict(
                f'{writer.name}: there is room for {units.human_size(free)}, expected '
                f'{units.human_size(needed)}.',
                'Free space, or choose another folder. That is the size of all objects of the '
                'image that hold something: if you know that it takes less, write to a pipe.',
            )

    def _write_all(self, writer: stream.Writer, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            writer.write(piece)
        writer.finish()

    def _write_export(self, writer: stream.Writer, layout: model.ImageLayout) -> None:
        points = self._points()
        self._shown.begin('Exporting', sum(point.size for point in points) or layout.size)
        # After the snapshots comes what HEAD has more than the last of them:
        # nothing, since newer backups are not asked for.
        count = len(points) + 1
        # It holds an image open, which is closed here and not whenever it is collected.
        with contextlib.closing(self._increments(layout, points)) as increments:
            self._write_all(writer, rbd_export.encode(layout, count, increments))

    def _points(self) -> list[model.Snapshot]:
        """Return the snapshots of the chain up to this backup."""
        last = self._plan.source.snapshot
        return [point for point in self._plan.source.chain if last and point.id <= last.id]

    def _increments(
        self, layout: model.ImageLayout, points: list[model.Snapshot]
    ) -> Generator[model.Increment, None, None]:
        image_name, last = self._plan.source.image, None
        for point in points:
            with (
                self._pool.open(image_name, point.name) as image,
                contextlib.closing(self._read(image, last)) as items,
            ):
                metered = self._meter.watch(items, point.size)
                wanted = metered if last else differing.drop_zeros(metered)
                yield model.Increment(last, point.name, point.size, iter(wanted))
            last = point.name
        if points:
            yield model.Increment(last, None, layout.size, iter(()))
            return
        with (
            self._pool.open(image_name) as image,
            contextlib.closing(self._read(image, None)) as items,
        ):
            wanted = differing.drop_zeros(self._meter.watch(items, layout.size))
            yield model.Increment(None, None, layout.size, iter(wanted))

    def _read(
        self, image: ceph_image.Image, start: str | None
    ) -> Generator[model.Item, None, None]:
        return reading.read_items(image, image.extents(start), self._bounds)
