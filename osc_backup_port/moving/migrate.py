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

"""Backups of one cloud into another, cluster to cluster, with no file between.

Again tomorrow, it moves what is new.  A run that was killed is taken up where it
stopped.
"""

import collections.abc
import contextlib
import dataclasses
import hashlib
import itertools
import threading

from osc_backup_port import errors, model, progress, units, workers
from osc_backup_port.ceph import compare_images
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import chains, image_session, target_pool, volume_metadata
from osc_backup_port.records import import_records
from osc_backup_port.transfer import limits, metering, pacing, reading

ALREADY_THERE = 'already there'
MIGRATED = 'migrated'

#: Bytes of the image between two notes of how far the work is.
_PART = units.GIB
#: Chains that are moved side by side.
_SIDE_BY_SIDE = 2


@dataclasses.dataclass
class Step:
    """One backup, and what is to be done with it.

    :ivar start: the point that the increment starts from; None: from nothing
    :ivar size: bytes of the image at this point
    :ivar estimate: bytes that have to be moved, at most; of a dry run only
    :ivar result: a word or two about its image and snapshot
    :ivar metadata: the same about its record
    """

    point: chains.Point
    start: str | None
    size: int
    result: str
    metadata: import_records.Step | None = None
    estimate: int = 0
    moved: int = 0
    skipped: int = 0
    error: errors.PortError | None = None

    @property
    def is_done(self) -> bool:
        """Tell whether all of it is there: image, snapshot and record."""
        is_there = self.result in (ALREADY_THERE, MIGRATED) and self.error is None
        return is_there and self.metadata is not None and self.metadata.is_done

    @property
    def is_missing(self) -> bool:
        return self.result != ALREADY_THERE


@dataclasses.dataclass
class ChainPlan:
    """What is to be moved of one chain."""

    chain: chains.Chain
    steps: list[Step]

    def fail(self, error: errors.PortError) -> None:
        """Keep its records out."""
        for step in self.steps:
            step.error = step.error or error
            if step.metadata is not None:
                step.metadata.fail(error, 'not imported')


@dataclasses.dataclass
class Plan:
    """All that is to be done.

    :ivar records: the same of the records
    :ivar failures: of the backups that cannot be had, by their ids
    """

    chains: list[ChainPlan]
    records: import_records.Plan
    failures: dict[str, errors.PortError]

    @property
    def steps(self) -> list[Step]:
        return [step for chain in self.chains for step in chain.steps]

    def findings(self) -> list[errors.PortError]:
        """Return all that stands in the way, or went wrong."""
        failed = [step.error for step in self.steps if step.error]
        return [*self.failures.values(), *failed, *self.records.findings()]


@dataclasses.dataclass(frozen=True)
class Clouds:
    """The pools of both clouds, and the Block Storage service of the second."""

    source: ceph_pool.Pool
    target: ceph_pool.Pool
    target_cinder: import_records.Cinder


def plan(
    source_cinder: chains.Cinder,
    clouds: Clouds,
    records: chains.Records,
    single: bool,
    options: import_records.Options,
) -> Plan:
    """Say what would be done, and change nothing.

    :param records: of the backups, and of those they descend from
    :raises PortError: no record can be had, or the other cloud refuses all
    """
    found = chains.find(source_cinder, clouds.source, records, single)
    planned = [_plan_chain(clouds, chain, options) for chain in found.chains]
    by_id = {step.point.record.id: step for chain in planned for step in chain.steps}
    named = [
        (f'Backup {step.point.record.id}', step.point.record)
        for chain in planned
        for step in chain.steps
    ]
    planned_records = import_records.plan(clouds.target_cinder, named, options)
    for metadata in planned_records.steps:
        by_id[metadata.record.id].metadata = metadata
    whole = Plan(planned, planned_records, found.failures)
    planned_records.obstacles += _check_space(clouds, whole)
    return whole


