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

"""A cloud whose driver is Ceph, as a sink: images in its pool, then the records."""

import collections
import contextlib
import typing

from osc_backup_port import errors, record, spool
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import (
    chain_writer,
    endpoints,
    image_session,
    plan,
    target_pool,
    volume_metadata,
)
from osc_backup_port.moving import job as job_module
from osc_backup_port.moving.plan import State
from osc_backup_port.records import import_records
from osc_backup_port.transfer import metering

#: Chains that are written side by side.
_SIDE_BY_SIDE = 2

#: What to call a record in a message, and the record.
_Named = tuple[str, record.BackupRecord]


class Sink(endpoints.Sink):
    """A pool, and the Block Storage service whose backups lie in it.

    :param cinder: None: no records are imported
    """

    side_by_side = _SIDE_BY_SIDE

    def __init__(
        self,
        pool: ceph_pool.Pool,
        cinder: import_records.Cinder | None,
        options: import_records.Options,
    ) -> None:
        self.place = f'pool {pool.name}'
        self._pool = pool
        self._cinder = cinder
        self._options = options
        self._planner: import_records.Planner | None = None
        # Why nothing may be added to an image that is there.
        self._obstacles: dict[str, errors.PortError] = {}
        # Of each backup what is missing there.
        self._metadata: dict[str, spool.Spooled] = {}

    def look(self, chain: endpoints.SourceChain) -> endpoints.Present:
        try:
            snapshots = self._pool.snapshots(chain.name)
        except errors.DamagedImage as error:
            self._obstacles[chain.name] = error
            return endpoints.Present()
        if snapshots is None:
            return endpoints.Present()
        names = [snapshot.name for snapshot in snapshots]
        found = {ceph_driver.backup_of_snapshot(name) or '': name for name in names}
        found.pop('', None)
        if not found:
            told = self._pool.name, chain.name, self._pool.commands
            self._obstacles[chain.name] = chain_writer.not_a_chain(*told)
        return endpoints.Present(found)

    def check(self, planned: plan.Plan) -> None:
        for chain in planned.chains:
            for step in chain.steps:
                self._check_metadata(planned, chain.source, step)
            if chain.missing and chain.name in self._obstacles:
                planned.add(chain.missing[0], self._obstacles[chain.name])
            if chain.error:
                chain.fail(chain.error, State.LEFT_OUT)

    def check_room(self, planned: plan.Plan) -> None:
        planned.records.obstacles += self._check_space(planned)

    def _check_metadata(
        self, planned: plan.Plan, source: endpoints.SourceChain, step: plan.Step
    ) -> None:
        if step.is_wanted:
            try:
                self._look_at_metadata(source, step)
            except errors.PortError as error:
                planned.add(step, error)

    def _look_at_metadata(self, source: endpoints.SourceChain, step: plan.Step) -> None:
        """:raises PortError: it must not come here, or other metadata is there"""
        content = source.volume_metadata(step.point)
        content = self._options.changes.rewrite_metadata(step.point.id, content)
        is_there = volume_metadata.check(self._pool, step.point.id, content)
        if is_there:
            step.metadata = volume_metadata.Outcome.PRESENT
        elif content is not None:
            self._metadata[step.point.id] = spool.Spooled(content)

    def _check_space(self, planned: plan.Plan) -> list[errors.PortError]:
        """See that there is room; an image that a killed run began does not count."""
        new = [
            chain
            for chain in planned.chains
            if chain.missing
            and (planned.all_or_nothing or not chain.error)
            and not self._pool.has_image(ceph_driver.temporary_image(chain.name))
        ]
        obstacles: list[errors.PortError] = []
        # Only where there may be too little is it worth to ask for every extent.
        for exact in (False, True):
            needed = {
                chain.name: sum(chain.source.bytes_to_write(step, exact) for step in chain.missing)
                for chain in new
            }
            obstacles = target_pool.check_space(self._pool, needed)
            if not obstacles:
                break
        return obstacles

    def plan_records(self, planned: plan.Plan) -> None:
        if self._cinder is None:
            return
        steps = {
            step.point.id: (chain, step)
            for chain in planned.chains
            for step in chain.steps
            if step.is_wanted and step.point.record
            if planned.all_or_nothing or not step.error
        }
        named = [_named(chain.name, step.point) for chain, step in steps.values()]
        before = planned.records
        planned.records = self._plan_counted(self._cinder, count_dependents(named))
        planned.records.obstacles += before.obstacles
        planned.records.notes[:0] = before.notes
        for record_step in planned.records.steps:
            steps[record_step.record.id][1].record_step = record_step
        for chain in planned.chains:
            refused = [step.record_step.error for step in chain.steps if step.record_step]
            first = next(filter(None, refused), None)
            if first is not None:
                chain.fail(first, State.LEFT_OUT)

    def _plan_counted(
        self, cinder: import_records.Cinder, named: list[_Named]
    ) -> import_records.Plan:
        if self._planner is None:
            return import_records.plan(cinder, named, self._options)
        # Each was looked at on its way.
        counts = {item.id: item.num_dependent_backups for _where, item in named}
        return self._planner.whole(counts)

    def check_next(self, planned: plan.Plan, step: plan.Step) -> None:
        [chain] = planned.chains
        if self._cinder is None or step.point.record is None:
            return
        if not chain.steps or self._planner is None:
            self._planner = import_records.Planner(self._cinder, self._options)
        # The quota has to have room for all of the chain.
        found = self._planner.plan([_named(chain.name, step.point)])
        planned.records.notes += found.notes
        for error in found.findings():
            raise error
        self._look_at_metadata(chain.source, step)

    def has_work(self, chain: plan.ChainPlan) -> bool:
        if any(step.is_wanted for step in chain.missing):
            return True
        # A run that was killed behind its last write leaves it, and a note; or one is at work.
        return self._pool.read_object(ceph_driver.lock_object(chain.name)) is not None

    def open(
        self, chain: plan.ChainPlan, job: job_module.Job, meter: metering.Meter
    ) -> contextlib.AbstractContextManager[endpoints.Receiver]:
        return image_session.session(self._pool, chain, job, meter)

    def finish_chain(self, chain: plan.ChainPlan) -> None:
        for step in chain.steps:
            is_known = step.metadata is not None or step.point.record is None
            if step.is_wanted and not is_known:
                content = self._metadata.get(step.point.id)
                told = self._pool, step.point.id, content.read() if content else None
                step.metadata = volume_metadata.store(*told)

    def finish(self, planned: plan.Plan) -> None:
        if self._cinder is not None:
            import_records.run(planned.records, self._options)


def _named(image: str, point: plan.Point) -> _Named:
    item = typing.cast(record.BackupRecord, point.record)
    return point.where, ceph_driver.in_image(item, image)


def count_dependents(records: list[_Named]) -> list[_Named]:
    """Let each record count the children that are imported with it.

    The record was written when its backup was archived, before its children
    were made; and not all that were made may be here.
    """
    parents = collections.Counter(item.parent_id for _where, item in records)
    return [
        (where, item.with_changes(num_dependent_backups=parents[item.id]))
        for where, item in records
    ]
