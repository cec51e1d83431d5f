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

"""Import backup records: look first, parents first, wait for each."""

import collections.abc
import contextlib
import dataclasses
import graphlib
import logging
import time
import typing

from osc_backup_port import errors, record, record_rules
from osc_backup_port.ceph import commands
from osc_backup_port.cinder import resources
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.records import (
    import_one,
    placement,
    preflight,
    rewriting,
    side_by_side,
    target_state,
)

LOG = logging.getLogger(__name__)

#: Imports under way at once. cinder-backup works on all that it is asked for, each with a
#: connection to the database; where these run out the backup stays ``creating`` for good.
_UNDER_WAY = 32


class Cinder(import_one.Cinder, preflight.Cinder, placement.Service, typing.Protocol):
    """What this operation needs of the Block Storage service."""

    def export_record(self, backup_id: str) -> record.BackupRecord: ...

    def delete(self, backup_id: str, timeout: float) -> None: ...


@dataclasses.dataclass(frozen=True)
class Options:
    """How to import.

    :ivar wait: until each is ``available`` or failed
    :ivar timeout: seconds to wait for one
    :ivar replace_failed: remove what an import that failed left behind
    :ivar changes: what the records say otherwise then
    :ivar owner: whose they are then
    :ivar shell: commands of the Ceph cluster that they are in
    :ivar allow_foreign_image: import those too that name an image of another volume
    """

    wait: bool = True
    timeout: float = 300
    replace_failed: bool = False
    changes: rewriting.Rewriting = dataclasses.field(default_factory=rewriting.Rewriting)
    owner: placement.Placement = dataclasses.field(default_factory=placement.Placement)
    allow_foreign_image: bool = False
    shell: commands.Commands = dataclasses.field(default_factory=commands.Commands)


_ALREADY_THERE = 'already there'
#: What became of a record, by what was to be done with it.
_DONE = {'import': 'imported', 'replace': 'replaced', 'wait': _ALREADY_THERE}


@dataclasses.dataclass
class Step:
    """One record, what is to be done with it, and what became of it.

    :ivar cinder: the service, with a token of the project that it goes to
    :ivar is_placed: there is such a project, and a way into it
    :ivar action: ``import``, ``wait`` (another run imports it), ``replace``, or
        ``nothing``
    :ivar result: a word or two for the table
    """

    record: record.BackupRecord
    file: str
    cinder: Cinder
    action: str = 'import'
    result: str = 'to be imported'
    error: errors.PortError | None = None
    is_placed: bool = True

    @property
    def is_done(self) -> bool:
        return self.result in _DONE.values()

    def fail(self, error: errors.PortError, result: str = 'failed') -> None:
        self.action, self.result = 'nothing', result
        self.error = self.cinder.cloud.named(error)
        why = self.error.in_one_line().removeprefix(f'Backup {self.record.id}: ')
        LOG.info('Backup %s: %s: %s', self.record.id, result, why)


@dataclasses.dataclass
class Plan:
    """What is to be done with all records.

    :ivar generations: steps of one of them depend on none of the same, only on
        earlier ones
    :ivar obstacles: what stands in the way of all
    :ivar notes: what stands in the way of nothing, and is to be told
    """

    generations: list[list[Step]] = dataclasses.field(default_factory=list)
    obstacles: list[errors.PortError] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> list[Step]:
        return [step for steps in self.generations for step in steps]

    def findings(self) -> list[errors.PortError]:
        """Return all that stands in the way, or went wrong."""
        return self.obstacles + [step.error for step in self.steps if step.error]


def plan(
    cinder: Cinder,
    records: collections.abc.Sequence[tuple[str, record.BackupRecord]],
    options: Options,
) -> Plan:
    """Say what would be done with each record, and change nothing.

    :param records: with the name of the file that each is from
    :raises errors.InvalidRecord: backups are each other's parents
    """
    return Planner(cinder, options).plan(records)


