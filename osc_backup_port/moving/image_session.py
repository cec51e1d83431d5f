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

"""An image while increments are added to it.

One that is new is written under a temporary name and renamed when the session
ends well.  What a killed run left behind is taken up where it stopped: every
snapshot counts, and a note on the new image tells up to which mark the next increment is in
its HEAD.  An image that is there is Cinder's too, so an increment
that was begun on it begins anew.
"""

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator

from osc_backup_port import documents, errors, model
from osc_backup_port.ceph import compare_images, lease
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import chain_writer, endpoints, plan, read_back
from osc_backup_port.moving import job as job_module
from osc_backup_port.transfer import metering

LOG = logging.getLogger(__name__)

_NOTE = 'progress'

Write = Callable[[Iterable[model.Item]], None]


class _Writing(endpoints.Writing):
    """One increment on its way into the image.

    :param note: leaves word of how far it is, for a run after a crash
    """

    def __init__(self, write: Write, first: int, in_parts: bool, note: Callable[[int], None]):
        self._write = write
        self.first = first
        self.in_parts = in_parts
        self._note = note

    def write(self, items: Iterable[model.Item]) -> None:
        self._write(items)

    def note(self, end: int) -> None:
        self._note(end)


class Session(endpoints.Receiver):
    """Made by :func:`session`.

    :param is_ours: nobody else knows the image, so that its HEAD stays as a killed run left it
    :param noted: how far a killed run was
    """

    def __init__(
        self,
        pool: ceph_pool.Pool,
        image: ceph_image.Image,
        lock: lease.Lease,
        writer: chain_writer.ChainWriter,
        job: job_module.Job,
        is_ours: bool,
        noted: str | None,
        source: endpoints.SourceChain,
    ) -> None:
        self._pool = pool
        self._image = image
        self._is_ours = is_ours
        self._source = source
        self._lock = lock
        self._writer = writer
        self._job = job
        self._noted = noted
        self.is_refused = False

    def has(self, step: plan.Step) -> bool:
        return self._writer.snapshot_of(step.point.id) is not None

    def begin(self, step: plan.Step, reading: endpoints.Reading) -> _Writing:  # noqa: ARG002 - the reading tells it all
        """Get ready for an increment.

        :raises InvalidInput: it starts where this image never was
        """
        increment, identity = reading.increment, reading.identity
        first = self._resume_at(identity)
        in_parts = bool(first) or self._writer.takes_parts(increment)
        if first:
            LOG.info('Image %s: goes on behind mark %d.', self._image.name, first)
            write = self._writer.resume(increment)
        else:
            if not self._writer.knows(increment.from_snap):
                self.refuse()
            # What a note tells of HEAD, of another increment even, ends here.
            self._note(self._claim())
            write = self._writer.begin(increment)
        keeps_notes = in_parts and self._is_ours and bool(identity)
        return _Writing(
            write,
            first,
            in_parts,
            functools.partial(self._note_parts, identity) if keeps_notes else lambda _end: None,
        )

    def _resume_at(self, identity: str) -> int:
        """Return the mark up to which an increment is in HEAD already.

        An image that Cinder looks for begins the increment anew: Cinder, or an operator, may
        have changed its HEAD since the note was left.

        :param identity: tells the increment from every other one
        """
        try:
            note = documents.read_json(self._noted or 'null')
            if note['increment'] == identity and note['last'] == self._writer.last:
                return int(note['mark'])
        except (ValueError, TypeError, KeyError):
            pass
        return 0

    def _note_parts(self, identity: str, mark: int) -> None:
        point = {'increment': identity, 'mark': mark, 'last': self._writer.last}
        self._note(json.dumps({'source': self._source.identity, **point}))

    def commit(self, step: plan.Step) -> None:
        point = step.point.name or None
        claim = self._claim()
        self._note(claim or self._noted)
        self._writer.commit(point if step.is_wanted else None, point)
        self._note(claim)

    def _claim(self) -> str | None:
        """Return a note that keeps other runs from taking what is not proven yet for a point."""
        if self._is_ours and self._source.is_proven_late():
            return json.dumps({'source': self._source.identity})
        return None

    def needs_witness(self, reading: endpoints.Reading) -> bool:
        # Two images are read side by side.
        return reading.image is None

    def compare(
        self, step: plan.Step, reading: endpoints.Reading, seen: read_back.Witness
    ) -> errors.PortError | None:
        bounds, shown = self._job.bounds, self._job.shown
        with self._pool.open(self._image.name, step.point.name) as image:
            if reading.image is not None:
                # It also sees what librbd left out of the changes that it told.
                return compare_images.compare(reading.image, image, bounds, shown)
            return seen.compare(image, bounds, shown)

    def refuse(self) -> None:
        self.is_refused = True

    def finish(self) -> None:
        self._note(None)
        self._writer.finish()

    def leave(self) -> None:
        """End after an error: take back what is wrong, keep what is complete."""
        if self.is_refused or (self._source.is_proven_late() and not self._is_ours):
            LOG.info('Image %s: what this run did is undone.', self._image.name)
            self._note(None)
            self._writer.undo()
        else:
            self._writer.look_again()
            self.finish()

    def _note(self, text: str | None) -> None:
        if text == self._noted:
            return
        self._lock.check()
        self._image.set_note(_NOTE, text)
        self._noted = text


