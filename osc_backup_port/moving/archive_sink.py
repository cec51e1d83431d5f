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

"""An archive as a sink: a folder, an object store, or a tar stream.

Run again, it adds what is new.  Nothing that is written is written again.
"""

import collections.abc
import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import logging
import typing
import uuid

from osc_backup_port import errors, model
from osc_backup_port.archive import catalog, increments, manifest, names, sealed
from osc_backup_port.archive import store as archive_store
from osc_backup_port.formats import record_file
from osc_backup_port.moving import archive_segments, endpoints, plan, read_back
from osc_backup_port.moving import job as job_module
from osc_backup_port.moving.plan import State
from osc_backup_port.transfer import metering

LOG = logging.getLogger(__name__)


class _Archived(typing.NamedTuple):
    """What is to be known of a backup that is there.

    :param start: the point that its increment starts from
    """

    path: str
    start: str | None
    name: str


class _Seen(typing.NamedTuple):
    """What was there of a chain: backups by their ids, and ids that dead runs began."""

    archived: dict[str, _Archived]
    started: frozenset[str]


class Sink(endpoints.Sink):
    """An archive that increments are added to.

    :param level: of zstd; None: not compressed
    """

    # The record of a backup is committed together with its data.
    keeps_done = True

    def __init__(self, store: archive_store.Store, level: int | None = 3) -> None:
        self.place = f'archive {store.name}'
        self._store = store
        self._level = level
        self._is_marked = False
        # Of each chain: to read it once more for the check takes long in a bucket.
        self._seen: dict[str, _Seen] = {}

    def look(self, chain: endpoints.SourceChain) -> endpoints.Present:
        there = _read_image(self._store, chain.name)
        archived = {
            one.id: _Archived(one.path, one.increment.from_snap, one.increment.to_snap)
            for one in (there.backups if there else ())
        }
        self._seen[chain.name] = _Seen(archived, frozenset(_unfinished(there)))
        names_of = {backup_id: one.name for backup_id, one in archived.items()}
        return endpoints.Present(names_of, is_exact=True)

    def check(self, planned: plan.Plan) -> None:
        for chain in planned.chains:
            try:
                self._check_chain(chain, self._seen[chain.name])
            except errors.Conflict as error:
                chain.fail(error, State.FAILED)

    def _check_chain(self, chain: plan.ChainPlan, seen: _Seen) -> None:
        """:raises Conflict: another backup of that id is in the archive"""
        for step in chain.steps:
            there = seen.archived.get(step.point.id)
            if there is not None:
                self._check_same(there, step.point)
                # The pool may not have any more what it starts from.
                step.start = there.start
                chain.has_leftovers |= step.point.id in seen.started

    def _check_same(self, archived: _Archived, point: plan.Point) -> None:
        """:raises Conflict: another backup of that id is in the archive"""
        if point.is_head or archived.name == point.name:
            return
        raise errors.Conflict(
            f'{self._store.name}/{archived.path}: holds snapshot {archived.name} of backup '
            f'{point.id}, the pool has {point.name}.',
            'The backup was imported anew since; put it into another archive.',
        )

    @contextlib.contextmanager
    def open(
        self, chain: plan.ChainPlan, job: job_module.Job, meter: metering.Meter
    ) -> collections.abc.Iterator['_Receiver']:
        if not self._is_marked:
            self._mark()
            self._is_marked = True
        with self._store.lock(chain.name) as check:
            guarded = archive_store.Guarded(self._store, check)
            yield _Receiver(guarded, chain, self._level, job, meter)

    def _mark(self) -> None:
        """Make it an archive, if it is none."""
        try:
            catalog.read_archive(self._store)
        except errors.NotFound:
            mark = manifest.Archive(str(uuid.uuid4()), _now())
            # Another run may do that at the same time.
            with contextlib.suppress(errors.Conflict):
                self._store.create(names.ARCHIVE, manifest.encode_archive(mark))


