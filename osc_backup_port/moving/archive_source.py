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

"""An archive in a folder or an object store, as a source."""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence

from osc_backup_port import errors, model
from osc_backup_port.archive import catalog, increments, manifest
from osc_backup_port.archive import store as archive_store
from osc_backup_port.moving import endpoints, plan
from osc_backup_port.transfer import limits

#: Segments between two notes of how far the work is: a killed run has
#: to move at most these again, 1 GiB mostly.
_PART = 128


class Source(endpoints.Source):
    """Backups of an archive.

    A chain of which a part is damaged stays out as a whole; its whole backups can be asked
    for by name.

    :param store: None: only to look at what would be moved
    :param wanted: names or ids of backups, whose ancestors are added; none: all
    :ivar failures: what is damaged, where all is wanted
    """

    def __init__(
        self,
        store: archive_store.Store | None,
        contents: catalog.Catalog,
        wanted: Sequence[str] = (),
    ) -> None:
        self.place = f'archive {store.name}' if store else 'archive'
        self._store = store
        self._contents = contents
        self._wanted = wanted
        self.failures: list[plan.Finding] = []
        if not wanted:
            self.failures = [(None, damage.error) for damage in contents.damage()]

    def chains(self) -> list['Chain']:
        """Return the chains in which something is wanted.

        :raises NotFound: the archive has no such backup
        :raises DamagedArchive: a backup that is asked for, or an ancestor, is damaged
        """
        chosen = self._choose()
        found = []
        for image in self._contents.images:
            wanted = [backup for backup in image.backups if chosen.get(backup.id) == image.name]
            # What is not finished says nothing against what came before it.
            damage = [one.error for one in image.damaged] if not self._wanted else []
            if wanted:
                found.append(Chain(self._store, image, wanted, damage[0] if damage else None))
        return found

    def _choose(self) -> dict[str, str]:
        """Return the ids of the backups to take, each with its image.

        A backup that is there twice, in its chain and alone, is taken from its
        chain, unless it alone is asked for.
        """
        chosen: dict[str, str] = {}
        contents = self._contents
        if not self._wanted:
            for image in sorted(contents.images, key=lambda image: len(image.backups)):
                chosen.update((backup.id, image.name) for backup in image.backups)
            return chosen
        by_id: dict[str, list[catalog.Backup]] = {}
        for backup in contents.backups():
            by_id.setdefault(backup.id, []).append(backup)
        damaged = {damage.backup_id: damage.error for damage in contents.damage()}
        waiting = [contents.find(name) for name in self._wanted]
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


class Chain(endpoints.SourceChain):
    """Increments of one image: each has to come behind the one that it starts from."""

    def __init__(
        self,
        store: archive_store.Store | None,
        image: catalog.Image,
        wanted: Sequence[catalog.Backup],
        damage: errors.PortError | None = None,
    ) -> None:
        self.name = image.name
        self._store = store
        self._image = image
        self._wanted = {backup.id for backup in wanted}
        self._damage = damage
        self._backups = {backup.id: backup for backup in image.backups}

    def steps(self, present: endpoints.Present) -> list[plan.Step]:
        """Return the wanted ones, and those on the way to what is missing of them."""
        missing = self._wanted - present.names.keys()
        needed = {
            way.id
            for backup_id in missing
            for way in catalog.path_to(self._image, self._backups[backup_id])
        }
        steps = [
            self._step(backup, backup.id in present.names)
            for backup in self._image.backups
            if backup.id in self._wanted | needed
        ]
        if steps and self._damage is not None:
            steps[0].error = self._damage
        return steps

    def _step(self, backup: catalog.Backup, is_there: bool) -> plan.Step:
        return plan.Step(
            point_of(backup),
            backup.increment.from_snap,
            backup.id in self._wanted,
            plan.State.PRESENT if is_there else plan.State.TO_DO,
        )

    def layout(self) -> model.ImageLayout:
        return self._image.layout

    @contextlib.contextmanager
    def read(self, step: plan.Step, bounds: limits.Limits) -> Iterator['_Reading']:  # noqa: ARG002 - segments have bounds of their own
        if self._store is None:
            raise ValueError('there is nothing to read from')
        yield _Reading(self._store, self._backups[step.point.id], self._refuse)

    def _refuse(self) -> None:
        self.is_refused = True

    def volume_metadata(self, point: plan.Point) -> bytes | None:
        return self._backups[point.id].volume_metadata

    def bytes_to_read(self, step: plan.Step) -> int:
        return self._backups[step.point.id].increment.stored_size

    def bytes_to_write(self, step: plan.Step, exact: bool) -> int:  # noqa: ARG002 - it is known
        segments = self._backups[step.point.id].increment.segments
        return sum(segment.raw_size for segment in segments)


def point_of(backup: catalog.Backup) -> plan.Point:
    """Return the point that an increment leads to."""
    increment = backup.increment
    return plan.Point(
        backup.id, increment.to_snap, increment.size, backup.record, f'Backup {backup.id}'
    )


class _Reading(endpoints.Reading):
    """One increment; a mark is the number of a segment."""

    def __init__(
        self, store: archive_store.Store, backup: catalog.Backup, refuse: Callable[[], None]
    ) -> None:
        self._refuse = refuse
        self._store = store
        self._backup = backup
        self.increment = increments.describe(backup.increment)
        document = manifest.encode_increment(backup.increment)
        self.identity = hashlib.sha256(document).hexdigest()

    def parts(self, first: int, cut: bool) -> Generator[endpoints.Part, None, None]:
        count = len(self._backup.increment.segments)
        size = _PART if cut else count
        segments = increments.read_segments(self._store, self._backup, first)
        for start in range(first, count, size):
            end = min(start + size, count)
            some = itertools.islice(segments, end - start)
            yield endpoints.Part(self._items(some), end)

    def _items(self, segments: Iterator[tuple[int, bytes]]) -> Iterator[model.Item]:
        where = f'{self._store.name}/{self._backup.path}'
        try:
            yield from increments.items(self._backup.increment, segments, where)
        except errors.InvalidInput:
            # It is not what was written.
            self._refuse()
            raise
