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

"""What is to be moved, step by step, and what became of it: one plan for all verbs."""

import collections.abc
import dataclasses
import enum
import typing

from osc_backup_port import errors
from osc_backup_port import record as record_module
from osc_backup_port.moving import volume_metadata
from osc_backup_port.records import import_records

if typing.TYPE_CHECKING:
    from osc_backup_port.moving import endpoints

#: Of a backup where it is known, and what stands in its way or went wrong.
Finding = tuple[str | None, errors.PortError]


class State(enum.Enum):
    """What is to be done with one point, and what became of it."""

    TO_DO = enum.auto()
    #: It was there before.
    PRESENT = enum.auto()
    DONE = enum.auto()
    #: It was only a step on the way to another point, which is done.
    PASSED = enum.auto()
    FAILED = enum.auto()
    #: Something stands in its way, so nothing was tried.
    LEFT_OUT = enum.auto()


@dataclasses.dataclass(frozen=True)
class Point:
    """One backup in its chain, as a source has it.

    :ivar id: of the backup; empty for what is only on the way to one
    :ivar name: what the point is called: its snapshot; empty: it has none
    :ivar size: bytes of the image at this point
    :ivar record: as the sink is to have it, where the source knows it: it names the image, and
        counts what goes along
    :ivar where: what to call it in a message
    :ivar is_head: the source has no snapshot of it; the image holds nothing else
    """

    id: str
    name: str
    size: int
    record: record_module.BackupRecord | None = None
    where: str = ''
    is_head: bool = False


@dataclasses.dataclass
class Step:
    """One increment, and what is to be done with it.

    :ivar start: the name of the point that it starts from; None: from nothing
    :ivar is_wanted: its point becomes a backup; else it is only on the way to another
    :ivar estimate: bytes to read at most; of a dry run only
    :ivar moved: bytes of data that went by
    :ivar skipped: bytes of holes, of zeros and of what was there already
    :ivar written: bytes that it takes at the sink, where that is another number
    :ivar record_step: the same of its record, where records are imported
    :ivar metadata: what became of its volume metadata
    """

    point: Point
    start: str | None
    is_wanted: bool = True
    state: State = State.TO_DO
    estimate: int = 0
    moved: int = 0
    skipped: int = 0
    written: int = 0
    record_step: import_records.Step | None = None
    metadata: volume_metadata.Outcome | None = None
    error: errors.PortError | None = None

    @property
    def is_missing(self) -> bool:
        """Whether the sink did not have it when it was looked at."""
        return self.state is not State.PRESENT

    @property
    def is_done(self) -> bool:
        """Whether all of it is there: the data, and the record where records are imported."""
        is_there = self.state in (State.PRESENT, State.DONE) and self.error is None
        return is_there and self.record_step is not None and self.record_step.is_done

    def fail(self, error: errors.PortError, state: State) -> None:
        """Let it fail, unless it did before; its record stays out."""
        self.error = self.error or error
        if self.is_missing:
            self.state = state
        if self.record_step is not None and not self.record_step.error:
            self.record_step.fail(error, 'not imported')


@dataclasses.dataclass
class ChainPlan:
    """The steps of one chain, in the order in which they are taken.

    :ivar has_leftovers: a run that was killed left something behind at the sink
    """

    source: 'endpoints.SourceChain'
    steps: list[Step]
    has_leftovers: bool = False

    @property
    def name(self) -> str:
        """What the image is called at the sink."""
        return self.source.name

    @property
    def error(self) -> errors.PortError | None:
        """What stands in the way of one step stands in the way of all."""
        return next((step.error for step in self.steps if step.error), None)

    @property
    def missing(self) -> list[Step]:
        return [step for step in self.steps if step.is_missing]

    def put(self, step: Step) -> Step:
        """Take in a step that was met while reading, in the place of the one that was planned."""
        for number, known in enumerate(self.steps):
            if step.point.id and known.point.id == step.point.id:
                step.metadata = known.metadata
                self.steps[number] = step
                return step
        self.steps.append(step)
        return step

    def fail(
        self, error: errors.PortError, state: State, spare: collections.abc.Container[State] = ()
    ) -> None:
        """Let all steps fail but those in one of the states to *spare*."""
        for step in self.steps:
            if step.state not in spare:
                step.fail(error, state)


@dataclasses.dataclass
class Plan:
    """All that is to be moved.

    :ivar failures: what the source cannot give
    :ivar records: what is to be done with the records, where records are imported
    :ivar side_by_side: how many chains may be moved at the same time
    :ivar all_or_nothing: what stands in the way of one stands in the way of all
    """

    chains: list[ChainPlan] = dataclasses.field(default_factory=list)
    failures: list[Finding] = dataclasses.field(default_factory=list)
    records: import_records.Plan = dataclasses.field(default_factory=import_records.Plan)
    side_by_side: int = 1
    all_or_nothing: bool = False

    @property
    def steps(self) -> list[Step]:
        return [step for chain in self.chains for step in chain.steps]

    @property
    def is_blocked(self) -> bool:
        """Whether something stands in the way of all."""
        return bool(self.records.obstacles or (self.all_or_nothing and self.findings()))

    def add(self, step: Step, error: errors.PortError) -> None:
        """Take in one more thing that stands in the way of a step."""
        if step.error is None:
            step.error = error
        else:
            self.failures.append((step.point.id, error))

    def findings(self) -> list[Finding]:
        """Return all that stands in the way, or went wrong."""
        failed = [(step.point.id, step.error) for step in self.steps if step.error]
        return [*self.failures, *failed, *((None, one) for one in self.records.findings())]

    def errors(self) -> list[errors.PortError]:
        """Return the same without the ids, each once."""
        return list({id(error): error for _id, error in self.findings()}.values())
