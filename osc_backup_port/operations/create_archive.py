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

"""The chains of backups, out of a cloud and into an archive.

Run again, it adds what is new.  Nothing that is written is written again.
"""

import collections.abc
import dataclasses
import datetime
import hashlib
import typing
import uuid

from osc_backup_port import errors, model, progress, record
from osc_backup_port.archive import catalog, manifest, names
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import locating, naming
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.formats import record_file
from osc_backup_port.operations import side_by_side
from osc_backup_port.operations.archive_segments import SegmentWriter
from osc_backup_port.transfer import limits, metering

ADDED = 'added'
ALREADY_THERE = 'already there'


class Cinder(typing.Protocol):
    """What this operation needs of the Block Storage service."""

    def get(self, backup_id: str) -> resources.Backup: ...

    def export_record(self, backup_id: str) -> record.BackupRecord: ...


@dataclasses.dataclass(frozen=True)
class Options:
    """How to make an archive.

    :ivar single: each backup by itself, as a full one, without its chain
    :ivar level: of zstd; None: not compressed
    """

    single: bool = False
    level: int | None = 3


@dataclasses.dataclass
class Step:
    """One backup, and what is to be done with it.

    :ivar snapshot: what to call the point in time; *is_head*: where the pool has
        no snapshot of it, and the image holds nothing else
    :ivar start: the point that the increment starts from; None: from nothing
    :ivar result: a word or two for the table
    """

    record: record.BackupRecord
    source_image: str
    snapshot: str
    is_head: bool
    start: str | None = None
    result: str = 'to be added'
    moved: int = 0
    written: int = 0

    @property
    def is_new(self) -> bool:
        return self.result != ALREADY_THERE


@dataclasses.dataclass
class ImagePlan:
    """What is to be added to one image of an archive.

    :ivar unknown: snapshots of backups that Cinder does not know any more
    """

    name: str
    layout: model.ImageLayout
    steps: list[Step]
    unknown: list[str]


def plan(
    cinder: Cinder,
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    wanted: collections.abc.Sequence[str],
    options: Options,
) -> list[ImagePlan]:
    """Find what has to be added; write nothing.

    :param wanted: ids of backups; their ancestors are added to them
    :raises PortError: a record or an image cannot be had, or the archive is damaged
    """
    records = _with_ancestors(cinder, wanted, ancestors=not options.single)
    steps = [_locate(pool, item, records) for item in records.values()]
    if options.single:
        steps = [_standalone(step) for step in steps]
        images = {step.record.id: [step] for step in steps}
    else:
        images = {}
        for step in steps:
            images.setdefault(step.source_image, []).append(step)
    return [_plan_image(cinder, pool, store, group, options) for group in images.values()]


def _with_ancestors(
    cinder: Cinder, wanted: collections.abc.Sequence[str], ancestors: bool
) -> dict[str, record.BackupRecord]:
    found: dict[str, record.BackupRecord] = {}
    missing = list(dict.fromkeys(wanted))
    while missing:
        for item in side_by_side.each(cinder.export_record, missing):
            if isinstance(item, errors.PortError):
                raise item
            if not item.is_ceph:
                raise errors.InvalidInput(
                    f'Backup {item.id}: was made by {item.backup_service}, whose data does not '
                    'lie in Ceph.',
                    'Only its record can be moved: openstack volume backup metadata export',
                )
            found[item.id] = item
        parents = {item.parent_id for item in found.values() if item.parent_id}
        missing = sorted(parents - set(found)) if ancestors else []
    return found


def _locate(
    pool: ceph_pool.Pool, item: record.BackupRecord, records: dict[str, record.BackupRecord]
) -> Step:
    location = locating.locate(pool, item, records.get(item.parent_id or ''))
    names.check_image(location.image)
    if location.snapshot is None:
        return Step(item, location.image, naming.new_snapshot(item), True)
    return Step(item, location.image, location.snapshot.name, False)


def _standalone(step: Step) -> Step:
    """Rewrite a record to that of a full backup that nothing depends on."""
    alone = step.record.with_changes(
        parent_id=None,
        service_metadata=f'{{"base": "{naming.own_image(step.record)}"}}',
        num_dependent_backups=0,
    )
    return dataclasses.replace(step, record=alone)


def _plan_image(
    cinder: Cinder,
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    steps: list[Step],
    options: Options,
) -> ImagePlan:
    source = steps[0].source_image
    name = naming.own_image(steps[0].record) if options.single else source
    with pool.open(source) as image:
        layout, snapshots = image.layout(), image.snapshots()
    there = catalog.read_image(store, name)
    archived = {backup.id: backup for backup in there.backups} if there else {}
    order = {snapshot.name: snapshot.id for snapshot in snapshots}
    steps.sort(key=lambda step: order.get(step.snapshot, 0))
    points = {backup.increment.to_snap for backup in archived.values()}
    for step in steps:
        if step.record.id in archived:
            _check_same(archived[step.record.id], step, store)
            step.start = archived[step.record.id].increment.from_snap
            step.result = ALREADY_THERE
            continue
        step.start = None if options.single else _newest_before(step, points, order)
        points.add(step.snapshot)
    unknown = [] if options.single else _unknown_snapshots(cinder, snapshots, steps)
    return ImagePlan(name, layout, steps, unknown)


