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
import dataclasses
import graphlib
import logging
import time
import typing

from osc_backup_port import errors, record
from osc_backup_port.cinder import resources
from osc_backup_port.operations import import_one, side_by_side, target_state

LOG = logging.getLogger(__name__)


class Cinder(import_one.Cinder, typing.Protocol):
    """What this operation needs of the Block Storage service."""

    def room(self) -> resources.Room: ...

    def delete(self, backup_id: str, timeout: float) -> None: ...


@dataclasses.dataclass(frozen=True)
class Options:
    """How to import.

    :ivar ceph_pool: the pool that this cloud keeps its backups in, if known
    :ivar wait: until each is ``available`` or failed
    :ivar timeout: seconds to wait for one
    :ivar replace_failed: remove what an import that failed left behind
    """

    ceph_pool: str | None = None
    wait: bool = True
    timeout: float = 300
    replace_failed: bool = False


@dataclasses.dataclass
class Step:
    """One record, what is to be done with it, and what became of it.

    :ivar action: ``import``, ``wait`` (another run imports it), ``replace``, or
        ``nothing``
    :ivar result: a word or two for the table
    """

    record: record.BackupRecord
    file: str
    action: str = 'import'
    result: str = 'to be imported'
    error: errors.PortError | None = None

    def fail(self, error: errors.PortError, result: str = 'failed') -> None:
        self.action, self.result, self.error = 'nothing', result, error


#: Steps of one generation depend on none of the same, only on earlier ones.
Plan = list[list[Step]]


def plan(
    cinder: Cinder,
    records: collections.abc.Sequence[tuple[str, record.BackupRecord]],
    options: Options,
) -> Plan:
    """Say what would be done with each record, and change nothing.

    :param records: with the name of the file that each is from
    :raises errors.InvalidRecord: backups are each other's parents
    :raises errors.NotPermitted: the caller may not even look
    :raises errors.CinderError: the quota has no room for all of them
    """
    steps = [Step(_in_pool(item, options.ceph_pool), file) for file, item in records]
    _warn(steps, options)
    generations = _generations(steps)
    for step, there in zip(
        steps,
        side_by_side.each(lambda step: import_one.look(cinder, step.record.id), steps),
        strict=True,
    ):
        if isinstance(there, errors.PortError):
            step.fail(there)
        elif there is not None:
            _judge(step, there, options)
    _check_quota(cinder, steps)
    return generations


def run(cinder: Cinder, generations: Plan, options: Options) -> list[Step]:
    """Do what *generations* say and return their steps, in order.

    :raises errors.NotPermitted: the caller may not import records
    """
    failed: set[str] = set()
    for steps in generations:
        for step in steps:
            if step.action != 'nothing' and step.record.parent_id in failed:
                step.fail(
                    errors.Conflict(
                        f'Backup {step.record.id}: not imported, because its parent was not.'
                    ),
                    'not imported',
                )
        _run_generation(cinder, steps, options)
        failed |= {step.record.id for step in steps if step.error}
    return [step for steps in generations for step in steps]


def _run_generation(
    cinder: Cinder, steps: collections.abc.Sequence[Step], options: Options
) -> None:
    for step in steps:
        if step.action == 'replace':
            _remove(cinder, step, options)
    todo = [step for step in steps if step.action in ('import', 'replace')]
    outcomes = side_by_side.each(lambda step: _import(cinder, step), todo)
    for step, outcome in zip(todo, outcomes, strict=True):
        if isinstance(outcome, errors.PortError):
            step.fail(outcome)
    # All are being imported by now, so to wait for one is to wait for all.
    # In this thread, which is the one that a signal interrupts.
    deadline = time.monotonic() + options.timeout
    for step in steps:
        if step.action == 'nothing':
            continue
        if not options.wait:
            step.result = 'importing'
            continue
        try:
            _finish(step, _wait(cinder, step, deadline), options)
        except errors.Interrupted:
            raise
        except errors.PortError as error:
            step.fail(error)


def _import(cinder: Cinder, step: Step) -> None:
    if not import_one.ask(cinder, step.record):
        step.action = 'wait'


def _wait(cinder: Cinder, step: Step, deadline: float) -> resources.Backup:
    backup, ours = import_one.wait(cinder, step.record, deadline)
    if ours:
        step.action = 'import'
    return backup


