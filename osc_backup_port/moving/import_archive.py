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

"""Backups out of an archive and into a cloud: images first, records last."""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence

from osc_backup_port import errors, model, progress, record
from osc_backup_port.archive import catalog, increments, manifest
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import image_session, read_back, target_pool, volume_metadata
from osc_backup_port.records import import_records
from osc_backup_port.transfer import limits, metering, pacing

IMPORTED = 'imported'
ALREADY_THERE = 'already there'
FAILED = 'failed'
NOT_IMPORTED = 'not imported'

#: Segments written between two notes of how far the work is: a killed run has
#: to move at most these again, 1 GiB mostly.
_PART = 128


@dataclasses.dataclass
class Step:
    """One backup, and what is to be done with it.

    :ivar is_wanted: it becomes a backup of the cloud; else its data is only a
        step on the way to another
    :ivar image_result: a word or two about its image and snapshot
    :ivar metadata: the same about its record
    """

    backup: catalog.Backup
    is_wanted: bool
    image_result: str
    metadata: import_records.Step | None = None
    moved: int = 0
    error: errors.PortError | None = None

    @property
    def is_missing(self) -> bool:
        """Whether the cluster did not have it when this was planned."""
        return self.image_result != ALREADY_THERE

    @property
    def bytes_to_read(self) -> int:
        """What has to be read from the archive for it."""
        return self.backup.increment.stored_size if self.is_missing else 0


@dataclasses.dataclass
class ImagePlan:
    """The backups to import into one image, in the order of the archive."""

    image: catalog.Image
    steps: list[Step]

    @property
    def error(self) -> errors.PortError | None:
        """What stands in the way of one of them stands in the way of all."""
        return next((step.error for step in self.steps if step.error), None)

    def fail(self, error: errors.PortError, result: str) -> None:
        """Keep all of them out, with their records.

        :param result: a word or two about the images that are missing
        """
        for step in self.steps:
            step.error = step.error or error
            if step.is_missing:
                step.image_result = result
            if step.metadata is not None and not step.metadata.error:
                step.metadata.fail(error, 'not imported')


@dataclasses.dataclass
class Plan:
    """All that is to be done.

    :ivar records: the same of the records
    :ivar damage: what the archive has and cannot be read, if that was asked for
    """

    images: list[ImagePlan]
    records: import_records.Plan = dataclasses.field(default_factory=import_records.Plan)
    damage: list[errors.InvalidInput] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        return [step for image in self.images for step in image.steps]

    def findings(self) -> list[errors.PortError]:
        """Return all that stands in the way."""
        failed = [step.error for step in self.steps if step.error]
        return [*self.damage, *failed, *self.records.findings()]


def plan(
    cinder: import_records.Cinder,
    pool: ceph_pool.Pool,
    contents: catalog.Catalog,
    wanted: Sequence[str],
    options: import_records.Options,
) -> Plan:
    """Say what would be done, and change nothing.

    A chain of which a part is damaged, or has something in its way, stays out as a
    whole; its whole backups can be asked for by name.

    :param wanted: names or ids of backups, whose ancestors are added; none: all
    :raises NotFound: the archive has no such backup
    :raises DamagedArchive: a backup that is asked for, or an ancestor, is damaged
    """
    chosen = _choose(contents, wanted)
    images = [_plan_image(pool, image, chosen, options) for image in contents.images]
    planned = Plan([image for image in images if image.steps])
    if not wanted:
        planned.damage = [damage.error for damage in contents.damage()]
    for image in planned.images:
        # What is not finished says nothing against what came before it.
        damage = [one.error for one in image.image.damaged]
        error = image.error or (damage[0] if damage and not wanted else None)
        if error is not None:
            image.fail(error, NOT_IMPORTED)
    _plan_records(cinder, planned, options)
    planned.records.obstacles += target_pool.check_space(pool, _bytes_to_write(pool, planned))
    return planned


