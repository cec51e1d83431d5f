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

"""Endpoints that live in memory: a full source and a full sink, and one that fails on its way.

A peer of the real ones: the suite over all pairs (tests/unit/test_copy.py) runs over them too.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator

from osc_backup_port import errors, model, record
from osc_backup_port.moving import endpoints, job, plan, read_back
from osc_backup_port.transfer import limits, metering
from tests.fakes import ceph

#: What a point holds, without what is zero: bytes by the number of their block.
Blocks = dict[int, bytes]
#: Bytes of the image in one part.
PART = 1 << 20


@dataclasses.dataclass
class Backup:
    """One point, and what belongs to it."""

    record: record.BackupRecord
    name: str
    size: int
    content: Blocks
    volume_metadata: bytes | None = None


class Source(endpoints.Source):
    """The points of one image, the oldest first; each is whole by itself."""

    place = 'memory'

    def __init__(self, image: str, backups: list[Backup]) -> None:
        self.failures: list[plan.Finding] = []
        self._chain = Chain(image, backups)

    def chains(self) -> list['Chain']:
        return [self._chain]


class Chain(endpoints.SourceChain):
    def __init__(self, image: str, backups: list[Backup]) -> None:
        self.name = image
        self._backups = backups

    def layout(self) -> model.ImageLayout:
        return model.ImageLayout(self._backups[-1].size, features=61)

    def steps(self, present: endpoints.Present) -> list[plan.Step]:
        steps, start = [], None
        for one in self._backups:
            is_there = present.has_point(one.record.id, one.name)
            state = plan.State.PRESENT if is_there else plan.State.TO_DO
            where = f'Backup {one.record.id}'
            point = plan.Point(one.record.id, one.name, one.size, one.record, where)
            steps.append(plan.Step(point, start, state=state))
            start = one.name
        return steps

    @contextlib.contextmanager
    def read(self, step: plan.Step, bounds: limits.Limits) -> Iterator['_Reading']:
        by_name = {one.name: one for one in self._backups}
        start = by_name[step.start].content if step.start else {}
        yield _Reading(step, start, by_name[step.point.name].content)

    def volume_metadata(self, point: plan.Point) -> bytes | None:
        return next(one.volume_metadata for one in self._backups if one.name == point.name)


class _Reading(endpoints.Reading):
    """The difference of two points; a mark is an offset."""

    seeks = True

    def __init__(self, step: plan.Step, start: Blocks, end: Blocks) -> None:
        point = step.point
        self.increment = model.Increment(step.start, point.name, point.size, iter(()))
        self.identity = f'{step.start} to {point.name}'
        self._items = [
            _item(block, end)
            for block in sorted({*start, *end})
            if start.get(block) != end.get(block)
        ]

    def parts(self, first: int, cut: bool) -> Generator[endpoints.Part, None, None]:
        rest = [item for item in self._items if item.offset >= first]
        if not cut:
            yield endpoints.Part(iter(rest), self.increment.size)
            return
        for number in sorted({item.offset // PART for item in rest}):
            some = [item for item in rest if item.offset // PART == number]
            yield endpoints.Part(iter(some), (number + 1) * PART)


def _item(block: int, content: Blocks) -> model.Item:
    at = block * ceph.BLOCK
    return model.Data(at, content[block]) if block in content else model.Zero(at, ceph.BLOCK)


class Sink(endpoints.Sink):
    """Keeps points; what a run that was killed wrote is taken up by the next.

    :ivar points: of each image, by their names
    :ivar records: and the volume metadata, by the id of the backup
    """

    place = 'memory'

    def __init__(self) -> None:
        self.points: dict[str, dict[str, Blocks]] = {}
        self.records: dict[str, tuple[record.BackupRecord | None, bytes | None]] = {}
        self.ids: dict[str, dict[str, str]] = {}
        self.notes: dict[str, tuple[str, int, Blocks]] = {}

    def look(self, chain: endpoints.SourceChain) -> endpoints.Present:
        return endpoints.Present(dict(self.ids.get(chain.name, {})))

    @contextlib.contextmanager
    def open(
        self, chain: plan.ChainPlan, job: job.Job, meter: metering.Meter
    ) -> Iterator['_Receiver']:
        before = dict(self.points.get(chain.name, {})), dict(self.ids.get(chain.name, {}))
        receiver = _Receiver(self, chain, meter)
        try:
            yield receiver
        except BaseException:
            if receiver.is_refused:
                self.points[chain.name], self.ids[chain.name] = before
                self.notes.pop(chain.name, None)
            raise

    def finish_chain(self, chain: plan.ChainPlan) -> None:
        for step in chain.steps:
            metadata = chain.source.volume_metadata(step.point) if step.point.record else None
            self.records.setdefault(step.point.id, (step.point.record, metadata))


class _Receiver(endpoints.Receiver):
    def __init__(self, sink: Sink, chain: plan.ChainPlan, meter: metering.Meter) -> None:
        self.is_refused = False
        self.notes = sink.notes
        self.image = chain.name
        self._points = sink.points.setdefault(chain.name, {})
        self._ids = sink.ids.setdefault(chain.name, {})
        self._meter = meter
        self._writing: _Writing | None = None

    def has(self, step: plan.Step) -> bool:
        return step.point.id in self._ids

    def begin(self, step: plan.Step, reading: endpoints.Reading) -> '_Writing':
        start = reading.increment.from_snap
        if start is not None and start not in self._points:
            self.refuse()
            raise errors.InvalidInput(f'There is no point {start}.')
        content = self._points[start] if start else {}
        identity, mark, written = self.notes.get(self.image, ('', 0, {}))
        if reading.identity and identity == reading.identity:
            self._writing = _Writing(self, reading, written, mark, self._meter)
        else:
            self._writing = _Writing(self, reading, content, 0, self._meter)
        return self._writing

    def commit(self, step: plan.Step) -> None:
        assert self._writing is not None
        if step.point.name:
            self._points[step.point.name] = self._writing.dump()
        if step.is_wanted:
            self._ids[step.point.id] = step.point.name
        self.notes.pop(self.image, None)

    def compare(
        self, step: plan.Step, reading: endpoints.Reading, seen: read_back.Witness
    ) -> errors.PortError | None:
        return None

    def refuse(self) -> None:
        self.is_refused = True


class _Writing(endpoints.Writing):
    in_parts = True

    def __init__(
        self,
        receiver: _Receiver,
        reading: endpoints.Reading,
        content: Blocks,
        first: int,
        meter: metering.Meter,
    ) -> None:
        self.first = first
        self._receiver = receiver
        self._reading = reading
        self._track = metering.Track(meter, reading.increment.size)
        self._canvas = ceph.Content(4 << 20)
        for block, data in content.items():
            self._canvas.write(block * ceph.BLOCK, data)

    def write(self, items: Iterable[model.Item]) -> None:
        for item in self._track.watch(items):
            if isinstance(item, model.Data):
                self._canvas.write(item.offset, item.data)
            else:
                self._canvas.zero(item.offset, item.length)

    def dump(self) -> Blocks:
        self._canvas.truncate(self._reading.increment.size)
        return self._canvas.dump()

    def note(self, end: int) -> None:
        if self._reading.identity:
            noted = self._reading.identity, end, self.dump()
            self._receiver.notes[self._receiver.image] = noted


class Faulty:
    """Lets something happen at one of the steps of a move: each item, and each call of a sink.

    :param number: which
    :param fault: what is done there; returns to go on, or raises
    :ivar seen: how many there were
    """

    def __init__(self, number: int, fault: Callable[[], None]) -> None:
        self._number = number
        self._fault = fault
        self.seen = 0

    def step(self) -> None:
        self.seen += 1
        if self.seen == self._number:
            self._fault()

    def items(self, items: Iterable[model.Item]) -> Iterator[model.Item]:
        for item in items:
            self.step()
            yield item


class FaultySink(endpoints.Sink):
    """Another sink, in front of which a fault happens."""

    def __init__(self, sink: endpoints.Sink, fault: Faulty) -> None:
        self._sink = sink
        self._fault = fault
        self.place = sink.place
        self.side_by_side = 1
        self.keeps_done = sink.keeps_done

    def look(self, chain: endpoints.SourceChain) -> endpoints.Present:
        self._fault.step()
        return self._sink.look(chain)

    def check(self, planned: plan.Plan) -> None:
        self._sink.check(planned)

    def plan_records(self, planned: plan.Plan) -> None:
        self._sink.plan_records(planned)

    def check_room(self, planned: plan.Plan) -> None:
        self._sink.check_room(planned)

    def check_next(self, planned: plan.Plan, step: plan.Step) -> None:
        self._fault.step()
        self._sink.check_next(planned, step)

    def has_work(self, chain: plan.ChainPlan) -> bool:
        return self._sink.has_work(chain)

    @contextlib.contextmanager
    def open(
        self, chain: plan.ChainPlan, job: job.Job, meter: metering.Meter
    ) -> Iterator['_FaultyReceiver']:
        with self._sink.open(chain, job, meter) as receiver:
            self._fault.step()
            yield _FaultyReceiver(receiver, self._fault)

    def finish_chain(self, chain: plan.ChainPlan) -> None:
        self._fault.step()
        self._sink.finish_chain(chain)

    def finish(self, planned: plan.Plan) -> None:
        self._sink.finish(planned)


class _FaultyReceiver(endpoints.Receiver):
    def __init__(self, receiver: endpoints.Receiver, fault: Faulty) -> None:
        self._receiver = receiver
        self._fault = fault

    def has(self, step: plan.Step) -> bool:
        self._fault.step()
        return self._receiver.has(step)

    def begin(self, step: plan.Step, reading: endpoints.Reading) -> '_FaultyWriting':
        self._fault.step()
        return _FaultyWriting(self._receiver.begin(step, reading), self._fault)

    def commit(self, step: plan.Step) -> None:
        self._fault.step()
        self._receiver.commit(step)
        self._fault.step()

    def compare(
        self, step: plan.Step, reading: endpoints.Reading, seen: read_back.Witness
    ) -> errors.PortError | None:
        return self._receiver.compare(step, reading, seen)

    def refuse(self) -> None:
        self._receiver.refuse()


class _FaultyWriting(endpoints.Writing):
    def __init__(self, writing: endpoints.Writing, fault: Faulty) -> None:
        self._writing = writing
        self._fault = fault
        self.first = writing.first
        self.in_parts = writing.in_parts

    def write(self, items: Iterable[model.Item]) -> None:
        self._writing.write(self._fault.items(items))

    def note(self, end: int) -> None:
        self._writing.note(end)
        self._fault.step()