class Planner:
    """Plans the import of records, of which some are known only later.

    What was planned before counts: for the quota, and as parents.
    """

    def __init__(self, cinder: Cinder, options: Options) -> None:
        self._cinder = cinder
        self._options = options
        self._places = placement.Places(cinder, options.owner)
        self._before: list[Step] = []

    def plan(self, records: collections.abc.Sequence[tuple[str, record.BackupRecord]]) -> Plan:
        """Do :func:`plan` with some more records."""
        steps = [Step(item, file, self._cinder) for file, item in records]
        self._before += steps
        _refuse_circles(steps, {step.record.id: step.record for step in self._before})
        obstacles = [] if self._options.allow_foreign_image else self._foreign_images(steps)
        obstacles += _rewrite(steps, self._options)
        obstacles += _place(steps, self._places)
        obstacles += _check_volumes([item for _file, item in records], self._options)
        for step, there in zip(
            steps,
            side_by_side.each(lambda step: import_one.look(self._cinder, step.record.id), steps),
            strict=True,
        ):
            if isinstance(there, errors.PortError):
                step.fail(there)
            elif there is not None:
                _judge(step, there, self._options)
        done = [step for step in steps if step.is_done]
        side_by_side.each(lambda step: _compare_image(step, self._options), done)
        obstacles += _check_characters(steps, self._options)
        found = preflight.check(_needs(self._before))
        for step in steps:
            LOG.info(
                'Record of backup %s, from %s: %s. Parent %s, container %s, base image %s.',
                step.record.id,
                step.file,
                step.result,
                step.record.parent_id,
                step.record.container,
                step.record.base_image,
            )
        notes = [
            *_notes(steps, self._options),
            *_missing_parents(self._cinder, steps, self._before),
            *found.notes,
        ]
        return Plan(_generations(steps), obstacles + found.obstacles, notes)

    def whole(self, dependents: collections.abc.Mapping[str, int]) -> Plan:
        """Return the plan of what was planned bit by bit, without asking once more.

        :param dependents: how many backups build on each that is to be imported after all
        """
        steps = [step for step in self._before if step.record.id in dependents]
        for step in steps:
            count = dependents[step.record.id]
            step.record = step.record.with_changes(num_dependent_backups=count)
        return Plan(_generations(steps))

    def _foreign_images(self, steps: collections.abc.Iterable[Step]) -> list[errors.PortError]:
        """Return why some of them must not come here: they lead Cinder to foreign data."""
        known = {step.record.id: step.record for step in self._before}
        obstacles: list[errors.PortError] = []
        for step in steps:
            item = step.record
            try:
                ceph_driver.refuse_foreign_image(item, item.base_image)
                if item.is_ceph and not item.base_image and item.parent_id:
                    self._refuse_foreign_parent(item, known.get(item.parent_id))
            except errors.PortError as error:
                obstacles.append(error)
        return obstacles

    def _refuse_foreign_parent(
        self, item: record.BackupRecord, parent: record.BackupRecord | None
    ) -> None:
        """See that the parent, whose image Cinder takes, is of the same volume."""
        volume_id = parent.volume_id if parent else None
        if parent is None and (there := import_one.look(self._cinder, item.parent_id or '')):
            volume_id = there.volume_id
        if volume_id not in (None, item.volume_id, self._options.changes.volume_id):
            ceph_driver.refuse_foreign_image(item, f'volume-{volume_id}.backup.*')


def _refuse_circles(
    steps: collections.abc.Iterable[Step],
    known: collections.abc.Mapping[str, record.BackupRecord],
) -> None:
    """See that no backup descends from itself.

    :param known: all that is planned, by its id
    """
    safe: set[str] = set()
    for step in steps:
        way: dict[str, None] = {step.record.id: None}
        parent = step.record.parent_id
        while parent and parent in known and parent not in way and parent not in safe:
            way[parent] = None
            parent = known[parent].parent_id
        if parent and parent in way:
            raise errors.InvalidRecord(
                f"These backups are each other's parents: {', '.join(way)}.",
                'Export their records anew.',
            )
        safe.update(way)


def _rewrite(steps: collections.abc.Iterable[Step], options: Options) -> list[errors.PortError]:
    obstacles: list[errors.PortError] = []
    for step in steps:
        try:
            rewritten = options.changes.rewrite(step.record)
            _tell_changes(step.record.id, step.record.fields, rewritten.fields)
            step.record = rewritten
        except errors.InvalidInput as error:
            obstacles.append(error)
    return obstacles


def _tell_changes(
    backup_id: str,
    old: collections.abc.Mapping[str, typing.Any],
    new: collections.abc.Mapping[str, typing.Any],
) -> None:
    for name, value in new.items():
        if value != old.get(name):
            LOG.debug(
                'Backup %s: %s in its record changes from %s to %s.',
                backup_id,
                name,
                old.get(name),
                value,
            )


def _place(
    steps: collections.abc.Iterable[Step], places: 'placement.Places[Cinder]'
) -> list[errors.PortError]:
    """Give each step the service that it needs; return why some have none."""
    obstacles: dict[str, errors.PortError] = {}
    for step in steps:
        try:
            step.cinder = places.service_for(step.record)
        except errors.PortError as error:
            obstacles[str(error)] = error
            step.is_placed = False
    return list(obstacles.values())