def _newest_before(step: Step, points: set[str], order: dict[str, int]) -> str | None:
    """Return the newest archived point, before this one, that the pool still has."""
    if step.is_head:
        return None
    before = [point for point in points if order.get(point, 1 << 62) < order[step.snapshot]]
    return max(before, key=order.__getitem__, default=None)


def _check_same(backup: catalog.Backup, step: Step, store: archive_store.Store) -> None:
    if step.is_head or backup.increment.to_snap == step.snapshot:
        return
    raise errors.Conflict(
        f'{store.name}/{backup.path}: holds snapshot {backup.increment.to_snap} of backup '
        f'{backup.id}, the pool has {step.snapshot}.',
        'The backup was imported anew since; put it into another archive.',
    )


def _unknown_snapshots(
    cinder: Cinder, snapshots: collections.abc.Sequence[model.Snapshot], steps: list[Step]
) -> list[str]:
    """Return the snapshots whose backup Cinder does not know."""
    known = {step.record.id for step in steps}
    unknown = []
    for snapshot in snapshots:
        backup_id = naming.backup_of_snapshot(snapshot.name)
        if backup_id is None or backup_id in known:
            continue
        try:
            cinder.get(backup_id)
        except errors.NotFound:
            unknown.append(snapshot.name)
    return unknown


def run(
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    plans: collections.abc.Sequence[ImagePlan],
    options: Options,
    shown: progress.Progress,
    bounds: limits.Limits = limits.DEFAULT,
) -> None:
    """Write what was planned; the steps tell what was done.

    :raises Conflict: another run writes into the same chain
    :raises CephError: the cluster was lost
    :raises OSError: the archive cannot be written
    """
    if catalog.read_archive(store) is None:
        mark = manifest.Archive(str(uuid.uuid4()), _now())
        store.put(names.ARCHIVE, manifest.encode_archive(mark))
    for image in plans:
        if not any(step.is_new for step in image.steps):
            continue
        with store.lock(image.name):
            _ImageWriter(pool, store, image, options, shown, bounds).write()


class _ImageWriter:
    """Adds increments to one image of an archive, whose lock is held."""

    def __init__(
        self,
        pool: ceph_pool.Pool,
        store: archive_store.Store,
        image: ImagePlan,
        options: Options,
        shown: progress.Progress,
        bounds: limits.Limits,
    ) -> None:
        self._pool = pool
        self._store = store
        self._image = image
        self._options = options
        self._shown = shown
        self._bounds = bounds

    def write(self) -> None:
        # Read once more, now that nobody else can write.
        there = catalog.read_image(self._store, self._image.name)
        done = {backup.id for backup in there.backups} if there else set()
        if there is None:
            self._store.put(
                f'{self._image.name}/{names.IMAGE}', manifest.encode_image(self._image.layout)
            )
        folders = [names.parse_increment(path.split('/')[-1]) for path in _unfinished(there)]
        started = {found[1]: found[0] for found in folders if found}
        numbers = [backup.increment.number for backup in there.backups] if there else []
        number = max([*numbers, *started.values(), -1]) + 1
        for step in self._image.steps:
            if step.record.id in done:
                step.result = ALREADY_THERE
                continue
            if step.record.id in started:
                self._write_increment(step, started[step.record.id])
            else:
                self._write_increment(step, number)
                number += 1

    def _write_increment(self, step: Step, number: int) -> None:
        """Write the folder of one backup; increment.json, the last, is the commit."""
        path = f'{self._image.name}/{names.increment(number, step.record.id)}'
        raw_record = record_file.write_record(step.record).encode()
        metadata = self._pool.read_object(naming.metadata_object(step.record.id))
        self._store.put(f'{path}/{names.RECORD}', raw_record)
        if metadata is not None:
            self._store.put(f'{path}/{names.VOLUME_METADATA}', metadata)
        segments, size = self._write_segments(step, path)
        info = manifest.Increment(
            step.record.id,
            number,
            step.start,
            step.snapshot,
            size,
            tuple(segments),
            hashlib.sha256(raw_record).hexdigest(),
            None if metadata is None else hashlib.sha256(metadata).hexdigest(),
            _now(),
        )
        self._store.put(f'{path}/{names.INCREMENT}', manifest.encode_increment(info))
        step.result = ADDED

    def _write_segments(self, step: Step, path: str) -> tuple[list[manifest.Segment], int]:
        meter = metering.Meter(self._shown)
        point = None if step.is_head else step.snapshot
        with self._pool.open(step.source_image, point) as image:
            size = image.size()
            self._shown.begin(f'Backup {step.record.id}', size)
            writer = SegmentWriter(self._store, path, self._options.level, meter, self._bounds)
            increment = model.Increment(step.start, step.snapshot, size, iter(()))
            segments = writer.write(image, increment)
        step.moved, step.written = meter.moved, writer.written
        return segments, size


def _unfinished(image: catalog.Image | None) -> tuple[str, ...]:
    return image.unfinished if image else ()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
