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

"""Where increments come from and where they go to: what each has to be able to do.

A new place where backups lie is one more :class:`Source`, one more :class:`Sink`, or both.
``moving/copy.py`` drives them, and asks for what they can do, never for what they are.
"""

import abc
import collections.abc
import contextlib
import dataclasses
import typing

from osc_backup_port import errors, model
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.moving import job, plan, read_back
from osc_backup_port.transfer import limits, metering


@dataclasses.dataclass(frozen=True)
class Present:
    """What a sink has of a chain.

    :ivar names: of the points, by the id of the backup
    :ivar is_exact: a point has to have the same name at the source to be the same point
    """

    names: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_exact: bool = False

    def has_point(self, backup_id: str | None, name: str) -> bool:
        """Tell whether an increment can start from that point."""
        known = self.names.get(backup_id or '')
        return known is not None and (known == name or not self.is_exact)


class Part(typing.NamedTuple):
    """Some items of an increment.

    :param end: the mark behind them: a number that grows along the increment; the source knows
        what it means
    """

    items: collections.abc.Iterator[model.Item]
    end: int


class Reading(abc.ABC):
    """One increment that is being read.

    :ivar increment: where it starts and leads to; without items
    :ivar identity: tells it from every other one; empty: nobody can go on with it later.  An
        archive asks only whether there is one: so only where an increment of these names and
        this size always has the same items
    :ivar seeks: a mark is an offset in the image, and reading can begin at any; else only at
        one that :meth:`parts` gave
    :ivar is_ordered: its items ascend; else they come in any order, each place once
    :ivar image: opened at the point that the increment leads to, where the source has images
    """

    increment: model.Increment
    identity: str = ''
    seeks: bool = False
    is_ordered: bool = True
    image: ceph_image.Image | None = None

    @abc.abstractmethod
    def parts(self, first: int, cut: bool) -> collections.abc.Generator[Part, None, None]:
        """Yield the items from a mark on; each part has to be used up before the next.

        :param cut: in parts of a size that is worth a note; else all in one
        :raises PortError: the source cannot be read, or holds what it should not
        """

    def finish(self) -> None:
        """See that all that went by is what was written.

        :raises InvalidInput: it is not
        """


class SourceChain(abc.ABC):
    """The points of one image, as a source has them.

    :ivar name: what the image is to be called at the sink
    :ivar unknown: snapshots of backups that Cinder does not know any more
    :ivar identity: what a dead run left is used only if it came from a source of this identity
    :ivar is_refused: what came in is not what it should be, and nothing of the chain may stay
    """

    name: str
    unknown: collections.abc.Sequence[str] = ()
    identity: str = ''
    is_refused: bool = False

    @abc.abstractmethod
    def layout(self) -> model.ImageLayout:
        """Return how the image is laid out in objects."""

    @abc.abstractmethod
    def steps(self, present: Present) -> list[plan.Step]:
        """Return the increments that lead to what is wanted, as far as they are known before."""

    def arriving(self) -> collections.abc.Iterator[plan.Step] | None:
        """Return the steps as they are met, from a source that reads once; None from others.

        Each has to be read, or passed over, before the next is taken.
        """
        return None

    def is_proven_late(self) -> bool:
        """Tell whether any of it is known to be right only when all was read."""
        return False

    @abc.abstractmethod
    def read(
        self, step: plan.Step, bounds: limits.Limits
    ) -> contextlib.AbstractContextManager[Reading]:
        """Open an increment."""

    @abc.abstractmethod
    def volume_metadata(self, point: plan.Point) -> bytes | None:
        """Return the volume metadata of a backup, None where there is none."""

    def bytes_to_read(self, step: plan.Step) -> int:
        """Return how much would be read for a step, at most."""
        del step
        return 0

    def bytes_to_write(self, step: plan.Step, exact: bool) -> int:
        """Return how much data comes with a step, at most.

        :param exact: as close as can be known, if that takes some time
        """
        del exact
        return self.bytes_to_read(step)

    def is_end(self, error: errors.PortError) -> bool:
        """Tell whether the source only ends too early, and what came before is whole."""
        del error
        return False