def _check_space(clouds: Clouds, planned: Plan) -> list[errors.PortError]:
    """See that the other pool has room; an image that a killed run began does not count."""
    new = [
        chain
        for chain in planned.chains
        if not clouds.target.has_image(ceph_driver.temporary_image(chain.chain.name))
    ]
    largest = {
        chain.chain.name: sum(step.size for step in chain.steps if step.is_missing)
        for chain in new
        if any(step.is_missing for step in chain.steps)
    }
    if not target_pool.check_space(clouds.target, largest):
        return []
    # Only now is it worth to ask for every extent.
    estimate(clouds, planned)
    needed = {chain.chain.name: sum(step.estimate for step in chain.steps) for chain in new}
    return target_pool.check_space(clouds.target, needed)


def _plan_chain(clouds: Clouds, chain: chains.Chain, options: import_records.Options) -> ChainPlan:
    there = _backups_there(clouds.target, chain.name)
    starts = [name for name in chain.order if ceph_driver.backup_of_snapshot(name) in there]
    steps = []
    for point in chain.points:
        is_there = point.record.id in there
        start = None if is_there else chain.newest_before(point, starts)
        with clouds.source.open(chain.source, point.opened_at) as image:
            size = image.size()
        step = Step(point, start, size, ALREADY_THERE if is_there else 'to be migrated')
        starts.append(point.snapshot)
        _check_metadata(clouds, step, options)
        steps.append(step)
    _check_image(clouds.target, chain.name, steps)
    return ChainPlan(chain, steps)


def _check_image(pool: ceph_pool.Pool, name: str, steps: list[Step]) -> None:
    """See that what is missing may be added to an image that is there."""
    missing = [step for step in steps if step.is_missing]
    for error in target_pool.check_image(pool, name) if missing else ():
        missing[0].error = missing[0].error or error


def estimate(clouds: Clouds, planned: Plan) -> None:
    """Let each step tell how much would be moved, at most; for a dry run."""
    for chain in planned.chains:
        for step in chain.steps:
            if step.is_missing:
                step.estimate = chains.bytes_to_read(
                    clouds.source, chain.chain, step.point, step.start
                )


def _backups_there(pool: ceph_pool.Pool, name: str) -> set[str | None]:
    try:
        with pool.open(name) as image:
            return {ceph_driver.backup_of_snapshot(snap.name) for snap in image.snapshots()} - {
                None
            }
    except (errors.NotFound, errors.DamagedImage):
        return set()


def _metadata(clouds: Clouds, step: Step, options: import_records.Options) -> bytes | None:
    backup_id = step.point.record.id
    content = clouds.source.read_object(ceph_driver.metadata_object(backup_id))
    return options.changes.rewrite_metadata(backup_id, content)


def _check_metadata(clouds: Clouds, step: Step, options: import_records.Options) -> None:
    try:
        content = _metadata(clouds, step, options)
        volume_metadata.check(clouds.target, step.point.record.id, content)
    except errors.PortError as error:
        step.error = error


def run(
    clouds: Clouds,
    planned: Plan,
    options: import_records.Options,
    verify: bool,
    shown: progress.Progress,
    bounds: limits.Limits = limits.SHARED,
) -> None:
    """Do what was planned; the steps tell what became of each.

    A chain that fails does not stop the others, but its records stay out.

    :param verify: read every backup back, on both sides, and compare
    :param bounds: of all that is moved at the same time
    """
    missing = [step for step in planned.steps if step.is_missing]
    shown.begin('Migrating', sum(step.size for step in missing) * (2 if verify else 1))
    todo = [chain for chain in planned.chains if any(step.is_missing for step in chain.steps)]
    each = bounds.shared_by(min(max(len(todo), 1), _SIDE_BY_SIDE))
    mover = _Mover(clouds, verify, each, shown)
    with workers.threads(_SIDE_BY_SIDE) as pool:
        try:
            for future in [pool.submit(mover.move, chain) for chain in todo]:
                future.result()
        except BaseException:
            mover.stop.set()
            raise
    for chain in planned.chains:
        if not any(step.error for step in chain.steps):
            try:
                _store_metadata(clouds, chain, options)
            except errors.PortError as error:
                chain.fail(error)
    import_records.run(planned.records, options)


def _store_metadata(clouds: Clouds, chain: ChainPlan, options: import_records.Options) -> None:
    for step in chain.steps:
        content = _metadata(clouds, step, options)
        volume_metadata.store(clouds.target, step.point.record.id, content)


