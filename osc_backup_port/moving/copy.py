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

"""Moving increments from a source to a sink: the one place that plans and drives a move.

:func:`plan` looks at both ends and changes nothing; :func:`run` does what was planned.  A
source that reads once cannot be looked at before: :func:`run_once` does both, chain by chain.
"""

import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model, progress, workers
from osc_backup_port.moving import endpoints, read_back
from osc_backup_port.moving import job as job_module
from osc_backup_port.moving import plan as plans
from osc_backup_port.moving.plan import State
from osc_backup_port.transfer import metering

LOG = logging.getLogger(__name__)

#: After one of these nothing more is to be trusted, or would be allowed.
_FATAL = (errors.ForgedArchive, errors.NotPermitted)


def plan(
    source: endpoints.Source, sink: endpoints.Sink, all_or_nothing: bool = False
) -> plans.Plan:
    """Find what has to be moved, and what stands in the way; change nothing.

    :param all_or_nothing: what stands in the way of one stands in the way of all
    :raises ForgedArchive: one of them is not to be trusted
    :raises NotPermitted: the caller may not do that at all
    """
    LOG.info('Looking: out of %s, into %s.', source.place, sink.place)
    side_by_side = min(source.side_by_side, sink.side_by_side)
    planned = plans.Plan(side_by_side=side_by_side, all_or_nothing=all_or_nothing)
    for chain in source.chains():
        try:
            present = sink.look(chain)
            planned.chains.append(plans.ChainPlan(chain, chain.steps(present)))
        except _FATAL:
            raise
        except errors.PortError as error:
            nothing = endpoints.Present()
            planned.failures += [(step.point.id, error) for step in chain.steps(nothing)]
    planned.failures[:0] = source.failures
    planned.chains = [chain for chain in planned.chains if chain.steps]
    sink.check(planned)
    sink.plan_records(planned)
    sink.check_room(planned)
    for one in planned.chains:
        LOG.info('Image %s: %d of %d backups to move.', one.name, len(one.missing), len(one.steps))
    for found in planned.errors():
        LOG.info('In the way: %s', found.in_one_line())
    return planned


def estimate(planned: plans.Plan) -> None:
    """Let each step tell how many bytes would be read, at most; for a dry run."""
    for chain in planned.chains:
        try:
            for step in chain.missing:
                step.estimate = chain.source.bytes_to_read(step)
        except errors.PortError as error:
            chain.fail(error, State.FAILED)


def run(planned: plans.Plan, sink: endpoints.Sink, job: job_module.Job) -> None:
    """Do what was planned; the steps tell what became of each.

    A chain that fails, or in whose way something stands, does not stop the others.
    """
    if planned.is_blocked:
        return
    todo = [chain for chain in planned.chains if not chain.error and sink.has_work(chain)]
    side = max(min(planned.side_by_side, len(todo)), 1)
    if side > 1:
        missing = [step for chain in todo for step in chain.missing]
        passes = 2 if job.verify else 1
        job.shown.begin('Moving', sum(step.point.size for step in missing) * passes)
        _move_side_by_side(_Mover(sink, job, side), todo, side)
    else:
        # In this thread, which is the one that a signal interrupts.
        mover = _Mover(sink, job)
        for chain in todo:
            mover.move(chain)
    for chain in planned.chains:
        if not chain.error:
            try:
                sink.finish_chain(chain)
            except errors.PortError as error:
                chain.fail(error, State.FAILED)
    sink.finish(planned)


def _move_side_by_side(mover: '_Mover', todo: list[plans.ChainPlan], side: int) -> None:
    with workers.threads(side) as pool:
        try:
            for future in [pool.submit(mover.move, chain) for chain in todo]:
                future.result()
        except BaseException:
            mover.stop.set()
            raise


def run_once(
    source: endpoints.Source, sink: endpoints.Sink, job: job_module.Job
) -> Iterator[plans.Plan]:
    """Move the chains of a source that reads once; yield what became of each.

    :raises ForgedArchive: the source is not to be trusted from here on
    :raises NotPermitted: the caller may not do that at all
    :raises InvalidInput: the source cannot be read on
    """
    LOG.info('Moving: out of %s, into %s.', source.place, sink.place)
    mover = _Mover(sink, job)
    for chain in source.chains():
        planned = plans.Plan([plans.ChainPlan(chain, [])])
        mover.move_once(planned)
        yield planned