def _bytes_to_write(pool: ceph_pool.Pool, planned: Plan) -> dict[str, int]:
    """Return how much data comes, by image; one that a killed run began does not count."""
    return {
        image.image.name: sum(
            segment.raw_size
            for step in image.steps
            if step.is_missing
            for segment in step.backup.increment.segments
        )
        for image in planned.images
        if not image.error
        and any(step.is_missing for step in image.steps)
        and not pool.has_image(ceph_driver.temporary_image(image.image.name))
    }


def _plan_records(
    cinder: import_records.Cinder, planned: Plan, options: import_records.Options
) -> None:
    """Plan the records of the images in whose way nothing stands."""
    steps = {step.backup.id: step for step in planned.steps if step.is_wanted and not step.error}
    records = [
        (step.backup.path, ceph_driver.in_image(step.backup.record, step.backup.image))
        for step in steps.values()
    ]
    planned.records = import_records.plan(cinder, count_dependents(records), options)
    for metadata in planned.records.steps:
        steps[metadata.record.id].metadata = metadata
    for image in planned.images:
        refused = [step.metadata.error for step in image.steps if step.metadata]
        first = next(filter(None, refused), None)
        if first is not None:
            image.fail(first, NOT_IMPORTED)


def _choose(contents: catalog.Catalog, wanted: Sequence[str]) -> dict[str, str]:
    """Return the ids of the backups to import, each with its image.

    A backup that is there twice, in its chain and alone, is taken from its
    chain, unless it alone is asked for.
    """
    chosen: dict[str, str] = {}
    if not wanted:
        for image in sorted(contents.images, key=lambda image: len(image.backups)):
            chosen.update((backup.id, image.name) for backup in image.backups)
        return chosen
    by_id: dict[str, list[catalog.Backup]] = {}
    for backup in contents.backups():
        by_id.setdefault(backup.id, []).append(backup)
    damaged = {damage.backup_id: damage.error for damage in contents.damage()}
    waiting = [contents.find(name) for name in wanted]
    while waiting:
        backup = waiting.pop()
        if backup.id not in chosen:
            chosen[backup.id] = backup.image
            # From the same image, if it is there: else it would lie there twice.
            parent = backup.record.parent_id or ''
            parents = by_id.get(parent, [])
            if not parents and parent in damaged:
                raise damaged[parent]
            waiting += sorted(parents, key=lambda item: item.image != backup.image)[:1]
    return chosen


def _plan_image(
    pool: ceph_pool.Pool,
    image: catalog.Image,
    chosen: dict[str, str],
    options: import_records.Options,
) -> ImagePlan:
    wanted = [backup for backup in image.backups if chosen.get(backup.id) == image.name]
    needed = {way.id for backup in wanted for way in catalog.path_to(image, backup)}
    there = _snapshots_there(pool, image.name)
    steps = []
    for backup in image.backups:
        if backup.id in needed:
            result = ALREADY_THERE if backup.id in there else 'to be imported'
            step = Step(backup, backup in wanted, result)
            step.error = _obstacle(pool, step, options)
            steps.append(step)
    planned = ImagePlan(image, _without_needless(image, steps))
    missing = [step for step in planned.steps if step.is_missing]
    for error in target_pool.check_image(pool, image.name) if missing else ():
        missing[0].error = missing[0].error or error
    return planned


def _obstacle(
    pool: ceph_pool.Pool, step: Step, options: import_records.Options
) -> errors.PortError | None:
    """Return what stands in the way of a backup, besides its record and its image."""
    backup = step.backup
    try:
        if step.is_wanted:
            volume_metadata.check(pool, backup.id, _metadata(step, options))
    except errors.PortError as error:
        return error
    return None


def _without_needless(image: catalog.Image, steps: list[Step]) -> list[Step]:
    """Leave out what is only a step, where all that it leads to is there."""
    missing = [step.backup for step in steps if step.is_wanted and step.is_missing]
    needed = {way.id for backup in missing for way in catalog.path_to(image, backup)}
    return [step for step in steps if step.is_wanted or step.backup.id in needed]