@dataclasses.dataclass
class _Increment:
    """The folder of one increment that is being written.

    :ivar left: the numbers of its folders that dead runs left, this one perhaps
    """

    step: plan.Step
    number: int
    path: str
    left: collections.abc.Sequence[int]
    lost: bytes | None
    record_sha256: str
    metadata_sha256: str | None
    header: model.Increment
    writer: archive_segments.SegmentWriter


class _Receiver(endpoints.Receiver):
    """Adds increments to one image of an archive, whose lock is held."""

    def __init__(
        self,
        store: archive_store.Store,
        chain: plan.ChainPlan,
        level: int | None,
        job: job_module.Job,
        meter: metering.Meter,
    ) -> None:
        self._store = store
        self._chain = chain
        self._level = level
        self._job = job
        self._meter = meter
        self._current: _Increment | None = None
        # Read once more, now that nobody else can write.
        there = self._read()
        if there is None:
            self._store.create(
                f'{chain.name}/{names.IMAGE}', manifest.encode_image(chain.source.layout())
            )
        backups = there.backups if there else ()
        self._done = {backup.id for backup in backups}
        self._numbers = {one.increment.to_snap: one.increment.number for one in backups}
        self._started = _unfinished(there)
        taken = [*self._numbers.values(), *itertools.chain(*self._started.values())]
        self._next = max(taken, default=-1) + 1

    def _read(self) -> catalog.Image | None:
        name = self._chain.name
        there = _read_image(self._store, name)
        finished = [
            self._store.finish_commit(
                f'{name}/{names.increment(number, backup_id)}/{names.INCREMENT}', backup_id
            )
            for backup_id, numbers in _unfinished(there).items()
            for number in numbers
        ]
        return _read_image(self._store, name) if any(finished) else there

    def has(self, step: plan.Step) -> bool:
        if step.point.id not in self._done:
            return False
        self._remove(step.point.id, self._started.get(step.point.id, []))
        return True

    def begin(self, step: plan.Step, reading: endpoints.Reading) -> archive_segments.SegmentWriter:
        """Write what comes before the data; take up the segments that a dead run has proven."""
        header = dataclasses.replace(reading.increment, to_snap=step.point.name)
        left = self._started.get(step.point.id, [])
        number = self._number_for(step, left)
        path = self._path(step.point.id, number)
        # Until the commit it tells what is lost, and keeps out a run that is only believed dead.
        lost = self._committed(step.point.id)
        # Only of the same increment, read from where the proven part ends.
        goes_on = reading.seeks and bool(reading.identity)
        self._clear(path, keep_data=goes_on)
        if not self._store.keeps_locks:
            self._store.create(f'{path}/{names.WRITER}', uuid.uuid4().hex.encode())
        raw_record = self._raw_record(step)
        metadata = self._chain.source.volume_metadata(step.point)
        self._store.put(f'{path}/{names.RECORD}', raw_record)
        if metadata is not None:
            self._store.put(f'{path}/{names.VOLUME_METADATA}', metadata)
        writer = archive_segments.SegmentWriter(
            self._store, path, header, self._level, self._meter
        )
        if goes_on:
            writer.resume(self._path(step.point.id, left[-1]) if left else path)
        self._current = _Increment(
            step,
            number,
            path,
            left,
            lost,
            hashlib.sha256(raw_record).hexdigest(),
            None if metadata is None else hashlib.sha256(metadata).hexdigest(),
            header,
            writer,
        )
        return writer

    def _number_for(self, step: plan.Step, left: collections.abc.Sequence[int]) -> int:
        """Return the number of the folder to write.

        It may start from what was added after a dead run began it; and where a run is only
        believed to be dead, its folder stays its own.
        """
        mine = left[-1] if left else -1
        start = self._numbers.get(step.start, 0) if step.start else 0
        if not self._store.keeps_locks or mine < start:
            mine, self._next = self._next, self._next + 1
        return mine

    def _raw_record(self, step: plan.Step) -> bytes:
        if step.point.record is None:
            raise errors.InvalidInput(f'{step.point.where}: its record is not known.')
        raw_record = record_file.write_record(step.point.record).encode()
        if len(raw_record) > catalog.MAX_SMALL_FILE:
            raise errors.InvalidInput(
                f'Backup {step.point.id}: its record takes {len(raw_record)} bytes, and an '
                f'archive has room for {catalog.MAX_SMALL_FILE}.'
            )
        return raw_record

    def commit(self, step: plan.Step) -> None:
        """Write increment.json, the last file: from then on the increment counts."""
        current = self._current
        if current is None:
            raise ValueError('nothing was begun')
        info = manifest.Increment(
            step.point.id,
            current.number,
            step.start,
            step.point.name,
            current.header.size,
            current.writer.segments,
            current.record_sha256,
            current.metadata_sha256,
            _now(),
        )
        if current.lost is not None and self._committed(step.point.id) == current.lost:
            self._store.delete(self._commit_place(step.point.id))
        content = manifest.encode_increment(info)
        self._store.commit(f'{current.path}/{names.INCREMENT}', step.point.id, content)
        LOG.info('%s/%s: %d segments.', self._store.name, current.path, len(info.segments))
        step.written = current.writer.written
        archive_segments.forget_proofs(self._store, current.path)
        self._numbers[step.point.name] = current.number
        self._remove(step.point.id, [one for one in current.left if one != current.number])

    def compare(
        self,
        step: plan.Step,
        reading: endpoints.Reading,  # noqa: ARG002 - what went by was remembered
        seen: read_back.Witness,
    ) -> errors.PortError | None:
        if not self._store.takes_any_order:
            return None
        there = _read_image(self._store, self._chain.name)
        backups = there.backups if there else ()
        [backup] = [one for one in backups if one.id == step.point.id]
        where = f'{self._store.name}/{backup.path}'
        items = increments.read(self._store, backup)
        problem = seen.compare_items(where, items, self._job.shown)
        if problem is not None:
            # It does not count any more; the next run writes it anew.
            self._store.delete(f'{backup.path}/{names.INCREMENT}')
            self._store.delete(self._commit_place(step.point.id))
        return problem

    def _committed(self, backup_id: str) -> bytes | None:
        """Return the commit of a backup in an object store; what it commits may be lost."""
        return self._store.get(self._commit_place(backup_id), sealed.MAX_SMALL_SIZE)

    def _commit_place(self, backup_id: str) -> str:
        return f'{self._chain.name}/{names.commit(backup_id)}'

    def _path(self, backup_id: str, number: int) -> str:
        return f'{self._chain.name}/{names.increment(number, backup_id)}'

    def _remove(self, backup_id: str, numbers: collections.abc.Iterable[int]) -> None:
        """Remove what dead runs left of a backup that is committed."""
        for number in numbers:
            path = self._path(backup_id, number)
            for entry in self._store.entries(path):
                if not entry.is_folder:
                    self._store.delete(f'{path}/{entry.name}')

    def _clear(self, path: str, keep_data: bool) -> None:
        """Remove what a dead run left in our folder.

        :param keep_data: it is used as far as it is proven
        """
        for entry in self._store.entries(path):
            if not entry.is_folder and not (keep_data and names.is_data(entry.name)):
                self._store.delete(f'{path}/{entry.name}')


def _read_image(store: archive_store.Store, name: str) -> catalog.Image | None:
    """Return what an archive has of an image.

    :raises DamagedArchive: a part of it
    """
    there = catalog.read_image(store, names.check_image(name))
    if there is not None and there.damaged:
        raise there.damaged[0].error
    return there


def _unfinished(image: catalog.Image | None) -> dict[str, list[int]]:
    """Return the numbers of the folders that dead runs left of each backup, ascending."""
    found: dict[str, list[int]] = {}
    for one in image.unfinished if image else ():
        if parsed := names.parse_increment(one.folder):
            found.setdefault(parsed[1], []).append(parsed[0])
    return {backup_id: sorted(numbers) for backup_id, numbers in found.items()}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