class _Mover:
    """Moves chains.

    :param side: by so many threads at the same time
    :ivar stop: set it to make all of them end
    """

    def __init__(self, sink: endpoints.Sink, job: job_module.Job, side: int = 1) -> None:
        self._sink = sink
        self._pace = job.pace
        # One line cannot show the steps of several chains.
        self._is_alone = side == 1
        self.stop = threading.Event()
        shown = job.shown if self._is_alone else _Stoppable(job.shown, self.stop)
        bounds = job.bounds.shared_by(side)
        self._job = dataclasses.replace(job, bounds=bounds, shown=shown)

    def move(self, chain: plans.ChainPlan) -> None:
        """Move one chain that was planned; an error goes to its steps.

        :raises ForgedArchive: nothing more is to be trusted
        """
        try:
            self._receive(plans.Plan([chain]), chain)
        except _FATAL:
            raise
        except errors.PortError as error:
            self._fail(chain, error)

    def move_once(self, planned: plans.Plan) -> None:
        """Move one chain of which nothing was known before, and all that belongs to it."""
        [chain] = planned.chains
        try:
            self._receive(planned, chain)
            self._sink.finish_chain(chain)
            self._sink.plan_records(planned)
            if not planned.is_blocked:
                self._sink.finish(planned)
        except _FATAL:
            raise
        except errors.PortError as error:
            if chain.source.is_end(error):
                # Nothing of it is complete, and what is said of it is not proven.
                chain.steps = []
            if not chain.steps:
                planned.failures.append((None, error))
            self._fail(chain, error)

    def _fail(self, chain: plans.ChainPlan, error: errors.PortError) -> None:
        LOG.info('Image %s: failed: %s', chain.name, error.in_one_line())
        spare = (State.DONE, State.PRESENT) if self._sink.keeps_done else ()
        chain.fail(error, State.FAILED, spare)

    def _receive(self, planned: plans.Plan, chain: plans.ChainPlan) -> None:
        meter = metering.Meter(self._job.shown, self._pace)
        with self._sink.open(chain, self._job, meter) as receiver:
            one = _Chain(planned, chain, self._sink, receiver, self._job, self.stop)
            try:
                for step in one.steps():
                    before = meter.moved, meter.skipped
                    one.move(step, self._is_alone)
                    step.moved, step.skipped = meter.moved - before[0], meter.skipped - before[1]
                    LOG.info(
                        '%s: %d bytes moved, %d skipped.',
                        step.point.where,
                        step.moved,
                        step.skipped,
                    )
            except BaseException as error:
                if not isinstance(error, errors.PortError) or not one.ends_with(error):
                    if chain.source.is_refused:
                        LOG.info('Image %s: nothing of this run stays.', chain.name)
                        receiver.refuse()
                    raise
                LOG.info('Image %s: ends early: %s', chain.name, error.in_one_line())
                planned.failures.append((None, error))
                chain.steps = [step for step in chain.steps if step.state is not State.TO_DO]


class _Stoppable:
    """Ends what tells how far it is: also reading back, which may take hours."""

    def __init__(self, shown: progress.Progress, stop: threading.Event) -> None:
        self._shown = shown
        self._stop = stop
        self.begin = shown.begin
        self.say = shown.say

    def advance(self, moved: int, skipped: int = 0) -> None:
        """:raises Interrupted: all is to end"""
        if self._stop.is_set():
            raise errors.Interrupted('Stopped.')
        self._shown.advance(moved, skipped)


