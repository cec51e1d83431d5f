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

"""An image while increments from an archive are added to it.

One that is new is written under a temporary name and renamed when the session
ends well.  What a killed run left behind is taken up where it stopped: every
snapshot counts, and a note on the new image tells how many segments of the next
increment are in its HEAD.  An image that is there is Cinder's too, so an increment
that was begun on it begins anew.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator

from osc_backup_port import documents, errors, model
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import lease
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import chain_writer
from osc_backup_port.transfer import limits, metering

_NOTE = 'progress'

Write = Callable[[Iterable[model.Item]], None]


class Session:
    """Made by :func:`session`.

    :param is_ours: nobody else knows the image, so that its HEAD stays as a killed run left it
    :ivar is_refused: set it before an error: nothing of this image may come here
    """

    def __init__(
        self,
        image: ceph_image.Image,
        lock: lease.Lease,
        writer: chain_writer.ChainWriter,
        is_ours: bool,
    ) -> None:
        self._image = image
        self._is_ours = is_ours
        self._lock = lock
        self._writer = writer
        self.is_refused = False

    def has(self, backup_id: str) -> bool:
        """Tell whether the backup has its snapshot."""
        return self._writer.snapshot_of(backup_id) is not None

    def resume_at(self, identity: str) -> int:
        """Return how many parts of an increment are in HEAD already.

        An image that Cinder looks for begins the increment anew: Cinder, or an operator, may
        have changed its HEAD since the note was left.

        :param identity: tells the increment from every other one
        """
        if not self._is_ours:
            return 0
        try:
            note = documents.read_json(self._image.note(_NOTE) or 'null')
            if note['increment'] == identity and note['snapshots'] == self._snapshots():
                return int(note['parts'])
        except (ValueError, TypeError, KeyError):
            pass
        return 0

    def takes_parts(self, increment: model.Increment) -> bool:
        """Tell whether the increment may be written in several parts."""
        return self._writer.takes_parts(increment)

    def begin(self, increment: model.Increment, resumed: bool) -> Write:
        """Return what writes the items of an increment."""
        if resumed:
            return self._writer.resume(increment)
        self._note(None)
        return self._writer.begin(increment)

    def note_parts(self, identity: str, parts: int) -> None:
        """Leave a note that so many parts are written, for a run after a crash."""
        if not self._is_ours:
            return
        note = {'increment': identity, 'parts': parts, 'snapshots': self._snapshots()}
        self._note(json.dumps(note))

    def commit(self, increment: model.Increment, is_wanted: bool) -> None:
        """Make HEAD the point in time that the increment leads to.

        :param is_wanted: make it a snapshot; else it is a step to the next one
        """
        self._writer.commit(increment.to_snap if is_wanted else None, increment.to_snap)
        self._note(None)

    def open_at(
        self, pool: ceph_pool.Pool, snapshot: str
    ) -> contextlib.AbstractContextManager[ceph_image.Image]:
        """Open the image at one of its snapshots, to read it back."""
        return pool.open(self._image.name, snapshot)

    def finish(self) -> None:
        self._note(None)
        self._writer.finish()

    def leave(self, error: BaseException) -> None:
        """End after an error: take back what is wrong, keep what is complete."""
        if isinstance(error, errors.InvalidInput) or self.is_refused:
            self._note(None)
            self._writer.undo()
        else:
            self.finish()

    def _note(self, text: str | None) -> None:
        self._lock.check()
        self._image.set_note(_NOTE, text)

    def _snapshots(self) -> int:
        return max((snapshot.id for snapshot in self._image.snapshots()), default=0)


@contextlib.contextmanager
def session(
    pool: ceph_pool.Pool,
    name: str,
    layout: model.ImageLayout,
    meter: metering.Meter,
    bounds: limits.Limits,
) -> Iterator[Session]:
    """Open an image to add to it, or make it.

    When the block fails because what comes in is wrong, or is refused, all that was
    done is undone.  When it fails otherwise, what is complete stays for the next run.

    :raises Conflict: another run, or another client, writes to it
    """
    with pool.lock(name) as lock:
        if pool.has_image(name):
            with _there(pool, name, lock, meter, bounds) as opened:
                yield opened
        else:
            with _new(pool, name, layout, lock, meter, bounds) as opened:
                yield opened


@contextlib.contextmanager
def _there(
    pool: ceph_pool.Pool,
    name: str,
    lock: lease.Lease,
    meter: metering.Meter,
    bounds: limits.Limits,
) -> Iterator[Session]:
    with pool.open(name, writable=True) as image:
        chain_writer.check_may_add(pool.name, image)
        writer = chain_writer.ChainWriter(image, name, lock, False, meter, bounds)
        opened = Session(image, lock, writer, is_ours=False)
        left = f'Image {name} may not be as its newest backup; the next run mends it.'
        # Cinder must never meet a HEAD that is not its newest backup.
        with chain_writer.undone_on_error(lock, left, opened.leave):
            yield opened
        opened.finish()


@contextlib.contextmanager
def _new(
    pool: ceph_pool.Pool,
    name: str,
    layout: model.ImageLayout,
    lock: lease.Lease,
    meter: metering.Meter,
    bounds: limits.Limits,
) -> Iterator[Session]:
    part = ceph_driver.temporary_image(name)
    fresh = not _is_usable(pool, part)
    if fresh:
        pool.remove(part)
        pool.create(part, chain_writer.new_layout(layout))
    opened: Session | None = None

    def undo(error: BaseException) -> None:
        if isinstance(error, errors.InvalidInput) or (opened and opened.is_refused):
            pool.remove(part)

    left = f'Image {part} may be left in pool {pool.name}; the next run takes it up.'
    with chain_writer.undone_on_error(lock, left, undo):
        with pool.open(part, writable=True) as image:
            if not fresh:
                chain_writer.wait_until_alone(image)
            writer = chain_writer.ChainWriter(image, name, lock, fresh, meter, bounds)
            opened = Session(image, lock, writer, is_ours=True)
            yield opened
            opened.finish()
        lock.check()
        pool.rename(part, name)


def _is_usable(pool: ceph_pool.Pool, part: str) -> bool:
    with contextlib.suppress(errors.NotFound), pool.open(part) as image:
        return bool(image.note(_NOTE)) or bool(image.snapshots())
    return False
