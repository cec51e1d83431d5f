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

import dataclasses
import itertools
from collections.abc import Iterator

from osc_backup_port import errors, model, progress
from osc_backup_port.archive import catalog, manifest, names, sealed, segments, tar_stream
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.formats import rbd_diff, record_file, stream
from osc_backup_port.operations import (
    image_session,
    import_archive,
    import_metadata,
    volume_metadata,
)
from osc_backup_port.transfer import limits, metering


def run(
    cinder: import_metadata.Cinder,
    pool: ceph_pool.Pool,
    source: tar_stream.Input,
    options: import_metadata.Options,
    shown: progress.Progress,
    bounds: limits.Limits = limits.DEFAULT,
) -> Iterator[import_archive.Step]:
    """Import all backups of a stream; yield what became of each.

    A stream that was cut short: what is complete is imported first.

    :raises InvalidInput: the stream is damaged
    :raises PortError: something stands in the way of a backup
    """
    source.read_archive()
    receiver = _Receiver(cinder, pool, options, shown, bounds)
    groups = itertools.groupby(source.increments(), key=lambda increment: increment.image)
    for name, group in groups:
        cut = receiver.receive_image(name, group)
        yield from receiver.import_records()
        if cut is not None:
            raise cut


class _Receiver:
    """Writes the images of a stream, one after the other."""

    def __init__(
        self,
        cinder: import_metadata.Cinder,
        pool: ceph_pool.Pool,
        options: import_metadata.Options,
        shown: progress.Progress,
        bounds: limits.Limits,
    ) -> None:
        self._cinder = cinder
        self._pool = pool
        self._options = options
        self._shown = shown
        self._bounds = bounds
        self._meter = metering.Meter(shown)
        self._steps: list[import_archive.Step] = []

    def receive_image(
        self, name: str, group: Iterator[tar_stream.IncrementStream]
    ) -> errors.TruncatedStream | None:
        """Write the increments of one image; return where the stream was cut."""
        self._steps = []
        first = next(group)
        cut = None
        with image_session.session(
            self._pool, name, first.layout, self._meter, self._bounds
        ) as session:
            try:
                for increment in itertools.chain([first], group):
                    self._steps.append(self._receive(session, increment))
            except errors.TruncatedStream as error:
                if not self._steps:
                    raise
                cut = error
        for step in self._steps:
            volume_metadata.store(self._pool, step.backup.id, step.backup.volume_metadata)
        return cut

    def import_records(self) -> list[import_archive.Step]:
        """Import the records of the image that was received last."""
        records = import_archive.count_dependents(
            [(step.backup.path, step.backup.record) for step in self._steps]
        )
        generations = import_metadata.plan(self._cinder, records, self._options)
        by_id = {step.backup.id: step for step in self._steps}
        for metadata in import_metadata.run(self._cinder, generations, self._options):
            by_id[metadata.record.id].metadata = metadata
        return self._steps

    def _receive(
        self, session: image_session.Session, increment: tar_stream.IncrementStream
    ) -> import_archive.Step:
        before = self._meter.moved
        if session.has(increment.backup_id):
            increment.use_up()
            return import_archive.Step(increment.finish(), True, import_archive.ALREADY_THERE)
        arriving = increment.segments()
        # The small files come before the first segment.
        first = next(arriving, None)
        self._check_record(increment)
        reading = _Reading(increment.where)
        pairs = itertools.chain([first] if first else [], arriving)
        described = segments.describe_all(pairs, increment.where)
        head = reading.begin(described)
        self._shown.begin(f'Backup {increment.backup_id}', head.size)
        session.begin(head, resumed=False)(reading.items())
        backup = increment.finish()
        reading.check(backup)
        session.commit(head, is_wanted=True)
        step = import_archive.Step(backup, True, import_archive.IMPORTED)
        step.moved = self._meter.moved - before
        return step

    def _check_record(self, increment: tar_stream.IncrementStream) -> None:
        """See that nothing stands in the way of the record, before its data."""
        where = f'{increment.where}/{names.RECORD}'
        raw = increment.small_file(names.RECORD)
        if raw is None:
            raise sealed.damaged(where, 'is missing')
        records = [(where, item) for item in record_file.read_records(raw, where)]
        for step in itertools.chain.from_iterable(
            import_metadata.plan(self._cinder, records, self._options)
        ):
            if step.error is not None:
                raise step.error
        volume_metadata.check(
            self._pool, increment.backup_id, increment.small_file(names.VOLUME_METADATA)
        )


@dataclasses.dataclass
class _Reading:
    """The segments of one increment as they go by, and what was seen of them."""

    where: str
    seen: list[manifest.Segment] = dataclasses.field(default_factory=list)
    is_whole: bool = False

    def begin(self, described: Iterator[tuple[manifest.Segment, bytes]]) -> model.Increment:
        """Read the header, which is in the first segment."""
        self._described = described
        first = next(described, None)
        if first is None:
            raise sealed.damaged(self.where, 'has no segments')
        self.seen.append(first[0])
        self._reader = self._reader_of(*first)
        self._head = rbd_diff.read_header(self._reader)
        return self._head

    def items(self) -> Iterator[model.Item]:
        yield from self._part(self._reader)
        for segment, raw in self._described:
            if self.is_whole:
                raise sealed.damaged(self.where, 'has more segments behind the last one')
            self.seen.append(segment)
            yield from self._part(self._reader_of(segment, raw))

    def check(self, backup: catalog.Backup) -> None:
        """See that what went by is what was written.

        :raises InvalidInput: it is not
        """
        increment = backup.increment
        expected = (increment.from_snap, increment.to_snap, increment.size)
        found = (self._head.from_snap, self._head.to_snap, self._head.size)
        if not self.is_whole or tuple(self.seen) != increment.segments or found != expected:
            raise sealed.damaged(self.where, 'its segments are not those that were written')

    def _part(self, reader: stream.Reader) -> Iterator[model.Item]:
        part = rbd_diff.Part(reader, self._head.size)
        yield from part
        self.is_whole = part.is_last

    def _reader_of(self, segment: manifest.Segment, raw: bytes) -> stream.Reader:
        return stream.Reader(
            segments.Chunks(iter([raw])), f'{self.where}/{segment.name}', checksum=False
        )
