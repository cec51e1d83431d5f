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

"""Which backups an archive has, and which of them it should have and has not."""

import collections
from collections.abc import Collection, Iterator
from typing import NamedTuple

from osc_backup_port import errors
from osc_backup_port.archive import catalog

_CREATE = 'openstack volume backup archive create <archive>'


class _Told(NamedTuple):
    """What the record of a backup says of others."""

    image: str
    parent_id: str | None
    dependents: int


class Presence:
    """What went by of an archive.

    :param name: what to call the archive in an error
    :ivar is_cut: the rest of it cannot be read
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.is_cut = False
        self._good: dict[str, _Told] = {}
        self._seen: set[str] = set()
        self._incomplete: set[str] = set()

    def add(self, backup: catalog.Backup) -> None:
        """Tell of a backup that is whole."""
        self._seen.add(backup.id)
        item = backup.record
        # It may be there twice, in its chain and alone.
        if backup.id not in self._good or item.parent_id:
            told = _Told(backup.image, item.parent_id, item.num_dependent_backups)
            self._good[backup.id] = told

    def add_damaged(self, image: str, backup_id: str) -> None:
        """Tell of what is there and of no use."""
        self._seen.add(backup_id)
        self._incomplete.add(image)

    def absent(self, expected: Collection[str]) -> Iterator[tuple[str, str, errors.PortError]]:
        """Yield image and id of what is missing, and why it is missed.

        :param expected: ids of backups that have to be there; if there are any, that is all,
            and nothing else is concluded from how many backups build on another
        """
        for backup_id in sorted(set(expected) - self._seen):
            yield '', backup_id, self._missing(backup_id, 'it is expected to be there (--expect)')
        if self.is_cut:
            return
        if not self._seen:
            yield (
                '',
                '',
                errors.InvalidInput(
                    f'{self._name}: holds no backup.', f'Create it again: {_CREATE} <backup>'
                ),
            )
        yield from self._absent_parents(set(expected))
        if not expected:
            yield from self._absent_children()

    def _absent_parents(self, told: set[str]) -> Iterator[tuple[str, str, errors.PortError]]:
        for backup_id, item in self._good.items():
            parent = item.parent_id
            if parent and parent not in self._seen | told:
                told.add(parent)
                yield item.image, parent, self._missing(parent, f'backup {backup_id} builds on it')

    def _absent_children(self) -> Iterator[tuple[str, str, errors.PortError]]:
        """Tell of backups on which more built, when they were archived, than are there.

        Not where something is damaged, which may be what is missed.
        """
        children = collections.Counter(item.parent_id for item in self._good.values())
        for backup_id, item in self._good.items():
            if item.image not in self._incomplete and children[backup_id] < item.dependents:
                yield (
                    item.image,
                    '',
                    errors.InvalidInput(
                        f'{self._name}: when backup {backup_id} was archived, {item.dependents} '
                        f'backups built on it; here are {children[backup_id]}.',
                        f'If all of them should be here, create the archive again: {_CREATE} '
                        f'<backup>. If not, name those that should: --expect {backup_id}',
                    ),
                )

    def _missing(self, backup_id: str, why: str) -> errors.InvalidInput:
        return errors.InvalidInput(
            f'{self._name}: backup {backup_id} is not there; {why}.',
            f'Put it there: {_CREATE} {backup_id}; or take it from another copy of the archive.',
        )