def _check_volumes(
    items: collections.abc.Iterable[record.BackupRecord], options: Options
) -> list[errors.PortError]:
    volumes = sorted({item.volume_id for item in items})
    if options.changes.volume_id is None or len(volumes) == 1:
        return []
    return [
        errors.InvalidInput(
            f'These are backups of {len(volumes)} volumes, {", ".join(volumes)}; expected those '
            f'of one, to become backups of volume {options.changes.volume_id}.',
            'Import the backups of each volume by themselves: name them.',
        )
    ]


def _check_characters(
    steps: collections.abc.Iterable[Step], options: Options
) -> list[errors.PortError]:
    """Refuse what would leave a backup ``creating`` for good, where the database is as usual."""
    if options.changes.wide_characters == rewriting.KEEP:
        return []
    found = {
        step.record.id: list(record_rules.unstorable(step.record.fields))
        for step in steps
        if step.action in ('import', 'replace')
    }
    bad = [backup_id for backup_id, what in found.items() if what]
    if not bad:
        return []
    fields = ', '.join(f'{name} ({character})' for name, character in found[bad[0]][:5])
    more = f' The same kind in {len(bad) - 1} more: {", ".join(bad[1:10])}.' if bad[1:] else ''
    return [
        errors.InvalidInput(
            f'Backup {bad[0]}: {fields}: has a character that the database of Cinder cannot hold '
            f'where it is a MariaDB or MySQL with the usual character set utf8mb3: all above '
            f'U+FFFF, emoji for one; or NUL. The backup would stay creating for good.{more}',
            'To import with ? for each of them: --wide-characters replace. If the database of '
            'that cloud does hold them (utf8mb4, PostgreSQL): --wide-characters keep. A '
            '--name-prefix counts too; a pool is given another name with --ceph-pool.',
        )
    ]


def _needs(steps: collections.abc.Iterable[Step]) -> collections.abc.Iterable[preflight.Need]:
    needs: dict[int, preflight.Need] = {}
    for step in steps:
        if step.is_placed and step.action in ('import', 'replace'):
            need = needs.setdefault(id(step.cinder), preflight.Need(step.cinder, [], []))
            (need.new if step.action == 'import' else need.others).append(step.record)
    return needs.values()


def run(planned: Plan, options: Options) -> list[Step]:
    """Do what was planned and return the steps, in order.

    :raises errors.SomeFailed: something stands in the way of all
    :raises errors.NotPermitted: the caller may not import records
    """
    if planned.obstacles:
        LOG.info('No record is imported: %d obstacles.', len(planned.obstacles))
        raise errors.SomeFailed('Nothing was imported:', planned.obstacles)
    failed: set[str] = set()
    for steps in planned.generations:
        for step in steps:
            if step.action != 'nothing' and step.record.parent_id in failed:
                step.fail(
                    errors.Conflict(f'Backup {step.record.id}: its parent was not imported.'),
                    'not imported',
                )
        for start in range(0, len(steps), _UNDER_WAY):
            some = steps[start : start + _UNDER_WAY]
            # Without waiting too, the next are asked for when these are done.
            is_last = start + _UNDER_WAY >= len(steps)
            _run_some(some, options, options.wait or not is_last)
        failed |= {step.record.id for step in steps if step.error}
    return planned.steps


def _run_some(steps: collections.abc.Sequence[Step], options: Options, wait: bool) -> None:
    for step in steps:
        if step.action == 'replace':
            _remove(step, options)
    todo = [step for step in steps if step.action in ('import', 'replace')]
    deadline = time.monotonic() + options.timeout
    outcomes = side_by_side.each(lambda step: _import(step, deadline), todo)
    for step, outcome in zip(todo, outcomes, strict=True):
        if isinstance(outcome, errors.PortError):
            step.fail(outcome)
    # All are being imported by now, so to wait for one is to wait for all.
    # In this thread, which is the one that a signal interrupts.
    deadline = time.monotonic() + options.timeout
    for step in steps:
        if step.action == 'nothing':
            continue
        if not wait:
            step.result = 'importing'
            continue
        try:
            _finish(step, _wait(step, deadline), options)
        except errors.PortError as error:
            step.fail(error)


def _import(step: Step, deadline: float) -> None:
    if not import_one.ask(step.cinder, step.record, deadline):
        step.action = 'wait'


def _wait(step: Step, deadline: float) -> resources.Backup:
    backup, ours = import_one.wait(step.cinder, step.record, deadline)
    if ours:
        step.action = 'import'
    return backup