class Source(abc.ABC):
    """Where increments come from.

    What it reads from is opened before, and closed after, by who makes it.

    :ivar place: what the log calls it
    :ivar side_by_side: how many chains may be read at the same time
    :ivar failures: what it cannot give, as far as it was looked at
    """

    place: str
    side_by_side: int = 1
    failures: list[plan.Finding]

    @abc.abstractmethod
    def chains(self) -> collections.abc.Iterable[SourceChain]:
        """Return the chains of what is wanted; what one of them lacks does not stop the others.

        :raises ForgedArchive: nothing of it is to be trusted
        """


class Writing(abc.ABC):
    """One increment that is being written.

    :ivar first: the mark from which on the source has to be read
    :ivar in_parts: it may come in parts, and :meth:`note` is to be told of each
    """

    first: int = 0
    in_parts: bool = False

    @abc.abstractmethod
    def write(self, items: collections.abc.Iterable[model.Item]) -> None:
        """Write some items; the next ones follow them."""

    def note(self, end: int) -> None:
        """Leave word, for a run after a crash, that all is written up to a mark."""


class Receiver(abc.ABC):
    """One chain that is being written; nobody else writes to it.

    When its block ends because of an error, what is complete stays for the next run; all that
    was done is undone where something was refused.
    """

    @abc.abstractmethod
    def has(self, step: plan.Step) -> bool:
        """Tell whether the point is there."""

    @abc.abstractmethod
    def begin(self, step: plan.Step, reading: Reading) -> Writing:
        """Get ready for an increment."""

    @abc.abstractmethod
    def commit(self, step: plan.Step) -> None:
        """Make what was written count."""

    def needs_witness(self, reading: Reading) -> bool:
        """Tell whether :meth:`compare` asks what went by, which takes memory for each piece."""
        del reading
        return True

    @abc.abstractmethod
    def compare(
        self, step: plan.Step, reading: Reading, seen: read_back.Witness
    ) -> errors.PortError | None:
        """Read back what was committed; return in what it differs from what came in."""

    def refuse(self) -> None:
        """Take back all that this run did to the chain when the block ends.

        Not what is committed already, where the sink ``keeps_done``.
        """


class Sink(abc.ABC):
    """Where increments go to.

    :ivar place: what the log calls it
    :ivar side_by_side: how many chains may be written at the same time
    :ivar keeps_done: a point that is done stays done, whatever becomes of the rest of its chain
    """

    place: str
    side_by_side: int = 1
    keeps_done: bool = False

    @abc.abstractmethod
    def look(self, chain: SourceChain) -> Present:
        """Return which backups of a chain are there.

        :raises DamagedArchive: it cannot be told
        """

    def check(self, planned: plan.Plan) -> None:
        """Add to a plan all that stands in the way of its data."""

    def plan_records(self, planned: plan.Plan) -> None:
        """Plan the records of all in whose way nothing stands, where records are imported."""

    def check_room(self, planned: plan.Plan) -> None:
        """See that there is room for all that is known by now to come; what stays out needs none.

        What stands in the way is an obstacle to all.
        """

    def check_next(self, planned: plan.Plan, step: plan.Step) -> None:
        """See that nothing stands in the way of a step, before its data is read.

        For a source that reads once.

        :param planned: what is known of the chain by now, without the step
        :raises PortError: something does
        """

    def has_work(self, chain: plan.ChainPlan) -> bool:
        """Tell whether there is something to do."""
        return chain.has_leftovers or bool(chain.missing)

    @abc.abstractmethod
    def open(
        self, chain: plan.ChainPlan, job: job.Job, meter: metering.Meter
    ) -> contextlib.AbstractContextManager[Receiver]:
        """Begin to write a chain.

        :raises Conflict: somebody else writes to it
        """

    def finish_chain(self, chain: plan.ChainPlan) -> None:
        """Do what comes behind the data of a chain: the volume metadata."""

    def finish(self, planned: plan.Plan) -> None:
        """Do what comes last: the records."""