class _Chain:
    """One chain on its way into its receiver."""

    def __init__(
        self,
        planned: plans.Plan,
        chain: plans.ChainPlan,
        sink: endpoints.Sink,
        receiver: endpoints.Receiver,
        job: job_module.Job,
        stop: threading.Event,
    ) -> None:
        self._planned = planned
        self._chain = chain
        self._sink = sink
        self._receiver = receiver
        self._job = job
        self._stop = stop
        self._seen: read_back.Witness | None = None
        self._extents = 0

    def steps(self) -> Iterator[plans.Step]:
        """Yield the steps that were planned, or those that a source has that reads once."""
        arriving = self._chain.source.arriving()
        if arriving is None:
            yield from self._chain.steps
            return
        known = {step.point.id for step in self._chain.steps}
        for step in arriving:
            if step.point.id not in known:
                self._check_next(step)
            yield self._chain.put(step)

    def _check_next(self, step: plans.Step) -> None:
        try:
            self._sink.check_next(self._planned, step)
        except errors.PortError:
            # Nothing of this chain may come here.
            self._receiver.refuse()
            raise

    def ends_with(self, error: errors.PortError) -> bool:
        """Tell whether the source only ends too early, and something came before that."""
        is_some = any(step.state in (State.DONE, State.PRESENT) for step in self._chain.steps)
        return is_some and self._chain.source.is_end(error)

    def move(self, step: plans.Step, is_shown: bool) -> None:
        """Move one step, unless its point is there."""
        if self._receiver.has(step):
            LOG.info('%s: is there already.', step.point.where)
            step.state = State.PRESENT
            # What was only on the way to it is no part of what follows.
            self._seen = None
            return
        with self._chain.source.read(step, self._job.bounds) as reading:
            increment = reading.increment
            if is_shown:
                self._job.shown.begin(step.point.where, increment.size)
            self._transfer(step, reading)
            reading.finish()
            if self._stop.is_set():
                raise errors.Interrupted('Stopped.')
            self._receiver.commit(step)
            LOG.info('%s: is complete, after %d extents.', step.point.where, self._extents)
            self._verify(step, reading)
        step.state = State.DONE if step.is_wanted else State.PASSED

    def _transfer(self, step: plans.Step, reading: endpoints.Reading) -> None:
        writing = self._receiver.begin(step, reading)
        increment = reading.increment
        LOG.info(
            '%s: from %s to %s, an image of %d bytes%s.',
            step.point.where,
            increment.from_snap or 'nothing',
            increment.to_snap or 'HEAD',
            increment.size,
            f'; goes on at mark {writing.first}' if writing.first else '',
        )
        self._extents = 0
        if self._job.verify and self._seen is None:
            # What has no point of its own is compared together with what follows it.
            self._seen = read_back.Witness(increment.from_snap is None)
        witness = self._seen if self._receiver.needs_witness(reading) else None
        # What an earlier run wrote is compared as well, so it is read again.
        first = 0 if witness else writing.first
        with contextlib.closing(reading.parts(first, writing.in_parts)) as parts:
            before: endpoints.Part | None = None
            for part in parts:
                # Behind the last one no note is worth anything.
                if before is not None and writing.in_parts and before.end > writing.first:
                    writing.note(before.end)
                before = part
                items = self._until_stopped(witness.watch(part.items) if witness else part.items)
                if part.end <= writing.first:
                    collections.deque(items, maxlen=0)
                    continue
                if first < writing.first and reading.seeks:
                    items = _behind(writing.first, items)
                writing.write(items)

    def _verify(self, step: plans.Step, reading: endpoints.Reading) -> None:
        """Compare what was written with what came in.

        :raises InvalidInput: they differ
        """
        seen = self._seen
        if seen is None or not step.is_wanted:
            return
        self._seen = None
        problem = self._receiver.compare(step, reading, seen)
        if problem is not None:
            self._receiver.refuse()
            raise problem
        LOG.info('%s: reads as what came in.', step.point.where)

    def _until_stopped(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        for item in items:
            if self._stop.is_set():
                raise errors.Interrupted('Stopped.')
            self._extents += 1
            yield item


def _behind(offset: int, items: Iterable[model.Item]) -> Iterator[model.Item]:
    """Hand on what lies behind *offset* in the image."""
    for item in items:
        skipped = max(offset - item.offset, 0)
        if skipped >= item.length:
            continue
        if isinstance(item, model.Data):
            yield model.Data(item.offset + skipped, item.data[skipped:])
        else:
            yield model.Zero(item.offset + skipped, item.length - skipped)
