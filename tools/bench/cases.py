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
from collections.abc import Callable, Iterator
from pathlib import Path

from . import data
from .data import GIB, MIB, Chain
from .measure import joined, once
from .place import Cluster


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
    :ivar delay: seconds added to each operation of the OSD
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
    between: Callable[[], None] = _nothing
    delay: float = 0
    compares_cpu: bool = True
    prepare: str = ':'
    most_pairs: int = 100


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where it takes place: clusters, files, and the chains that are in the first cluster.

    :ivar filled: bytes of data in most of them
    """

    source: Cluster
    target: Cluster | None
    folder: Path
    full: Chain
    plain: Chain
    wide: Chain
    huge: Chain
    filled: int

    def prepare(self) -> None:
        """Make the images."""
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
            for chain in (self.full, self.plain, self.wide, self.huge, _arriving(self)):
                found += data.images(cluster, chain.volume_id)
            data.remove(cluster, *found)


def make(folder: Path, source: Cluster, target: Cluster | None, quick: bool) -> Bench:
    full, huge = (GIB, 64 * GIB) if quick else (8 * GIB, 1024 * GIB)
    word = 'quick ' if quick else ''
    return Bench(
        source,
        target,
        folder,
        data.name_chain(f'{word}full', full, 2),
        dataclasses.replace(data.name_chain(f'{word}plain', full), has_snapshots=False),
        data.name_chain(f'{word}wide', 8 * full, 2),
        data.name_chain(f'{word}huge', huge),
        2 * GIB // (16 if quick else 1),
    )


def cases(bench: Bench) -> Iterator[Case]:
    for delay in (0.0, 0.005):
        for case in _with_delay(bench, delay):
            # With the delay it takes long, and differs less from run to run.
            yield dataclasses.replace(case, most_pairs=0) if delay else case


def _with_delay(bench: Bench, delay: float) -> Iterator[Case]:
    yield from _exports(bench, delay)
    yield from _imports(bench, delay)
    yield from _archives(bench, delay)
    if bench.target is not None:
        yield _migration(bench, bench.target, delay)


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


def _suffix(delay: float) -> tuple[str, str]:
    return ('-delayed', f', with {delay * 1000:.0f} ms added') if delay else ('', '')


def _exports(bench: Bench, delay: float) -> Iterator[Case]:
    key, words = _suffix(delay)
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
        3 if delay else 1.5,
        _ours(bench, 'export', plain) + ' >/dev/null',
        f'{rbd} export {plain.point()} - >/dev/null',
        delay=delay,
    )
    yield Case(
        f'export-snapshot{key}',
        f'the same of a snapshot{words}',
        'rbd export IMAGE@SNAPSHOT -',
        None,
        _ours(bench, 'export', full) + ' >/dev/null',
        f'{rbd} export {full.point(0)} - >/dev/null',
        delay=delay,
    )
    yield Case(
        f'export-sparse{key}',
        f'export raw of the same snapshot to a sparse file{words}',
        'rbd export FILE',
        None if delay else 1.2,
        _ours(bench, 'export', full, '--file', mine),
        f'{rbd} export {full.point(0)} {theirs}',
        no_files,
        delay,
    )
    if not delay:
        yield Case(
            'export-huge',
            f'export raw, {huge.size // GIB} GiB image with little in it, to a sparse file',
            'rbd export FILE',
            80,
            _ours(bench, 'export', huge, '--file', mine),
            f'{rbd} export {huge.point()} {theirs}',
            no_files,
            most_pairs=0,
        )
    for chain in (full,) if delay else (full, bench.wide):
        yield _increment(bench, chain, delay)


def _increment(bench: Bench, chain: Chain, delay: float) -> Case:
    key, words = _suffix(delay)
    first, last = chain.snapshot(0), chain.point(1)
    wide = '-wide' if chain is bench.wide else ''
    return Case(
        f'export-increment{wide}{key}',
        f'export rbd-diff of an increment of 1 % of {chain.size // GIB} GiB{words}',
        'rbd export-diff --from-snap',
        None if delay else 1.2,
        _ours(bench, 'export', chain, '--format', 'rbd-diff', '--from-first', numbers='01')
        + ' >/dev/null',
        f'{bench.source.rbd} export-diff --from-snap {first} {last} - >/dev/null',
        delay=delay,
    )


def _arriving(bench: Bench) -> Chain:
    """Return a chain that has the content of another when it was imported."""
    return data.name_chain(f'arriving {bench.full.size}', bench.full.size)


def _imports(bench: Bench, delay: float) -> Iterator[Case]:
    key, words = _suffix(delay)
    full, rbd, source = bench.full, bench.source.rbd, bench.source
    arriving = _arriving(bench)
    diff, raw = bench.folder / 'full.rbd-diff', bench.folder / 'full.raw'

    def ready() -> None:
        data.remove(source, 'bench-peer', *data.images(source, arriving.volume_id))

    def ready_for_diff() -> None:
        ready()
        data.create_empty(source, 'bench-peer', full.size)

    # The backup that the streams are of, as one of another volume.
    record = dataclasses.replace(arriving, backups=full.backups[:1])
    yield Case(
        f'import-diff{key}',
        f'import rbd-diff of all of the data from a pipe{words}',
        'rbd import-diff -',
        None if delay else 1.3,
        f'cat {diff} | ' + _ours(bench, 'import', record, '--format', 'rbd-diff'),
        f'cat {diff} | {rbd} import-diff - bench-peer',
        ready_for_diff,
        delay,
        prepare=f'[ -e {diff} ] || {rbd} export-diff {full.point(0)} {diff}',
    )
    yield Case(
        f'import-raw{key}',
        f'import raw sparse file{words}',
        'rbd import FILE',
        None if delay else 1.2,
        _ours(bench, 'import', record, '--file', raw),
        f'{rbd} import --image-feature layering,exclusive-lock,object-map,fast-diff '
        f'{raw} bench-peer',
        ready,
        delay,
        prepare=f'[ -e {raw} ] || {rbd} export {full.point(0)} {raw}',
    )


def _archives(bench: Bench, delay: float) -> Iterator[Case]:
    key, words = _suffix(delay)
    full, rbd, target = bench.full, bench.source.rbd, bench.target
    kept, mine, theirs = (bench.folder / name for name in ('kept', 'archive', 'peer.zst'))

    def no_files() -> None:
        shutil.rmtree(mine, ignore_errors=True)
        theirs.unlink(missing_ok=True)

    yield Case(
        f'archive-create{key}',
        f'archive create, zstd and sha256 on{words}',
        'rbd export-diff | zstd -T0 | tee FILE | sha256sum',
        None if delay else 1.2,
        _ours(bench, 'archive', full, '--file', mine),
        f'{rbd} export-diff {full.point(0)} - | zstd -qcT0 | tee {theirs} | sha256sum',
        no_files,
        delay,
        compares_cpu=False,
    )
    if target is not None:
        packed = bench.folder / 'kept.zst'
        make = _ours(bench, 'archive', full, '--file', kept)
        pack = f'{rbd} export-diff {full.point(0)} - | zstd -qcT0 > {packed}'
        yield Case(
            f'archive-import{key}',
            f'archive import, into another cluster{words}',
            'zstd -dc | rbd import-diff -',
            None if delay else 1.2,
            f'{target.ours} unarchive [] --file {kept}',
            f'zstd -dc {packed} | {target.rbd} import-diff - bench-peer',
            _ready_at(target, full),
            delay,
            compares_cpu=False,
            prepare=f'[ -e {kept} ] || {{ {make}; {pack}; }}',
        )


def _ready_at(target: Cluster, chain: Chain) -> Callable[[], None]:
    """Return what makes room for a chain, and an image for the peer to write to."""

    def ready() -> None:
        data.remove(target, 'bench-peer', *data.images(target, chain.volume_id))
        data.create_empty(target, 'bench-peer', chain.size)

    return ready


def _migration(bench: Bench, target: Cluster, delay: float) -> Case:
    key, words = _suffix(delay)
    full = bench.full

    return Case(
        f'migrate{key}',
        f'migrate a full backup, cluster to cluster{words}',
        'rbd export-diff | rbd import-diff',
        None if delay else 1.3,
        _ours(bench, 'migrate', full, '--to', target.conf, target.pool),
        f'{bench.source.rbd} export-diff {full.point(0)} - | '
        f'{target.rbd} import-diff - bench-peer',
        _ready_at(target, full),
        delay,
    )
