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

"""How the cost grows: with the data, with the snapshots, with the backups of an archive."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import data
from .data import GIB, MIB
from .measure import Run, joined, once
from .place import Cluster, undisturbed


@dataclasses.dataclass(frozen=True)
class Series:
    """One row: the same work with more and more of something.

    :ivar of: what there is more and more of
    :ivar measure: yields how much of it, ours, and the peer where there is one
    """

    key: str
    work: str
    of: str
    measure: Callable[[], Iterator[tuple[int, Run, Run | None]]]

    def run(self) -> dict[str, Any]:
        points = []
        for amount, ours, peer in self.measure():
            points.append(
                {
                    'amount': amount,
                    'ours': dataclasses.asdict(ours),
                    'rbd': dataclasses.asdict(peer) if peer else None,
                }
            )
        return {'key': self.key, 'work': self.work, 'of': self.of, 'points': points}


class Growth:
    """The series, in one cluster; each takes away what it made.

    :param largest: GiB of data in the largest image
    """

    def __init__(
        self, source: Cluster, folder: Path, environment: dict[str, str], quick: bool, largest: int
    ) -> None:
        self._source = source
        self._folder = folder
        self._environment = environment
        self._quick = quick
        self._largest = 1 if quick else largest

    def series(self) -> Iterator[Series]:
        yield Series(
            'growth-data',
            'export raw to /dev/null; peer: rbd export -',
            'GiB of data (text, which the OSD keeps compressed)',
            self._with_data,
        )
        yield Series(
            'growth-snapshots',
            'export rbd-diff of the newest increment of 1 MiB; peer: rbd export-diff --from-snap',
            'snapshots',
            self._with_snapshots,
        )
        yield Series(
            'growth-backups', 'archive list, all of it checked', 'backups', self._with_backups
        )

    def _with_data(self) -> Iterator[tuple[int, Run, Run | None]]:
        amount = 1
        while amount <= self._largest and self._has_room(amount * GIB // 8):
            chain = data.name_chain(f'grown {amount}', amount * GIB)
            try:
                with self._source.compressing():
                    data.make(self._source, chain, chain.size, is_text=True)
                yield amount, *self._both(chain, [0], f'export {chain.point(0)}')
            finally:
                with undisturbed():
                    data.remove(self._source, chain.image)
            amount *= 2

    def _with_snapshots(self) -> Iterator[tuple[int, Run, Run | None]]:
        for amount in (2, 5) if self._quick else (2, 20, 200):
            chain = data.name_chain(f'long {amount}', GIB, amount)
            last, start = amount - 1, chain.snapshot(amount - 2)
            try:
                data.make(self._source, chain, 32 * MIB, MIB)
                peer = f'export-diff --from-snap {start} {chain.point(last)}'
                yield amount, *self._both(chain, [last - 1, last], peer)
            finally:
                with undisturbed():
                    data.remove(self._source, chain.image)

    def _both(self, chain: data.Chain, numbers: list[int], peer: str) -> tuple[Run, Run]:
        records = json.dumps([chain.record(number, self._source.pool) for number in numbers])
        options = ('--format', 'rbd-diff', '--from-first') if len(numbers) > 1 else ()
        mine = f'{self._source.ours} export {joined(records, *options)} >/dev/null'
        theirs = f'{self._source.rbd} {peer} - >/dev/null'
        return once(mine, self._environment), once(theirs, self._environment)

    def _with_backups(self) -> Iterator[tuple[int, Run, Run | None]]:
        chain = data.name_chain('archived', GIB)
        records = json.dumps([chain.record(0, self._source.pool)])
        for amount in (10, 20) if self._quick else (10, 100, 1000):
            place = self._folder / f'archive-{amount}'
            more = joined(records, '--file', place, '--count', amount)
            once(f'{self._source.ours} many {more}', self._environment)
            listing = f'{self._source.ours} list [] --file {place}'
            yield amount, once(listing, self._environment), None
            shutil.rmtree(place)

    def _has_room(self, size: int) -> bool:
        return shutil.disk_usage(self._folder).free > size + 6 * GIB
