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
import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import uuid

from osc_backup_port import errors, model, progress, record
from osc_backup_port.archive import catalog, manifest, names, sealed
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import record_file
from osc_backup_port.moving import archive_segments, chains
from osc_backup_port.transfer import limits, metering, pacing

ADDED = 'added'
ALREADY_THERE = 'already there'
FAILED = 'failed'


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

    :ivar start: the point that the increment starts from; None: from nothing
    :ivar result: a word or two for the table
    """

    point: chains.Point
    start: str | None = None
    result: str = 'to be added'
    moved: int = 0
    written: int = 0
    error: errors.PortError | None = None

    @property
    def record(self) -> record.BackupRecord:
        return self.point.record

    @property
    def is_new(self) -> bool:
        return self.result != ALREADY_THERE


@dataclasses.dataclass
class ImagePlan:
    """What is to be added to one image of an archive.

    :ivar has_leftovers: there is more than that of a backup that is there already
    """

    chain: chains.Chain
    steps: list[Step]
    has_leftovers: bool = False

    @property
    def name(self) -> str:
        return self.chain.name

    def fail(self, error: errors.PortError) -> None:
        """Tell that what is not in the archive will not get there."""
        for step in self.steps:
            if step.result not in (ADDED, ALREADY_THERE):
                step.result, step.error = FAILED, error


@dataclasses.dataclass
class Plan:
    """What is to be added, chain by chain.

    :ivar failures: of the backups that cannot be had, by their ids
    """

    images: list[ImagePlan]
    failures: dict[str, errors.PortError]

    @property
    def steps(self) -> list[Step]:
        return [step for image in self.images for step in image.steps]

    def findings(self) -> list[tuple[str, errors.PortError]]:
        """Return what went wrong, or will, with the id of each backup."""
        failed = [(step.record.id, step.error) for step in self.steps if step.error]
        return [*self.failures.items(), *failed]


def plan(
    cinder: chains.Cinder,
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    records: chains.Records,
    options: Options,
) -> Plan:
    """Find what has to be added; write nothing.

    :param records: of the backups, and of those they descend from
    :raises ForgedArchive: the archive is not to be trusted
    """
    found = chains.find(cinder, pool, records, options.single)
    planned = Plan([], found.failures)
    for chain in found.chains:
        try:
            planned.images.append(_plan_image(store, chain))
        except errors.ForgedArchive:
            raise
        except errors.PortError as error:
            planned.failures.update((point.record.id, error) for point in chain.points)
    return planned


def estimate(pool: ceph_pool.Pool, planned: Plan) -> None:
    """Let each step tell how many bytes would be read, at most; for a dry run."""

    def estimate_image(image: ImagePlan) -> None:
        for step in image.steps:
            if step.is_new:
                step.moved = chains.bytes_to_read(pool, image.chain, step.point, step.start)

    _each_image(planned, estimate_image)


def _each_image(planned: Plan, work: collections.abc.Callable[[ImagePlan], None]) -> None:
    """Call *work* for each image; one that fails does not stop the others."""
    for image in planned.images:
        try:
            work(image)
        except errors.ForgedArchive:
            raise
        except errors.PortError as error:
            image.fail(error)


def _read_image(store: archive_store.Store, name: str) -> catalog.Image | None:
    """Return what an archive has of an image.

    :raises DamagedArchive: a part of it
    """
    there = catalog.read_image(store, names.check_image(name))
    if there is not None and there.damaged:
        raise there.damaged[0].error
    return there


def _plan_image(store: archive_store.Store, chain: chains.Chain) -> ImagePlan:
    there = _read_image(store, chain.name)
    archived = {backup.id: backup for backup in there.backups} if there else {}
    points = {backup.increment.to_snap for backup in archived.values()}
    steps = []
    for point in chain.points:
        step = Step(point)
        if point.record.id in archived:
            backup = archived[point.record.id]
            _check_same(backup, step, store)
            step.start, step.result = backup.increment.from_snap, ALREADY_THERE
        else:
            step.start = chain.newest_before(point, points)
            points.add(point.snapshot)
        steps.append(step)
    started = _unfinished(there)
    leftovers = any(not step.is_new and step.record.id in started for step in steps)
    return ImagePlan(chain, steps, leftovers)


def _check_same(backup: catalog.Backup, step: Step, store: archive_store.Store) -> None:
    if step.point.is_head or backup.increment.to_snap == step.point.snapshot:
        return
    raise errors.Conflict(
        f'{store.name}/{backup.path}: holds snapshot {backup.increment.to_snap} of backup '
        f'{backup.id}, the pool has {step.point.snapshot}.',
        'The backup was imported anew since; put it into another archive.',
    )


def run(
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    planned: Plan,
    options: Options,
    shown: progress.Progress,
    bounds: limits.Limits = limits.SHARED,
) -> None:
    """Write what was planned; the steps tell what was done.

    A chain that fails does not stop the others.

    :raises OSError: the archive cannot be written
    """
    if planned.images:
        _mark(store)

    def write_image(image: ImagePlan) -> None:
        if image.has_leftovers or any(step.is_new for step in image.steps):
            with store.lock(image.name) as check:
                guarded = archive_store.Guarded(store, check)
                _ImageWriter(pool, guarded, image, options, shown, bounds).write()

    _each_image(planned, write_image)


def _mark(store: archive_store.Store) -> None:
    """Make it an archive, if it is none."""
    try:
        catalog.read_archive(store)
    except errors.NotFound:
        mark = manifest.Archive(str(uuid.uuid4()), _now())
        # Another run may do that at the same time.
        with contextlib.suppress(errors.Conflict):
            store.create(names.ARCHIVE, manifest.encode_archive(mark))


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
        self._pace = pacing.Pace(bounds.rate)

    def write(self) -> None:
        # Read once more, now that nobody else can write.
        there = self._read()
        done = {backup.id for backup in there.backups} if there else set()
        if there is None:
            self._store.create(
                f'{self._image.name}/{names.IMAGE}',
                manifest.encode_image(self._image.chain.layout),
            )
        started = _unfinished(there)
        at = {b.increment.to_snap: b.increment.number for b in there.backups} if there else {}
        number = max([*at.values(), *itertools.chain(*started.values()), -1]) + 1
        for step in self._image.steps:
            left = started.get(step.record.id, [])
            if step.record.id in done:
                step.result = ALREADY_THERE
                self._remove(step, left)
                continue
            # It may start from what was added after a dead run began it; and where a run is
            # only believed to be dead, its folder stays its own.
            mine = left[-1] if left else -1
            if not self._store.keeps_locks or mine < at.get(step.start or '', 0):
                mine, number = number, number + 1
            self._write_increment(step, mine, left)
            at[step.point.snapshot] = mine
            self._remove(step, [other for other in left if other != mine])

    def _read(self) -> catalog.Image | None:
        there = _read_image(self._store, self._image.name)
        finished = [
            self._store.finish_commit(
                f'{self._image.name}/{names.increment(number, backup_id)}/{names.INCREMENT}',
                backup_id,
            )
            for backup_id, numbers in _unfinished(there).items()
            for number in numbers
        ]
        return _read_image(self._store, self._image.name) if any(finished) else there

    def _committed(self, backup_id: str) -> bytes | None:
        """Return the commit of a backup in an object store; what it commits may be lost."""
        return self._store.get(self._commit_place(backup_id), sealed.MAX_SMALL_SIZE)

    def _commit_place(self, backup_id: str) -> str:
        return f'{self._image.name}/{names.commit(backup_id)}'

    def _path(self, step: Step, number: int) -> str:
        return f'{self._image.name}/{names.increment(number, step.record.id)}'

    def _remove(self, step: Step, numbers: collections.abc.Iterable[int]) -> None:
        """Remove what dead runs left of a backup that is committed."""
        for number in numbers:
            path = self._path(step, number)
            for entry in self._store.entries(path):
                if not entry.is_folder:
                    self._store.delete(f'{path}/{entry.name}')

    def _remove_all_but_data(self, path: str) -> None:
        """Remove what a dead run left in our folder; data is used as far as it is proven."""
        for entry in self._store.entries(path):
            if not entry.is_folder and not names.is_data(entry.name):
                self._store.delete(f'{path}/{entry.name}')

    def _write_increment(
        self, step: Step, number: int, left: collections.abc.Sequence[int]
    ) -> None:
        """Write the folder of one backup; increment.json, the last, is the commit.

        :param left: the numbers of its folders that dead runs left, this one perhaps
        """
        path = self._path(step, number)
        lost = self._committed(step.record.id)
        self._remove_all_but_data(path)
        if not self._store.keeps_locks:
            self._store.create(f'{path}/{names.WRITER}', uuid.uuid4().hex.encode())
        raw_record = record_file.write_record(step.record).encode()
        if len(raw_record) > catalog.MAX_SMALL_FILE:
            raise errors.InvalidInput(
                f'Backup {step.record.id}: its record takes {len(raw_record)} bytes, and an '
                f'archive has room for {catalog.MAX_SMALL_FILE}.'
            )
        metadata = self._pool.read_object(ceph_driver.metadata_object(step.record.id))
        self._store.put(f'{path}/{names.RECORD}', raw_record)
        if metadata is not None:
            self._store.put(f'{path}/{names.VOLUME_METADATA}', metadata)
        source = self._path(step, left[-1]) if left else path
        segments, size = self._write_segments(step, path, source)
        info = manifest.Increment(
            step.record.id,
            number,
            step.start,
            step.point.snapshot,
            size,
            segments,
            hashlib.sha256(raw_record).hexdigest(),
            None if metadata is None else hashlib.sha256(metadata).hexdigest(),
            _now(),
        )
        content = manifest.encode_increment(info)
        # Until now it tells what is lost, and keeps out a run that is only believed to be dead.
        if lost is not None and self._committed(step.record.id) == lost:
            self._store.delete(self._commit_place(step.record.id))
        self._store.commit(f'{path}/{names.INCREMENT}', step.record.id, content)
        step.result = ADDED
        archive_segments.forget_proofs(self._store, path)

    def _write_segments(self, step: Step, path: str, left: str) -> tuple[manifest.Segments, int]:
        meter = metering.Meter(self._shown, self._pace)
        source = self._image.chain.source
        with self._pool.open(source, step.point.opened_at) as image:
            size = image.size()
            self._shown.begin(f'Backup {step.record.id}', size)
            writer = archive_segments.SegmentWriter(
                self._store, path, left, self._options.level, meter, self._bounds
            )
            increment = model.Increment(step.start, step.point.snapshot, size, iter(()))
            segments = writer.write(image, increment)
        step.moved, step.written = meter.moved, writer.written
        return segments, size


def _unfinished(image: catalog.Image | None) -> dict[str, list[int]]:
    """Return the numbers of the folders that dead runs left of each backup, ascending."""
    found: dict[str, list[int]] = {}
    for one in image.unfinished if image else ():
        if parsed := names.parse_increment(one.folder):
            found.setdefault(parsed[1], []).append(parsed[0])
    return {backup_id: sorted(numbers) for backup_id, numbers in found.items()}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