def _finish(step: Step, seen: resources.Backup, options: Options) -> None:
    done = {'import': 'imported', 'replace': 'replaced', 'wait': 'already there'}[step.action]
    problem = target_state.problem(step.record, seen)
    # Only the status tells: a backup that was taken up again keeps the
    # fail_reason of an earlier failure.
    if seen.status == 'creating':
        step.fail(target_state.stuck(seen, options.timeout))
    elif problem is not None:
        step.fail(problem)
    else:
        step.result = done


def _judge(step: Step, there: resources.Backup, options: Options) -> None:
    """Decide about a record whose id is there already."""
    problem = target_state.problem(step.record, there, options.ceph_pool)
    if problem is None:
        step.action, step.result = 'nothing', 'already there'
    elif there.is_placeholder and there.status == 'creating':
        step.action, step.result = 'wait', 'being imported'
    elif there.is_empty_placeholder and there.status == 'error' and options.replace_failed:
        step.action, step.result = 'replace', 'to be replaced'
    else:
        step.fail(problem)


def _check_quota(cinder: Cinder, steps: collections.abc.Sequence[Step]) -> None:
    """Refuse all when the quota has no room for all; half a chain helps nobody."""
    new = [step for step in steps if step.action == 'import']
    # A leftover gives back its number and, since its size is 0, no gigabytes.
    size = sum(step.record.size for step in steps if step.action in ('import', 'replace'))
    if not size:
        return
    try:
        room = cinder.room()
    except errors.Interrupted:
        raise
    except errors.PortError as error:
        LOG.debug('Quota not known: %s', error)
        return
    short = []
    if room.backups is not None and room.backups < len(new):
        short.append(f'{room.backups} more backups, expected {len(new)}')
    if room.gigabytes is not None and room.gigabytes < size:
        short.append(f'{room.gigabytes} GiB more of backups, expected {size}')
    if short:
        raise errors.CinderError(
            f'The quota of this project has room for {" and for ".join(short)}. '
            'Nothing was imported.',
            'Look at the quota: openstack quota show; raise it: openstack quota set '
            '--backups <number> --backup-gigabytes <GiB> <project>',
        )


def _remove(cinder: Cinder, step: Step, options: Options) -> None:
    """Remove what a failed import left, if it is still nothing but that.

    Cinder deletes without asking twice, so look once more right before: between
    our first look and now another run may have made a backup of it.
    """
    try:
        there = import_one.look(cinder, step.record.id)
        if there is None:
            return
        if there.is_empty_placeholder and there.status == 'error':
            cinder.delete(step.record.id, options.timeout)
        else:
            step.action = 'wait'
    except errors.Interrupted:
        raise
    except errors.PortError as error:
        step.fail(error)


def _in_pool(item: record.BackupRecord, pool: str | None) -> record.BackupRecord:
    """Let a Ceph record name the pool of this cloud; other drivers have none."""
    return item.with_changes(container=pool) if pool and item.is_ceph else item


def _warn(steps: collections.abc.Sequence[Step], options: Options) -> None:
    pools = {step.record.container or '?' for step in steps if step.record.is_ceph}
    if pools and not options.ceph_pool:
        LOG.info(
            'The pool stays as the records have it (%s). Cinder does not check that there is one '
            'of that name; if this cloud has another: --ceph-pool <pool>.',
            ', '.join(sorted(pools)),
        )
    for step in steps:
        for text in step.record.warnings:
            LOG.warning('Backup %s: %s.', step.record.id, text)
        if step.record.encryption_key_id:
            LOG.warning(
                'Backup %s is encrypted: it cannot be restored without key %s in the key manager.',
                step.record.id,
                step.record.encryption_key_id,
            )


def _generations(steps: collections.abc.Sequence[Step]) -> Plan:
    """Order the steps: those without a parent among them, their children, ..."""
    by_id = {step.record.id: step for step in steps}
    sorter = graphlib.TopologicalSorter(
        {
            key: {parent for parent in [step.record.parent_id] if parent in by_id}
            for key, step in by_id.items()
        }
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise errors.InvalidRecord(
            f"These backups are each other's parents: {', '.join(error.args[1][1:])}.",
            'Export their records anew.',
        ) from None
    generations = []
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        generations.append([by_id[key] for key in by_id if key in ready])
    return generations
