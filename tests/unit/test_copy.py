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

"""One suite over every pair of source and sink, with faults at every step."""

import contextlib
import dataclasses
import io
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from osc_backup_port import errors, progress
from osc_backup_port.archive import catalog, names, remote_store, store, tar_stream
from osc_backup_port.formats import image_formats, stream
from osc_backup_port.moving import (
    archive_sink,
    archive_source,
    cluster_sink,
    cluster_source,
    copy,
    endpoints,
    file_sink,
    file_source,
    flatten,
    image_info,
    job,
    plan,
    stream_source,
)
from osc_backup_port.moving.plan import State
from osc_backup_port.records import wanted_records
from osc_backup_port.transfer import limits
from tests.fakes import ceph as fake_ceph
from tests.fakes import endpoint
from tests.unit import archives, chains
from tests.unit.fake_cinder import FakeCinder

IDS = chains.IDS
COUNT = 3
#: Small, and no whole number of GiB: Cinder takes over images of any size.
SIZE = 12 << 20


class Place:
    """Where the chain of three backups lies, or is to come to.

    :ivar holds: which of the backups it can hold
    """

    holds = tuple(range(COUNT))

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def source(self) -> endpoints.Source:
        raise NotImplementedError

    def sink(self) -> endpoints.Sink:
        raise NotImplementedError

    def seal(self) -> None:
        """Do what the command does when all is written."""


class Memory(Place):
    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.kept = endpoint.Sink()

    def sink(self) -> endpoints.Sink:
        return self.kept

    def source(self) -> endpoints.Source:
        by_name = {name: key for key, name in self.kept.ids[chains.BASE].items()}
        backups = []
        for name, content in self.kept.points[chains.BASE].items():
            item, metadata = self.kept.records.get(by_name[name], (None, None))
            item = item or chains.backup(IDS.index(by_name[name]))
            backups.append(endpoint.Backup(item, name, SIZE, content, metadata))
        return endpoint.Source(chains.BASE, backups)


class Cluster(Place):
    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.ceph = fake_ceph.Cluster()
        self.cinder = FakeCinder()

    def sink(self) -> endpoints.Sink:
        return cluster_sink.Sink(self.ceph.pool(), self.cinder, archives.OPTIONS)

    def source(self) -> endpoints.Source:
        if len(self.cinder.rows) < COUNT:
            last = chains.backup(COUNT - 1)
            return cluster_source.OneBackup(self.ceph.pool(), last, None, with_chain=True)
        records = wanted_records.read(self.cinder, [IDS[COUNT - 1]])
        return cluster_source.Source(self.cinder, self.ceph.pool(), records)


class Folder(Place):
    def store(self) -> store.Store:
        return store.Folder(self.folder / 'archive')

    def sink(self) -> endpoints.Sink:
        return archive_sink.Sink(self.store())

    def source(self) -> endpoints.Source:
        return archive_source.Source(self.store(), catalog.read(self.store()))


class Remote(Folder):
    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.url = f'memory://{uuid.uuid4()}/archive'

    def store(self) -> store.Store:
        return remote_store.Remote(self.url)


class Stream(Place):
    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.file = chains.memory_file()
        self.output: tar_stream.Output | None = None

    def sink(self) -> endpoints.Sink:
        # A stream that was left is sent once more from its beginning.
        self.file = chains.memory_file()
        self.output = tar_stream.Output(self.file)
        return archive_sink.Sink(self.output)

    def seal(self) -> None:
        assert self.output is not None
        self.output.close()

    def source(self) -> endpoints.Source:
        self.file.seek(0)
        content = io.BytesIO(self.file.readall())
        return stream_source.Source(tar_stream.Input(content))  # type: ignore[arg-type]


