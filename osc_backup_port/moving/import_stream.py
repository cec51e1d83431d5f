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

"""Backups out of the tar stream of an archive and into a cloud.

What the stream says of an increment comes after its data.  The data is written
where nobody looks for it, and counts from the moment at which all that was read
has proved to be what was written.
"""

import itertools
from collections.abc import Iterator

from osc_backup_port import errors, progress, record
from osc_backup_port.archive import catalog, increments, names, sealed, segments, tar_stream
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import image_session, import_archive, read_back, volume_metadata
from osc_backup_port.records import import_records
from osc_backup_port.transfer import limits, metering, pacing


def run(
    cinder: import_records.Cinder,
    pool: ceph_pool.Pool,
    source: tar_stream.Input,
    options: import_records.Options,
    shown: progress.Progress,
    bounds: limits.Limits = limits.SHARED,
    verify: bool = False,
) -> Iterator[import_archive.Step | errors.PortError]:
    """Import all backups of a stream; yield what became of each, and every error.

    A chain that is damaged, or in whose way something stands, does not stop the
    others.  Of one that was cut short, what is complete is imported.

    :param verify: read every backup back, and compare it with what came in
    :raises ForgedArchive: the stream is not to be trusted from here on
    :raises NotPermitted: the caller may not import records
    """
    source.read_archive()
    receiver = _Receiver(cinder, pool, options, shown, bounds)
    receiver.verify = verify
    groups = itertools.groupby(source.increments(), key=lambda increment: increment.image)
    for name, group in groups:
        yield from receiver.receive(name, group)


class _Receiver:
    """Writes the images of a stream, one after the other."""

    def __init__(
        self,
        cinder: import_records.Cinder,
        pool: ceph_pool.Pool,
        options: import_records.Options,
        shown: progress.Progress,
        bounds: limits.Limits,
    ) -> None:
        self._cinder = cinder
        self._pool = pool
        self._options = options
        self._shown = shown
        self._bounds = bounds
        self._meter = metering.Meter(shown, pacing.Pace(bounds.rate))
        self._steps: list[import_archive.Step] = []
        self._planner = import_records.Planner(cinder, options)
        self._told: set[str] = set()
        self.verify = False

    def receive(
        self, name: str, group: Iterator[tar_stream.IncrementStream]
    ) -> list[import_archive.Step | errors.PortError]:
        """Import the increments of one image and their records."""
        self._steps = []
        self._planner = import_records.Planner(self._cinder, self._options)
        found: list[errors.PortError] = []
        try:
            cut = self._receive_image(name, group)
            found += [cut] if cut else []
            self._import_records()
        except (errors.ForgedArchive, errors.NotPermitted):
            raise
        except errors.PortError as error:
            found.append(error)
            for step in self._steps:
                step.error = error
                if step.is_missing:
                    step.image_result = import_archive.FAILED
        found += [
            step.metadata.error for step in self._steps if step.metadata and step.metadata.error
        ]
        return [*self._steps, *found]

    def _receive_image(
        self, name: str, group: Iterator[tar_stream.IncrementStream]
    ) -> errors.InvalidInput | None:
        """Write the increments of one image; return why the stream ends behind them."""
        first = next(group)
        cut = None
        with image_session.session(
            self._pool, name, first.layout(), self._meter, self._bounds
        ) as session:
            try:
                for increment in itertools.chain([first], group):
                    self._steps.append(self._receive(session, increment))
            except tar_stream.AT_THE_END as error:
                if not self._steps:
                    raise
                cut = error
        for step in self._steps:
            content = self._options.changes.rewrite_metadata(
                step.backup.id, step.backup.volume_metadata
            )
            volume_metadata.store(self._pool, step.backup.id, content)
        return cut

    def _import_records(self) -> None:
        """Import the records of the image that was received last."""
        records = [
            (step.backup.path, ceph_driver.in_image(step.backup.record, step.backup.image))
            for step in self._steps
        ]
        counted = import_archive.count_dependents(records)
        planned = import_records.plan(self._cinder, counted, self._options)
        self._tell(planned)
        by_id = {step.backup.id: step for step in self._steps}
        for metadata in import_records.run(planned, self._options):
            by_id[metadata.record.id].metadata = metadata

    def _tell(self, planned: import_records.Plan) -> None:
        """Print the notes that were not printed yet.

        :raises PortError: something stands in the way of all
        """
        for note in planned.notes:
            if note not in self._told:
                self._told.add(note)
                self._shown.say(note)
        if planned.obstacles:
            raise planned.obstacles[0]

    def _receive(
        self, session: image_session.Session, increment: tar_stream.IncrementStream
    ) -> import_archive.Step:
        before = self._meter.moved
        parts = increment.segments()
        # The small files come before the first segment.
        first = next(parts, None)
        try:
            item = self._check_record(increment)
        except errors.PortError:
            session.is_refused = True
            raise
        if session.has(increment.backup_id):
            increment.use_up()
            return import_archive.Step(increment.finish(), True, import_archive.ALREADY_THERE)
        arriving = increments.Arriving(increment.where)
        pairs = itertools.chain([first] if first else [], parts)
        described = segments.describe_all(pairs, increment.where)
        head = arriving.begin(described)
        catalog.check_record(increment.where, increment.image, head.size, item)
        if ceph_driver.backup_of_snapshot(head.to_snap) != item.id:
            raise sealed.damaged(increment.where, f'leads to {head.to_snap!r}')
        self._shown.begin(f'Backup {increment.backup_id}', head.size)
        check = read_back.ReadBack(self._bounds, self._shown)
        items = arriving.items()
        watched = check.watch(head.from_snap, items) if self.verify else items
        session.begin(head, resumed=False)(watched)
        backup = increment.finish(arriving.check)
        session.commit(head, is_wanted=True)
        if head.to_snap is not None:
            check.compare(session.open_at(self._pool, head.to_snap))
        step = import_archive.Step(backup, True, import_archive.IMPORTED)
        step.moved = self._meter.moved - before
        return step

    def _check_record(self, increment: tar_stream.IncrementStream) -> record.BackupRecord:
        """See that nothing stands in the way of the record, before its data."""
        raw = increment.small_file(names.RECORD)
        item = catalog.read_record(increment.where, increment.backup_id, raw)
        named = ceph_driver.in_image(item, increment.image)
        # The quota has to have room for all of the chain.
        planned = self._planner.plan([(increment.where, named)])
        self._tell(planned)
        for error in planned.findings():
            raise error
        content = self._options.changes.rewrite_metadata(
            increment.backup_id, increment.small_file(names.VOLUME_METADATA)
        )
        volume_metadata.check(self._pool, increment.backup_id, content)
        return item
