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

"""What is measured: ours, what one would type instead, and the goal."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import data
from .data import GIB, MIB, Chain
from .measure import joined, once
from .place import Cluster

#: Seconds that an answer takes more on its way, on the average.
_DELAY = 0.005


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Case:
    """One row.

    :ivar key: to choose it by
    :ivar work: what is done, in words
    :ivar peer_name: the peer as a person would write it
    :ivar goal: how many times faster than the peer ours is to be, where that was set
    :ivar between: makes everything as it was before, for either
    :ivar clusters: that take part
    :ivar compares_cpu: False where compression is asked for
    :ivar most_pairs: 0: one, without any to warm up; it takes long
    :ivar prepare: done once, before, and not measured
    """

    key: str
    work: str
    peer_name: str
    goal: float | None
    ours: str
    peer: str
    clusters: Sequence[Cluster]
    between: Callable[[], None] = _nothing
    compares_cpu: bool = True
    prepare: str = ':'
    most_pairs: int = 100


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where it takes place: clusters, files, and the chains that are in the first cluster.

    :ivar tiny: a small chain, for increments of 1 MiB
    :ivar filled: bytes of data in most of them
    :ivar is_far: each answer takes some milliseconds more on its way
    """

    source: Cluster
    target: Cluster | None
    folder: Path
    full: Chain
    plain: Chain
    wide: Chain
    huge: Chain
    tiny: Chain
    filled: int
    is_far: bool = False

    def prepare(self, is_near: bool, is_far: bool) -> None:
        """Make the images that some rows need."""
        data.make(self.source, self.tiny, 32 * MIB, MIB)
        if is_far:
            far = self.far()
            data.make(self.source, far.full, far.filled, MIB)
            data.make(self.source, far.plain, far.filled)
        if is_near:
            self._prepare_near()

    def _prepare_near(self) -> None:
        for chain in (self.full, self.wide):
            data.make(self.source, chain, self.filled, chain.size // 100 // MIB * MIB)
        data.make(self.source, self.plain, self.filled)
        data.make(self.source, self.huge, self.filled // 4)

    def clean_half_done(self) -> None:
        """Take away what an earlier run left that was killed."""
        for cluster in filter(None, (self.source, self.target)):
            found = [*data.images(cluster, 'bench-'), *data.images(cluster, '.part')]
            data.remove(cluster, *found)

    def clean(self) -> None:
        """Take away all that is left by ourselves and by what was measured."""
        for cluster in filter(None, (self.source, self.target)):
            found = [*data.images(cluster, 'bench-')]
            for bench in (self, self.far()):
                for chain in bench.chains():
                    found += data.images(cluster, chain.volume_id)
            data.remove(cluster, *dict.fromkeys(found))

    def chains(self) -> list[Chain]:
        """Return all that may be there, also those that are imported."""
        arriving = [_arriving(chain) for chain in (self.full, self.tiny)]
        return [self.full, self.plain, self.wide, self.huge, self.tiny, *arriving]

    def far(self) -> 'Bench':
        """Return the same with clusters that are far away, and less data."""
        size = self.full.size // 4
        return dataclasses.replace(
            self,
            source=self.source.far(self.folder, _DELAY),
            target=self.target.far(self.folder, _DELAY) if self.target else None,
            full=data.name_chain(f'far full {size}', size, 2),
            plain=dataclasses.replace(
                data.name_chain(f'far plain {size}', size), has_snapshots=False
            ),
            filled=self.filled // 4,
            is_far=True,
        )

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        return tuple(filter(None, (self.source, self.target)))


def make(folder: Path, source: Cluster, target: Cluster | None, quick: bool) -> Bench:
    full, huge = (GIB, 64 * GIB) if quick else (8 * GIB, 1024 * GIB)
    word = 'quick ' if quick else ''
    return Bench(
        source.far(folder, 0),
        target.far(folder, 0) if target else None,
        folder,
        data.name_chain(f'{word}full', full, 2),
        dataclasses.replace(data.name_chain(f'{word}plain', full), has_snapshots=False),
        data.name_chain(f'{word}wide', 8 * full, 2),
        data.name_chain(f'{word}huge', huge),
        data.name_chain('tiny', GIB, 2),
        2 * GIB // (16 if quick else 1),
    )


def cases(bench: Bench) -> Iterator[Case]:
    for each in (bench, bench.far()):
        yield from _exports(each)
        yield from _imports(each)
        yield from _archives(each)
        if each.target is not None:
            yield _migration(each, each.target)


def _ours(bench: Bench, verb: str, chain: Chain, *options: object, numbers: str = '0') -> str:
    """Return a command of ours; *numbers* are of the backups whose records it knows."""
    records = [chain.record(int(number), bench.source.pool) for number in numbers]
    return f'{bench.source.ours} {verb} {joined(json.dumps(records), *options)}'


def limited_rate(bench: Bench, environment: dict[str, str]) -> dict[str, object]:
    """Return the rate at which data comes out where 256 MiB a second are allowed."""
    allowed, amount = 256 * MIB, bench.filled
    run = once(
        _ours(bench, 'export', bench.plain, '--limit-rate', allowed) + ' >/dev/null', environment
    )
    return {
        'key': 'rate',
        'work': 'export raw with --limit-rate 256M',
        'rate': f'{amount / run.wall / MIB:.1f} MiB/s',
    }


def _suffix(bench: Bench) -> tuple[str, str]:
    return ('-delayed', f', {_DELAY * 1000:.0f} ms away') if bench.is_far else ('', '')


def _exports(bench: Bench) -> Iterator[Case]:
    key, words = _suffix(bench)
    full, plain, huge, rbd = bench.full, bench.plain, bench.huge, bench.source.rbd
    mine, theirs = bench.folder / 'ours.raw', bench.folder / 'peer.raw'

    def no_files() -> None:
        for path in (mine, theirs):
            path.unlink(missing_ok=True)

    size, amount = f'{full.size // GIB} GiB', 'a quarter' if full.size > GIB else 'an eighth'
    yield Case(
        f'export-raw{key}',
        f'export raw, {size} image with {amount} of that in it, to /dev/null{words}',
        'rbd export -',
        _goal(bench, 1.5),
        _ours(bench, 'export', plain) + ' >/dev/null',
        f'{rbd} export {plain.point()} - >/dev/null',
        [bench.source],
    )
    yield Case(
        f'export-snapshot{key}',
        f'the same of a snapshot{words}',
        'rbd export IMAGE@SNAPSHOT -',
        _goal(bench, None),
        _ours(bench, 'export', full) + ' >/dev/null',
        f'{rbd} export {full.point(0)} - >/dev/null',
        [bench.source],
    )
    yield Case(
        f'export-sparse{key}',
        f'export raw of the same snapshot to a sparse file{words}',
        'rbd export FILE',
        _goal(bench, 1.2),
        _ours(bench, 'export', full, '--file', mine),
        f'{rbd} export {full.point(0)} {theirs}',
        [bench.source],
        no_files,
    )
    if not bench.is_far:
        yield Case(
            'export-huge',
            f'export raw, {huge.size // GIB} GiB image with little in it, to a sparse file',
            'rbd export FILE',
            80,
            _ours(bench, 'export', huge, '--file', mine),
            f'{rbd} export {huge.point()} {theirs}',
            [bench.source],
            no_files,
            most_pairs=0,
        )
    for chain in (bench.tiny,) if bench.is_far else (full, bench.wide, bench.tiny):
        yield _increment(bench, chain)


def _increment(bench: Bench, chain: Chain) -> Case:
    key, words = _suffix(bench)
    first, last = chain.snapshot(0), chain.point(1)
    which = {bench.wide.image: '-wide', bench.tiny.image: '-tiny'}.get(chain.image, '')
    part = '1 MiB in' if chain is bench.tiny else '1 % of'
    return Case(
        f'export-increment{which}{key}',
        f'export rbd-diff of an increment of {part} {chain.size // GIB} GiB{words}',
        'rbd export-diff --from-snap',
        _goal(bench, 1.2) if chain is not bench.tiny else 1,
        _ours(bench, 'export', chain, '--format', 'rbd-diff', '--from-first', numbers='01')
        + ' >/dev/null',
        f'{bench.source.rbd} export-diff --from-snap {first} {last} - >/dev/null',
        [bench.source],
    )


def _goal(bench: Bench, near: float | None) -> float | None:
    return 1.2 if bench.is_far else near


def _arriving(chain: Chain) -> Chain:
    """Return a chain that has the content of another when it was imported.

    Its backups are the same, as those of another volume.
    """
    made = data.name_chain(f'arriving {chain.volume_id}', chain.size)
    return dataclasses.replace(made, backups=chain.backups)


def _imports(bench: Bench) -> Iterator[Case]:
    key, words = _suffix(bench)
    full, rbd, source = bench.full, bench.source.rbd, bench.source
    arriving = _arriving(full)
    diff, raw = (bench.folder / f'full{key}.{form}' for form in ('rbd-diff', 'raw'))

    def ready() -> None:
        data.remove(source, 'bench-peer', *data.images(source, arriving.volume_id))

    def ready_for_diff() -> None:
        ready()
        data.create_empty(source, 'bench-peer', full.size)

    yield Case(
        f'import-diff{key}',
        f'import rbd-diff of all of the data from a pipe{words}',
        'rbd import-diff -',
        _goal(bench, 1.3),
        f'cat {diff} | ' + _ours(bench, 'import', arriving, '--format', 'rbd-diff'),
        f'cat {diff} | {rbd} import-diff - bench-peer',
        [source],
        ready_for_diff,
        prepare=f'[ -e {diff} ] || {rbd} export-diff {full.point(0)} {diff}',
    )
    yield Case(
        f'import-raw{key}',
        f'import raw sparse file{words}',
        'rbd import FILE',
        _goal(bench, 1.2),
        _ours(bench, 'import', arriving, '--file', raw),
        f'{rbd} import --image-feature layering,exclusive-lock,object-map,fast-diff '
        f'{raw} bench-peer',
        [source],
        ready,
        prepare=f'[ -e {raw} ] || {rbd} export {full.point(0)} {raw}',
    )
    yield _small_import(bench)


def _small_import(bench: Bench) -> Case:
    key, words = _suffix(bench)
    tiny, rbd = bench.tiny, bench.source.rbd
    arriving = _arriving(tiny)
    first, second = (bench.folder / f'tiny.{number}' for number in range(2))
    names = (arriving.image, 'bench-peer')

    def ready() -> None:
        for name in names:
            if not data.go_back(bench.source, name, tiny.snapshot(0)):
                data.remove(bench.source, name)
                data.create_empty(bench.source, name, tiny.size)
                data.write_diff(bench.source, name, first)

    start, end = tiny.point(0), tiny.point(1)
    return Case(
        f'import-increment-tiny{key}',
        f'import rbd-diff of an increment of 1 MiB into its chain{words}',
        'rbd import-diff -',
        1,
        f'cat {second} | ' + _ours(bench, 'import', arriving, '--format', 'rbd-diff', numbers='1'),
        f'cat {second} | {rbd} import-diff - bench-peer',
        [bench.source],
        ready,
        prepare=f'[ -e {second} ] || {{ {rbd} export-diff {start} {first}; '
        f'{rbd} export-diff --from-snap {tiny.snapshot(0)} {end} {second}; }}',
    )


def _archives(bench: Bench) -> Iterator[Case]:
    key, words = _suffix(bench)
    full, rbd, target = bench.full, bench.source.rbd, bench.target
    kept, mine, theirs = (
        bench.folder / f'{name}{key}' for name in ('kept', 'archive', 'peer.zst')
    )

    def no_files() -> None:
        shutil.rmtree(mine, ignore_errors=True)
        theirs.unlink(missing_ok=True)

    yield Case(
        f'archive-create{key}',
        f'archive create, zstd and sha256 on{words}',
        'rbd export-diff | zstd -T0 | tee FILE | sha256sum',
        _goal(bench, 1.2),
        _ours(bench, 'archive', full, '--file', mine),
        f'{rbd} export-diff {full.point(0)} - | zstd -qcT0 | tee {theirs} | sha256sum',
        [bench.source],
        no_files,
        compares_cpu=False,
    )
    if target is not None:
        packed = bench.folder / f'kept.zst{key}'
        make = _ours(bench, 'archive', full, '--file', kept)
        pack = f'{rbd} export-diff {full.point(0)} - | zstd -qcT0 > {packed}'
        yield Case(
            f'archive-import{key}',
            f'archive import, into another cluster{words}',
            'zstd -dc | rbd import-diff -',
            _goal(bench, 1.2),
            f'{target.ours} unarchive [] --file {kept}',
            f'zstd -dc {packed} | {target.rbd} import-diff - bench-peer',
            [target],
            _ready_at(target, full),
            compares_cpu=False,
            prepare=f'[ -e {kept} ] || {{ {make}; {pack}; }}',
        )


def _ready_at(target: Cluster, chain: Chain) -> Callable[[], None]:
    """Return what makes room for a chain, and an image for the peer to write to."""

    def ready() -> None:
        data.remove(target, 'bench-peer', *data.images(target, chain.volume_id))
        data.create_empty(target, 'bench-peer', chain.size)

    return ready


def _migration(bench: Bench, target: Cluster) -> Case:
    key, words = _suffix(bench)
    full = bench.full

    return Case(
        f'migrate{key}',
        f'migrate a full backup, cluster to cluster{words}',
        'rbd export-diff | rbd import-diff',
        _goal(bench, 1.3),
        _ours(bench, 'migrate', full, '--to', target.seen_by, target.pool),
        f'{bench.source.rbd} export-diff {full.point(0)} - | '
        f'{target.rbd} import-diff - bench-peer',
        bench.clusters,
        _ready_at(target, full),
    )