def _finish(step: Step, seen: resources.Backup, options: Options) -> None:
    done = _DONE[step.action]
    problem = target_state.problem(step.record, seen, shell=options.shell)
    # Only the status tells: a backup that was taken up again keeps the
    # fail_reason of an earlier failure.
    if seen.status == 'creating':
        step.fail(target_state.stuck(step.record, seen, options.timeout))
    elif problem is not None:
        step.fail(problem)
    else:
        step.result = done
        LOG.info('Backup %s: %s.', step.record.id, done)


def _judge(step: Step, there: resources.Backup, options: Options) -> None:
    """Decide about a record whose id is there already."""
    project = step.cinder.project
    problem = target_state.problem(
        step.record,
        there,
        options.changes.ceph_pool,
        project.id if project else None,
        options.shell,
    )
    if problem is None:
        step.action, step.result = 'nothing', _ALREADY_THERE
    elif there.is_placeholder and there.status == 'creating':
        step.action, step.result = 'wait', 'being imported'
    elif there.is_empty_placeholder and there.status == 'error' and options.replace_failed:
        step.action, step.result = 'replace', 'to be replaced'
    else:
        step.fail(problem)


def _compare_image(step: Step, options: Options) -> None:
    """See that a record that is there names the image that this one names.

    Where the image is the one on which Cinder falls back: it would restore that as a whole, and
    not say so. Any other image it does not find. Cinder tells the name in the exported record
    only; where it does not export that, nothing is known against the backup.
    """
    image = step.record.base_image
    if image is None or image != ceph_driver.legacy_image(step.record):
        return
    with contextlib.suppress(errors.PortError):
        named = step.cinder.export_record(step.record.id).base_image
        if named not in (None, image):
            step.fail(target_state.other_image(step.record, named, options.shell))


def _remove(step: Step, options: Options) -> None:
    """Remove what a failed import left, if it is still nothing but that.

    Cinder deletes without asking twice, so look once more right before: between
    our first look and now another run may have made a backup of it.
    """
    try:
        there = import_one.look(step.cinder, step.record.id)
        if there is None:
            return
        if there.is_empty_placeholder and there.status == 'error':
            LOG.info('Backup %s: an import left it in error. Deleting it.', there.id)
            step.cinder.delete(step.record.id, options.timeout)
        else:
            step.action = 'wait'
    except errors.PortError as error:
        step.fail(error)


def _notes(
    steps: collections.abc.Sequence[Step], options: Options
) -> collections.abc.Iterator[str]:
    pools = {step.record.container or '?' for step in steps if step.record.is_ceph}
    if pools and not options.changes.ceph_pool:
        LOG.info(
            'The pool stays as the records have it (%s). Cinder does not check that there is one '
            'of that name; if this cloud has another: --ceph-pool <pool>.',
            ', '.join(sorted(pools)),
        )
    for step in steps:
        item = step.record
        for text in item.warnings:
            yield f'Backup {item.id}: {text}.'
        if item.encryption_key_id:
            yield (
                f'Backup {item.id} is encrypted: it cannot be restored without key '
                f'{item.encryption_key_id} in the key manager.'
            )


def _missing_parents(
    cinder: Cinder,
    steps: collections.abc.Sequence[Step],
    planned: collections.abc.Sequence[Step],
) -> collections.abc.Iterator[str]:
    """Tell which of them are increments of what is neither here nor on its way.

    :param planned: all that is on its way
    """
    known = {step.record.id for step in planned}
    parents = {step.record.parent_id for step in steps if step.action == 'import'} - known
    missing = {
        parent
        for parent in parents
        if parent is not None and import_one.look(cinder, parent) is None
    }
    for step in steps:
        item = step.record
        if item.parent_id not in missing:
            continue
        effect = (
            'It can be restored by itself.'
            if item.is_ceph and item.base_image
            else 'Before that is imported too, it can be neither restored nor deleted.'
        )
        yield (
            f'Backup {item.id}: its parent {item.parent_id} is neither in this cloud nor imported '
            f'with it. {effect}'
        )


def _generations(steps: collections.abc.Sequence[Step]) -> list[list[Step]]:
    """Order the steps: those without a parent among them, their children, ..."""
    by_id = {step.record.id: step for step in steps}
    sorter = graphlib.TopologicalSorter(
        {
            key: {parent for parent in [step.record.parent_id] if parent in by_id}
            for key, step in by_id.items()
        }
    )
    sorter.prepare()
    generations = []
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        generations.append([by_id[key] for key in by_id if key in ready])
    return generations