def _snapshots_there(pool: ceph_pool.Pool, name: str) -> set[str | None]:
    try:
        with pool.open(name) as image:
            return {
                ceph_driver.backup_of_snapshot(snapshot.name) for snapshot in image.snapshots()
            }
    except (errors.NotFound, errors.DamagedImage):
        return set()


def count_dependents(
    records: Sequence[tuple[str, record.BackupRecord]],
) -> list[tuple[str, record.BackupRecord]]:
    """Let each record count the children that are imported with it.

    The record was written when its backup was archived, before its children
    were made; and not all that were made may be here.
    """
    parents = collections.Counter(item.parent_id for _file, item in records)
    return [
        (file, item.with_changes(num_dependent_backups=parents[item.id])) for file, item in records
    ]


def run(
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    planned: Plan,
    options: import_records.Options,
    shown: progress.Progress,
    bounds: limits.Limits = limits.SHARED,
    verify: bool = False,
) -> None:
    """Do what was planned; the steps tell what became of each.

    A chain that fails does not stop the others, but its records stay out.

    :param verify: read every backup back, and compare it with what came in
    """
    for image in planned.images:
        if image.error is not None:
            continue
        try:
            _import_image(pool, store, image, shown, bounds, verify)
            for step in image.steps:
                if step.is_wanted:
                    volume_metadata.store(pool, step.backup.id, _metadata(step, options))
        except errors.PortError as error:
            image.fail(error, FAILED)
    import_records.run(planned.records, options)


def _import_image(
    pool: ceph_pool.Pool,
    store: archive_store.Store,
    image: ImagePlan,
    shown: progress.Progress,
    bounds: limits.Limits,
    verify: bool,
) -> None:
    is_missing = any(step.is_missing for step in image.steps if step.is_wanted)
    # A run that was killed behind its last write leaves it, and a note; or one is
    # at work.
    is_locked = pool.read_object(ceph_driver.lock_object(image.image.name)) is not None
    if is_missing or is_locked:
        meter = metering.Meter(shown, pacing.Pace(bounds.rate))
        with image_session.session(
            pool, image.image.name, image.image.layout, meter, bounds
        ) as session:
            check = read_back.ReadBack(bounds, shown) if verify else None
            for step in image.steps:
                before = meter.moved
                _import_increment(session, store, step, shown, check)
                snapshot = step.backup.increment.to_snap
                if check and step.is_wanted:
                    check.compare(session.open_at(pool, snapshot))
                step.moved = meter.moved - before


def _metadata(step: Step, options: import_records.Options) -> bytes | None:
    return options.changes.rewrite_metadata(step.backup.id, step.backup.volume_metadata)


def _import_increment(
    session: image_session.Session,
    store: archive_store.Store,
    step: Step,
    shown: progress.Progress,
    check: read_back.ReadBack | None,
) -> None:
    backup = step.backup
    if session.has(backup.id):
        step.image_result = ALREADY_THERE
        return
    shown.begin(f'Backup {backup.id}', backup.increment.size)
    increment = increments.describe(backup.increment)
    identity = hashlib.sha256(manifest.encode_increment(backup.increment)).hexdigest()
    first = session.resume_at(identity)
    in_parts = first or session.takes_parts(increment)
    write = session.begin(increment, resumed=first > 0)
    parts = increments.read_segments(store, backup, 0 if check else first)

    def items(count: int) -> Iterator[model.Item]:
        some = itertools.islice(parts, count)
        found = increments.items(backup.increment, some, f'{store.name}/{backup.path}')
        return check.watch(increment.from_snap, found) if check else found

    if check:
        # What an earlier run wrote is compared as well, so it is read again.
        collections.deque(items(first), maxlen=0)
    size = _PART if in_parts else len(backup.increment.segments)
    for done in range(first, len(backup.increment.segments), size):
        write(items(size))
        if in_parts:
            session.note_parts(identity, done + size)
    session.commit(increment, step.is_wanted)
    step.image_result = IMPORTED if step.is_wanted else 'passed through'
