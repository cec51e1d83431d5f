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

"""Tell in a few lines why many backups failed."""

import collections.abc

from osc_backup_port import errors

# In an error that many backups share; the columns name all of them.
_MOST_IDS = 10


def heading(verb: str, is_dry_run: bool, is_started: bool = True) -> str:
    """Return what goes above a list of errors.

    :param is_started: False: the errors were found before anything was changed
    """
    if is_dry_run:
        return 'In the way:'
    return f'Not all backups could be {verb}:' if is_started else f'Nothing was {verb}:'


def some_failed(
    total: int,
    failures: collections.abc.Sequence[tuple[str | None, errors.PortError]],
    verb: str,
    is_dry_run: bool = False,
) -> errors.PortError:
    """Return one error for many, which tells each thing once.

    :param failures: with the id of the backup, where it is known
    """
    groups: dict[str, list[tuple[str | None, errors.PortError]]] = {}
    for backup_id, error in failures:
        same = error.in_one_line().replace(backup_id or '', '')
        groups.setdefault(same, []).append((backup_id, error))
    told: list[errors.PortError] = []
    hints: set[str | None] = set()
    for group in groups.values():
        first = group[0][1]
        details = [*first.details]
        if len(group) > 1:
            others = [backup_id or '?' for backup_id, _ in group[1:]]
            more = ', ...' if len(others) > _MOST_IDS else ''
            details.append(
                f'The same for {len(others)} more: {", ".join(others[:_MOST_IDS])}{more}'
            )
        hint = None if first.hint in hints else first.hint
        hints.add(first.hint)
        told.append(errors.PortError(first.problem, hint, details))
    count = f'{len(failures)} of {total} backups could not be {verb}:'
    return errors.SomeFailed(heading(verb, True) if is_dry_run else count, told)