@contextlib.contextmanager
def session(
    pool: ceph_pool.Pool,
    chain: plan.ChainPlan,
    job: job_module.Job,
    meter: metering.Meter,
) -> Iterator[Session]:
    """Open the image of a chain to add to it, or make it.

    When the block fails because something is refused, all that was done is undone.  When it
    fails otherwise, what is complete stays for the next run.

    :raises Conflict: another run, or another client, writes to it
    """
    with pool.lock(chain.name) as lock:
        make = _there if pool.has_image(chain.name) else _new
        with make(pool, chain, lock, job, meter) as opened:
            yield opened


@contextlib.contextmanager
def _there(
    pool: ceph_pool.Pool,
    chain: plan.ChainPlan,
    lock: lease.Lease,
    job: job_module.Job,
    meter: metering.Meter,
) -> Iterator[Session]:
    name = chain.name
    with pool.open(name, writable=True) as image:
        snapshots = chain_writer.check_may_add(pool.name, image)
        writer = chain_writer.ChainWriter(image, name, lock, snapshots, meter, job.bounds)
        opened = Session(pool, image, lock, writer, job, False, None, chain.source)
        left = f'Image {name} may not be as its newest backup; the next run mends it.'
        # Cinder must never meet a HEAD that is not its newest backup.
        with chain_writer.undone_on_error(lock, left, opened.leave):
            yield opened
        opened.finish()


@contextlib.contextmanager
def _new(
    pool: ceph_pool.Pool,
    chain: plan.ChainPlan,
    lock: lease.Lease,
    job: job_module.Job,
    meter: metering.Meter,
) -> Iterator[Session]:
    name = chain.name
    part = ceph_driver.temporary_image(name)
    left_behind = pool.snapshots(part)
    fresh = left_behind is None or not _is_usable(pool, part, left_behind, chain.source)
    if fresh:
        if left_behind is not None:
            pool.remove(part)
        pool.create(part, chain_writer.new_layout(chain.source.layout()))
    opened: Session | None = None

    def undo() -> None:
        is_new = opened is None and fresh
        is_refused = opened is not None and opened.is_refused
        kept = pool.snapshots(part) or []
        if is_new or is_refused or not _is_usable(pool, part, kept, chain.source):
            LOG.info('Image %s: is removed.', part)
            pool.remove(part)

    left = f'Image {part} may be left in pool {pool.name}; the next run takes it up.'
    with chain_writer.undone_on_error(lock, left, undo):
        with pool.open(part, writable=True) as image:
            snapshots = None
            if not fresh:
                LOG.info('Image %s: what an earlier run left is taken up.', part)
                chain_writer.wait_until_alone(image)
                snapshots = image.snapshots()
            writer = chain_writer.ChainWriter(image, name, lock, snapshots, meter, job.bounds)
            noted = None if fresh else image.note(_NOTE)
            opened = Session(pool, image, lock, writer, job, True, noted, chain.source)
            yield opened
            opened.finish()
        lock.check()
        pool.rename(part, name)


def _is_usable(
    pool: ceph_pool.Pool,
    part: str,
    snapshots: list[model.Snapshot],
    source: endpoints.SourceChain,
) -> bool:
    """Tell whether what is there was left by a run that was killed, and moved the same."""
    note = pool.note(part, _NOTE)
    if note is None:
        return not source.identity and bool(snapshots)
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return bool(documents.read_json(note).get('source', '') == source.identity)
    return False
