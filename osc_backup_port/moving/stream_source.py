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

"""The tar stream of an archive, as a source: once, in its order.

What the stream says of an increment comes after its data.  The data counts from the moment
at which all that was read has proved to be what was written.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Iterator

from osc_backup_port import errors, model
from osc_backup_port.archive import catalog, increments, names, sealed, segments, tar_stream
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import endpoints, plan
from osc_backup_port.transfer import limits


class Source(endpoints.Source):
    """All backups of a stream."""

    def __init__(self, source: tar_stream.Input) -> None:
        self.place = f'archive stream {source.name}'
        self._source = source
        self.failures: list[plan.Finding] = []

    def chains(self) -> Iterator['Chain']:
        """Yield the chains; each has to be used up before the next is taken.

        :raises ForgedArchive: the stream is not to be trusted from here on
        :raises InvalidInput: it is no archive, or cannot be read on
        """
        self._source.read_archive()
        groups = itertools.groupby(self._source.increments(), lambda one: one.image)
        for name, group in groups:
            yield Chain(name, group)


class Chain(endpoints.SourceChain):
    """The increments of one image, as they go by."""

    def __init__(self, name: str, group: Iterator[tar_stream.IncrementStream]) -> None:
        self.name = name
        self._first = next(group)
        self._group = itertools.chain([self._first], group)
        self._reading: _Reading | None = None
        self._backups: dict[str, catalog.Backup] = {}

    def layout(self) -> model.ImageLayout:
        """:raises DamagedArchive: it is not as it was written"""
        return self._first.layout()

    def steps(self, present: endpoints.Present) -> list[plan.Step]:  # noqa: ARG002 - nothing is known
        return []

    def arriving(self) -> Iterator[plan.Step]:
        """Yield a step for each increment, before its data was read.

        :raises DamagedArchive: an increment is not what was written
        """
        with self._refusing():
            for increment in self._group:
                reading = _Reading(increment)
                step = plan.Step(reading.point, None)
                self._reading = reading
                yield step
                # What it says of itself is known from here on, and all of it proven.
                self._backups[step.point.id] = reading.backup

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """See that nothing of the chain stays if a part of it is not what was written."""
        try:
            yield
        except errors.InvalidInput:
            self.is_refused = True
            raise

    @contextlib.contextmanager
    def read(self, step: plan.Step, bounds: limits.Limits) -> Iterator['_Reading']:  # noqa: ARG002 - segments have bounds of their own
        reading = self._reading
        if reading is None:
            raise ValueError('nothing goes by')
        with self._refusing():
            head = reading.begin()
            step.start = head.from_snap
            step.point = dataclasses.replace(step.point, name=head.to_snap or '', size=head.size)
            yield reading

    def volume_metadata(self, point: plan.Point) -> bytes | None:
        if point.id in self._backups:
            return self._backups[point.id].volume_metadata
        reading = self._reading
        return reading.stream.small_file(names.VOLUME_METADATA) if reading else None

    def is_end(self, error: errors.PortError) -> bool:
        return isinstance(error, tar_stream.AT_THE_END)


class _Reading(endpoints.Reading):
    """One increment that goes by; nobody can go on with it later."""

    def __init__(self, stream: tar_stream.IncrementStream) -> None:
        """Read what comes before the data: the record, and the volume metadata.

        :raises DamagedArchive: it is not the record of that backup
        """
        self.stream = stream
        self.increment = model.Increment(None, None, 0, iter(()))
        parts = stream.segments()
        first = next(parts, None)
        self._segments = itertools.chain([first] if first else [], parts)
        content = stream.small_file(names.RECORD)
        self._record = catalog.read_record(stream.where, stream.backup_id, content)
        self._arriving = increments.Arriving(stream.where)
        self._backup: catalog.Backup | None = None

    @property
    def point(self) -> plan.Point:
        """The point that it leads to, as far as that is known before the data."""
        item = self._record
        return plan.Point(item.id, '', 0, item, f'Backup {item.id}')

    def begin(self) -> model.Increment:
        """Read the header, which is in the first segment."""
        stream, item = self.stream, self._record
        described = segments.describe_all(self._segments, stream.where)
        head = self._arriving.begin(described)
        catalog.check_record(stream.where, stream.image, head.size, item)
        if ceph_driver.backup_of_snapshot(head.to_snap) != item.id:
            raise sealed.damaged(stream.where, f'leads to {head.to_snap!r}')
        self.increment = head
        return head

    def parts(self, first: int, cut: bool) -> Generator[endpoints.Part, None, None]:  # noqa: ARG002 - it goes by once
        yield endpoints.Part(self._arriving.items(), 1)

    def finish(self) -> None:
        self._backup = self.stream.finish(self._arriving.check)

    @property
    def backup(self) -> catalog.Backup:
        """What the increment says of itself; what was not read of it is passed over."""
        if self._backup is None:
            self.stream.use_up()
            self._backup = self.stream.finish()
        return self._backup