class _Mover:
    """Moves chains; may be used by several threads.

    :ivar stop: set it to make all of them end
    """

    def __init__(
        self, clouds: Clouds, verify: bool, bounds: limits.Limits, shown: progress.Progress
    ) -> None:
        self._clouds = clouds
        self._verify = verify
        self._bounds = bounds
        self._shown = shown
        self._pace = pacing.Pace(bounds.rate)
        self.stop = threading.Event()

    def move(self, chain: ChainPlan) -> None:
        """Move one chain; an error goes to its steps."""
        try:
            self._move(chain)
        except errors.PortError as error:
            chain.fail(error)

    def _move(self, chain: ChainPlan) -> None:
        meter = metering.Meter(self._shown, self._pace)
        target, name = self._clouds.target, chain.chain.name
        layout = chain.chain.layout
        with image_session.session(target, name, layout, meter, self._bounds) as session:
            for step in chain.steps:
                if session.has(step.point.record.id):
                    step.result = ALREADY_THERE
                    continue
                moved, skipped = meter.moved, meter.skipped
                self._move_step(session, chain.chain, step)
                step.moved, step.skipped = meter.moved - moved, meter.skipped - skipped
                step.result = MIGRATED
            if self._verify:
                self._compare(session, chain)

    def _move_step(self, session: image_session.Session, chain: chains.Chain, step: Step) -> None:
        increment = model.Increment(step.start, step.point.snapshot, step.size, iter(()))
        identity = _identity(chain, increment)
        first = session.resume_at(identity)
        in_parts = first or session.takes_parts(increment)
        write = session.begin(increment, resumed=first > 0)
        with self._clouds.source.open(chain.source, step.point.opened_at) as image:
            if not in_parts:
                self._write(write, image, image.extents(step.start))
            else:
                for number, extents in _parts(image.extents(step.start), first):
                    self._write(write, image, extents)
                    session.note_parts(identity, number + 1)
        session.commit(increment, is_wanted=True)

    def _write(
        self,
        write: collections.abc.Callable[[collections.abc.Iterable[model.Item]], None],
        image: ceph_image.Image,
        extents: collections.abc.Iterable[model.Extent],
    ) -> None:
        # Reads are under way when a write fails: they end before the image is closed.
        with contextlib.closing(reading.read_items(image, extents, self._bounds)) as items:
            write(self._until_stopped(items))

    def _until_stopped(
        self, items: collections.abc.Iterable[model.Item]
    ) -> collections.abc.Iterator[model.Item]:
        for item in items:
            if self.stop.is_set():
                raise errors.Interrupted('Stopped.')
            yield item

    def _compare(self, session: image_session.Session, chain: ChainPlan) -> None:
        """See that what was written reads as what was read.

        :raises InvalidInput: it does not
        """
        for step in chain.steps:
            if step.result != MIGRATED:
                continue
            source, opened_at = self._clouds.source, step.point.opened_at
            with (
                source.open(chain.chain.source, opened_at) as one,
                session.open_at(self._clouds.target, step.point.snapshot) as other,
            ):
                compare_images.compare(one, other, self._bounds, self._shown)


def _identity(chain: chains.Chain, increment: model.Increment) -> str:
    told = (chain.source, increment.from_snap, increment.to_snap, increment.size)
    return hashlib.sha256(repr(told).encode()).hexdigest()


def _parts(
    extents: collections.abc.Iterable[model.Extent], first: int
) -> collections.abc.Iterator[tuple[int, collections.abc.Iterator[model.Extent]]]:
    """Yield the number and the extents of each part of the image that has some."""

    def cut() -> collections.abc.Iterator[model.Extent]:
        for extent in extents:
            offset, end = extent.offset, extent.offset + extent.length
            while offset < end:
                stop = min(end, (offset // _PART + 1) * _PART)
                if offset // _PART >= first:
                    yield model.Extent(offset, stop - offset, extent.exists)
                offset = stop

    yield from itertools.groupby(cut(), key=lambda extent: extent.offset // _PART)
