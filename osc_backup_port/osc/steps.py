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

"""What became of each backup, as words for a row."""

import typing

if typing.TYPE_CHECKING:
    from osc_backup_port.moving import plan


def data(step: 'plan.Step', verb: str) -> str:
    """Return what became of the data of a backup, or is to become of it.

    :param verb: what the command does with it, as in "imported"
    """
    from osc_backup_port.moving import plan

    words = {
        plan.State.TO_DO: f'to be {verb}',
        plan.State.PRESENT: 'already there',
        plan.State.DONE: verb,
        plan.State.PASSED: 'passed through',
        plan.State.FAILED: 'failed',
        plan.State.LEFT_OUT: f'not {verb}',
    }
    return words[step.state]


def record(step: 'plan.Step') -> str:
    """Return the same of its record."""
    if step.record_step is not None:
        return step.record_step.result
    # What is only a step on the way has no record to import.
    return 'not imported' if step.error else '-'


def backup(step: 'plan.Step') -> tuple[str, str | None, str | None]:
    """Return id, name and volume of a backup."""
    item = step.point.record
    if item is None:
        return step.point.id, None, None
    return item.id, item.display_name, item.volume_id


def volume_metadata(step: 'plan.Step') -> str:
    """Return what became of the volume metadata of a backup that was imported."""
    from osc_backup_port.driver import ceph
    from osc_backup_port.moving import volume_metadata

    name = ceph.metadata_object(step.point.id)
    words = {
        volume_metadata.Outcome.STORED: name,
        volume_metadata.Outcome.PRESENT: f'already there: {name}',
        volume_metadata.Outcome.NONE: 'none: a restore will bring back neither name, properties '
        'nor the bootable flag',
    }
    return words[step.metadata] if step.metadata else '-'