class File(Place):
    """One format of an image; only a format of chains holds more than the last backup."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        super().__init__(folder)
        self.format = image_formats.get(name)
        self.is_chain = self.format.holds is image_formats.Holds.CHAIN
        self.holds = tuple(range(COUNT)) if self.is_chain else (COUNT - 1,)
        self.file = chains.memory_file()

    def sink(self) -> endpoints.Sink:
        self.file = chains.memory_file()
        return file_sink.Sink(stream.Writer(self.file, checksum=False), self.format)

    def source(self) -> endpoints.Source:
        self.file.seek(0)
        reader, backup = stream.Reader(self.file, 'the file', False), chains.backup(COUNT - 1)
        info = image_info.ImageInfo(self.format.name, backup.id, SIZE, reader.size or 0, None)
        opened = file_source.recognise(reader, backup, None, info, progress.Silent())
        wanted = file_source.Wanted(backup, volume_metadata=archives.META)
        return file_source.Source(opened, wanted, fake_ceph.Cluster().pool().commands)


def file_of(name: str) -> Callable[[pathlib.Path], File]:
    return lambda folder: File(folder, name)


PLACES: dict[str, Callable[[pathlib.Path], Place]] = {
    'memory': Memory,
    'cluster': Cluster,
    'folder': Folder,
    'object store': Remote,
    'stream': Stream,
    **{name: file_of(name) for name in image_formats.names()},
}


@pytest.fixture(scope='module')
def original() -> tuple[list[endpoint.Backup], list[chains.Blocks]]:
    """Return three backups and what they hold."""
    canvas = fake_ceph.Content(4 << 20)
    backups = []
    for number in range(COUNT):
        fill = bytes([65 + number])
        # Over the edge of an object; at the end; and what the next one takes back.
        canvas.write((4 << 20) - 9000 + number * 4096, fill * 20_000)
        canvas.write(SIZE - 3, fill * 3)
        canvas.zero((9 << 20) + (number - 1) * 8192, 8192)
        canvas.write((9 << 20) + number * 8192, fill * 8192)
        item = chains.backup(number)
        content = canvas.dump()
        backups.append(
            endpoint.Backup(item, chains.snapshot(number), SIZE, content, archives.META)
        )
    return backups, [one.content for one in backups]


Original = tuple[list[endpoint.Backup], list[chains.Blocks]]


def move(source: endpoints.Source, sink: endpoints.Sink, verify: bool = False) -> list[plan.Step]:
    """Move as a command does; the first thing that went wrong is raised."""
    work = job.Job(bounds=chains.BOUNDS, verify=verify)
    if isinstance(source, stream_source.Source):
        done = list(copy.run_once(source, sink, work))
    else:
        planned = copy.plan(source, sink)
        copy.run(planned, sink, work)
        done = [planned]
    for planned in done:
        for error in planned.errors():
            raise error
    return [step for planned in done for step in planned.steps]


def fill(place: Place, original: Original) -> None:
    """Let a place have the chain, or what it can hold of it."""
    backups = original[0] if len(place.holds) > 1 else original[0][-1:]
    move(endpoint.Source(chains.BASE, backups), place.sink())
    place.seal()


def read(place: Place, folder: pathlib.Path) -> dict[str, chains.Blocks]:
    """Return what a place holds, by the names of the points."""
    kept = endpoint.Sink()
    move(place.source(), kept)
    del folder
    return kept.points[chains.BASE]


def expected(place: Place, original: Original) -> dict[str, chains.Blocks]:
    return {chains.snapshot(number): original[1][number] for number in place.holds}


def is_possible(source: Place, sink: Place) -> bool:
    """Tell whether a command moves that.

    A file that holds points has to be told how many come, which a stream does not; and an rbd
    export has no records of the backups before the last.
    """
    if isinstance(source, Stream):
        return not isinstance(sink, File)
    if isinstance(source, File) and source.is_chain:
        return isinstance(sink, Memory | Cluster)
    return True


def one_point(source: Place, folder: pathlib.Path) -> endpoints.Source:
    """Return the last backup of a place, whole by itself, for a file that holds one point."""
    if isinstance(source, Folder):
        where = source.store()
        contents = catalog.read(where)
        return flatten.Source(where, contents, contents.find(IDS[COUNT - 1]), folder)
    if isinstance(source, Cluster):
        return cluster_source.OneBackup(source.ceph.pool(), chains.backup(COUNT - 1), None)
    if isinstance(source, Memory):
        [chain] = source.source().chains()
        last = chain._backups[-1:]  # type: ignore[attr-defined]
        return endpoint.Source(chains.BASE, last)
    return source.source()


@pytest.mark.parametrize('verify', [False, True])
@pytest.mark.parametrize('to', PLACES)
@pytest.mark.parametrize('out_of', PLACES)
def test_each_pair(
    original: Original, tmp_path: pathlib.Path, out_of: str, to: str, verify: bool
) -> None:
    source, sink = PLACES[out_of](tmp_path / 'a'), PLACES[to](tmp_path / 'b')
    if not is_possible(source, sink):
        pytest.skip('no command moves that')
    fill(source, original)
    origin = source.source() if len(sink.holds) > 1 else one_point(source, tmp_path)
    is_whole = len(source.holds) > 1
    steps = move(origin, sink.sink(), verify and not isinstance(sink, Stream))
    sink.seal()

    # What an rbd export has behind its last point is only passed.
    assert {step.state for step in steps} <= {State.DONE, State.PASSED}
    # Files of chains hold the points before the last one without their records.
    found = read(sink, tmp_path)
    names = [chains.snapshot(n) for n in (sink.holds if is_whole else (COUNT - 1,))]
    assert (found == {name: expected(source, original)[name] for name in names}) is True


@dataclasses.dataclass
class Killed(BaseException):
    """No Exception: nobody can take it for an error."""


def fail() -> None:
    raise errors.CephError('the cluster was lost')


def kill() -> None:
    raise Killed


def wait() -> None:
    time.sleep(0.001)


@pytest.mark.parametrize(
    'fault',
    [
        pytest.param(fail, id='error'),
        pytest.param(kill, id='kill'),
        pytest.param(wait, id='delay', marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize('to', PLACES)
@pytest.mark.parametrize(
    'out_of',
    [
        'memory',
        'cluster',
        'folder',
        'stream',
        *(pytest.param(one, marks=pytest.mark.long) for one in ('object store', 'rbd', 'raw')),
    ],
)
def test_a_fault_at_any_step(
    original: Original, tmp_path: pathlib.Path, out_of: str, to: str, fault: Callable[[], None]
) -> None:
    """The same command again ends as if nothing had been."""
    source = PLACES[out_of](tmp_path / 'a')
    if not is_possible(source, PLACES[to](tmp_path)):
        pytest.skip('no command moves that')
    fill(source, original)
    whole = PLACES[to](tmp_path / 'whole')

    def origin() -> endpoints.Source:
        return source.source() if len(whole.holds) > 1 else one_point(source, tmp_path)

    counting = endpoint.Faulty(-1, fail)
    move(origin(), endpoint.FaultySink(whole.sink(), counting))
    whole.seal()
    wanted = read(whole, tmp_path)
    assert counting.seen > 5

    failed: list[int] = []
    numbers = [*range(1, 5), *range(5, counting.seen + 1, max(counting.seen // 6, 1))]
    for number in numbers:
        folder = tmp_path / str(number)
        place, faulty = PLACES[to](folder), endpoint.Faulty(number, fault)
        try:
            move(origin(), endpoint.FaultySink(place.sink(), faulty))
            place.seal()
        except (errors.CephError, Killed):
            failed.append(number)
        if isinstance(place, Cluster):
            place.ceph.forget_clients()
        move(origin(), place.sink())
        place.seal()
        assert (read(place, tmp_path) == wanted) is True, number
        shutil.rmtree(folder, ignore_errors=True)
    assert failed == ([] if fault is wait else numbers)


def test_a_killed_move_goes_on_where_it_stopped(original: Original) -> None:
    """Between two endpoints in memory, so that it is the drive loop that is looked at."""
    backups = original[0]
    undisturbed = endpoint.Sink()
    whole = move(endpoint.Source(chains.BASE, backups), undisturbed)
    kept = endpoint.Sink()
    moved = set()
    for number in range(1, 200, 3):
        sink = endpoint.Sink()
        try:
            move(
                endpoint.Source(chains.BASE, backups),
                endpoint.FaultySink(sink, endpoint.Faulty(number, kill)),
            )
        except Killed:
            steps = move(endpoint.Source(chains.BASE, backups), sink)
            moved.add(sum(step.moved for step in steps))
        assert sink.points == undisturbed.points
        kept = sink
    assert kept.records == undisturbed.records
    assert min(moved) == 0
    assert max(moved) == sum(step.moved for step in whole)
    assert len(moved) > 5


def test_what_starts_nowhere_is_refused(original: Original) -> None:
    sink = endpoint.Sink()
    backups = original[0]
    move(endpoint.Source(chains.BASE, backups[:1]), sink)
    before = {name: dict(points) for name, points in sink.points.items()}
    sink.points[chains.BASE] = {}
    sink.ids[chains.BASE] = {}
    [chain] = endpoint.Source(chains.BASE, backups).chains()
    planned = plan.Plan([plan.ChainPlan(chain, chain.steps(endpoints.Present())[1:])])
    copy.run(planned, sink, job.Job())
    assert 'There is no point' in str(planned.errors()[0])
    assert {step.state for step in planned.steps} == {State.FAILED}
    assert before[chains.BASE]
    assert sink.points[chains.BASE] == {}


def test_what_a_dead_run_left_in_an_archive_is_no_part_of_another(
    original: Original, tmp_path: pathlib.Path
) -> None:
    """An archive cannot be read from the middle of an increment: its segments are put anew."""
    first, second = Folder(tmp_path / 'a'), Folder(tmp_path / 'b')
    fill(first, original)
    move(first.source(), second.sink())
    folder = f'{chains.BASE}/2-{IDS[2]}'
    where = second.store()
    where.delete(f'{folder}/increment.json')
    for number in (0, 7):
        where.put(f'{folder}/{names.segment(number, False)}', b'of a dead run')
    move(first.source(), second.sink())
    assert archives.is_good(where)


def test_a_source_without_identity_begins_anew(
    original: Original, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold something else by now than what a dead run has read of it."""
    monkeypatch.setattr('osc_backup_port.moving.archive_segments._PROOF_LENGTH', 1)
    monkeypatch.setattr('osc_backup_port.archive.manifest.SEGMENT_SIZE', 10_000)
    backups, place = original[0][:1], Folder(tmp_path)
    named = endpoint.Chain.read

    @contextlib.contextmanager
    def nameless(self: Any, step: plan.Step, bounds: limits.Limits) -> Iterator[Any]:
        with named(self, step, bounds) as reading:
            reading.identity = ''
            yield reading

    monkeypatch.setattr(endpoint.Chain, 'read', nameless)
    killed = endpoint.FaultySink(place.sink(), endpoint.Faulty(14, kill))
    with pytest.raises(Killed):
        move(endpoint.Source(chains.BASE, backups), killed)
    assert list(tmp_path.rglob('*.zst'))
    other = dict.fromkeys(backups[0].content, b'?' * fake_ceph.BLOCK)
    changed = dataclasses.replace(backups[0], content=other)
    move(endpoint.Source(chains.BASE, [changed]), place.sink())
    assert list(read(place, tmp_path).values()) == [other]
