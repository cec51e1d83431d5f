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

"""Ask for the import of one record, and hold on to it against another run.

When two runs import one backup at the same moment, Cinder answers one of them
with 500 and deletes the record of both: ``_get_import_backup`` in
``cinder/backup/api.py`` destroys, by its id, what it could not create.  So the one
that was answered asks again when its record goes away, and the one that was not
asks again when there is none.
"""

import logging
import random
import time
import typing

from osc_backup_port import errors, record
from osc_backup_port.cinder import resources

LOG = logging.getLogger(__name__)

# Seconds, at most, before each further try; the last one for all that come after it.
_PAUSES = (0.5, 1.0, 2.0, 4.0)


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def get(self, backup_id: str) -> resources.Backup: ...

    def import_record(self, record: record.BackupRecord) -> str: ...

    def wait(self, backup_id: str, timeout: float) -> resources.Backup: ...


def look(cinder: Cinder, backup_id: str) -> resources.Backup | None:
    """Return the backup of that id, None if there is none."""
    try:
        return cinder.get(backup_id)
    except errors.NotFound:
        return None


def ask(cinder: Cinder, item: record.BackupRecord, deadline: float) -> bool:
    """Ask for the import; tell whether it is ours, and not that of another run.

    :param deadline: of the monotonic clock
    :raises errors.CinderError: refused, or not done until then
    """
    tries = 0
    while True:
        try:
            return _ask_once(cinder, item)
        except errors.OutcomeUnknown as error:
            if look(cinder, item.id) is not None:
                LOG.info(
                    'Backup %s: no answer tells whether it is imported (%s). It is there.',
                    item.id,
                    error.problem,
                )
                return False
            pause = error.retry_after or _pause(tries)
            tries += 1
            if pause > _left(deadline) or (tries > len(_PAUSES) and not error.may_pass):
                raise
            LOG.info(
                'Backup %s: it is not there after try %d (%s). Asking again in %.1f s.',
                item.id,
                tries,
                error.problem,
                pause,
            )
        time.sleep(pause)


def wait(
    cinder: Cinder, item: record.BackupRecord, deadline: float
) -> tuple[resources.Backup, bool]:
    """Wait for an import that was asked for, and ask again when its record goes away.

    :param deadline: of the monotonic clock
    :return: the backup as last seen, and whether we asked again, and it is ours
    :raises errors.CinderError: refused, failed, or gone several times
    """
    ours = False
    for tries in range(len(_PAUSES)):
        try:
            return cinder.wait(item.id, _left(deadline)), ours
        except errors.NotFound:
            LOG.info(
                'Backup %s: its record has gone, as when another run imports it at the same '
                'moment. Asking again.',
                item.id,
            )
            time.sleep(_pause(tries))
            ours = ask(cinder, item, deadline)
    return cinder.wait(item.id, _left(deadline)), ours


def _ask_once(cinder: Cinder, item: record.BackupRecord) -> bool:
    try:
        cinder.import_record(item)
    except errors.Conflict:
        LOG.info('Backup %s: another run has asked for its import.', item.id)
        return False
    return True


def _pause(tries: int) -> float:
    # By chance, or two runs would meet again.
    return _PAUSES[min(tries, len(_PAUSES) - 1)] * random.random()  # noqa: S311


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0)
