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

"""Chains of backups in a pool in memory, as Cinder leaves them, and what they hold."""

import dataclasses
import io
import os
from typing import Any

from osc_backup_port import errors, model, progress, record, units
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import image_formats, stream
from osc_backup_port.moving import (
    cluster_sink,
    cluster_source,
    copy,
    file_sink,
    file_source,
    job,
    plan,
)
from osc_backup_port.osc import steps
from osc_backup_port.records import import_records
from osc_backup_port.transfer import limits
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit.records import make_record

SIZE = units.GIB
#: Small, so that a chain of a few hundred KiB is many requests.
BOUNDS = limits.Limits(requests=4, request_size=64 * 1024, window=6)
VOLUME = '5172626d-c23c-4563-8493-f34e86758634'
IDS = [f'{number}d49b720-e2ee-41c6-b9c8-a7e292e02962' for number in range(5)]
BASE = f'volume-{VOLUME}.backup.{IDS[0]}'
_TIMES = [f'2026-11-2{number}T00:00:00Z' for number in range(5)]

Blocks = dict[int, bytes]


def backup(number: int = 0, **changes: Any) -> record.BackupRecord:
    """Return the record of one of a chain: the first is full, the others depend on it."""
    fields = {
        'id': IDS[number],
        'volume_id': VOLUME,
        'parent_id': IDS[number - 1] if number else None,
        'service_metadata': f'{{"base": "{BASE}"}}',
        'num_dependent_backups': 0,
        'created_at': _TIMES[number],
    }
    return make_record(**{**fields, **changes})


def snapshot(number: int) -> str:
    return ceph_driver.new_snapshot(backup(number))


@dataclasses.dataclass
class Chain:
    """Backups in the image *name*, and the content of each."""

    cluster: fake_ceph.Cluster
    name: str
    backups: list[record.BackupRecord]
    contents: list[Blocks]


def make_image(
    cluster: fake_ceph.Cluster, name: str = BASE, size: int = SIZE, features: int = 29
) -> rbd.Image:
    ioctx = cluster.connect()
    rbd.RBD().create(ioctx, name, size, features=features)
    return rbd.Image(ioctx, name)


def make_chain(cluster: fake_ceph.Cluster, count: int = 3, name: str = BASE) -> Chain:
    """Make a full backup, and increments that write, overwrite, zero and reach the end."""
    chain = Chain(cluster, name, [], [])
    with make_image(cluster, name) as image:
        stored = cluster.images[name]
        for number in range(count):
            change(stored.content, number)
            image.create_snap(snapshot(number))
            chain.backups.append(backup(number))
            chain.contents.append(stored.content.dump())
    return chain


def change(content: fake_ceph.Content, number: int) -> None:
    fill = bytes([65 + number])
    # Over the edge of an object, again and again a little further.
    content.write(4 * units.MIB - 70_000 + number * 4096, fill * 140_000)
    content.write(units.GIB // 2 + number * 100 * units.KIB, fill * 300_000)
    if number:
        # A whole object, and a part of one.
        content.zero((128 + number - 1) * 4 * units.MIB, 4 * units.MIB)
        content.zero(4 * units.MIB + number * 8192, 10_000)
    content.write((300 + number) * 4 * units.MIB % units.GIB + 5, fill * 1000)
    content.write(units.GIB - 3, fill * 3)
    # For the next one to give back.
    content.write((128 + number) * 4 * units.MIB, fill * 50_000)


def blocks_of(size: int, items: list[model.Item], start: Blocks | None = None) -> Blocks:
    """Return what an image holds after *items*."""
    canvas = fake_ceph.Content(4 * units.MIB)
    for block, data in (start or {}).items():
        canvas.write(block * fake_ceph.BLOCK, data)
    for item in items:
        assert item.offset + item.length <= size
        if isinstance(item, model.Data):
            canvas.write(item.offset, item.data)
        else:
            canvas.zero(item.offset, item.length)
    return canvas.dump()


def blocks_of_file(file: io.FileIO) -> Blocks:
    """Return what is in a raw image, of which the holes are not read."""
    canvas, at, end = fake_ceph.Content(4 * units.MIB), 0, os.fstat(file.fileno()).st_size
    while at < end:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:
            break
        hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
        canvas.write(at, os.pread(file.fileno(), hole - at, at))
        at = hole
    return canvas.dump()


def memory_file() -> io.FileIO:
    return io.FileIO(os.memfd_create('image'), 'r+')


@dataclasses.dataclass
class Result:
    """What became of one backup; the columns of the command."""

    state: str
    image: str
    snapshot: str | None
    format: str
    size: int
    moved: int
    skipped: int
    sha256: str | None
    volume_metadata: str = '-'
    stream_size: int = 0


def export(
    chain: Chain,
    number: int,
    image_format: str,
    base: int | None = None,
    shown: progress.Progress | None = None,
    checksum: bool = False,
    verify: bool = False,
) -> tuple[io.FileIO, Result]:
    """Export one backup of a chain into a file that is in memory."""
    file = memory_file()
    writer = stream.Writer(file, checksum)
    one = image_formats.get(image_format)
    base_id = None if base is None else IDS[base]
    with_chain = one.holds is image_formats.Holds.CHAIN
    source = cluster_source.OneBackup(
        chain.cluster.pool(), chain.backups[number], None, with_chain, base_id
    )
    sink = file_sink.Sink(writer, one, base_id)
    planned = copy.plan(source, sink)
    copy.run(planned, sink, job.Job(shown or progress.Silent(), BOUNDS, verify))
    for error in planned.errors():
        raise error
    file.seek(0)
    [exported] = planned.chains
    point = exported.steps[-1].point
    return file, Result(
        'exported',
        exported.name,
        None if point.is_head else point.name,
        image_format,
        point.size,
        sum(step.moved for step in exported.steps),
        sum(step.skipped for step in exported.steps),
        writer.sha256,
        stream_size=writer.position,
    )


def import_(
    cluster: fake_ceph.Cluster,
    wanted: record.BackupRecord,
    file: io.FileIO,
    parent: record.BackupRecord | None = None,
    shown: progress.Progress | None = None,
    **options: Any,
) -> Result:
    """Import a file from its beginning; *options* as those of the command."""
    shown = shown or progress.Silent()
    file.seek(0)
    info = options.pop('info', None)
    reader = stream.Reader(file, 'the-stream', checksum=info is not None)
    told = options.pop('format', None), info, shown, options.pop('stored_size', 0)
    opened = file_source.recognise(reader, wanted, *told)
    verify = options.pop('verify', False)
    where = file_source.Wanted(wanted, parent, **options)
    planned = import_opened(cluster, opened, where, shown, verify)
    [chain] = planned.chains
    [step] = [one for one in chain.steps if one.point.id == wanted.id]
    return Result(
        steps.data(step, 'imported'),
        chain.name,
        step.point.name,
        opened.format,
        step.point.size,
        sum(one.moved for one in chain.steps),
        sum(one.skipped for one in chain.steps),
        reader.sha256 if step.is_missing else None,
        steps.volume_metadata(step),
    )


def import_opened(
    cluster: fake_ceph.Cluster,
    opened: file_source.File,
    wanted: file_source.Wanted,
    shown: progress.Progress,
    verify: bool = False,
) -> plan.Plan:
    """Do what the command does with a file; the first finding is raised."""
    where = cluster.pool()
    sink = cluster_sink.Sink(where, None, import_records.Options())
    planned = copy.plan(
        file_source.Source(opened, wanted, where.commands), sink, all_or_nothing=True
    )
    obstacles = planned.errors()
    if not obstacles:
        copy.run(planned, sink, job.Job(shown, BOUNDS, verify))
        obstacles = planned.errors()[:1]
    if len(obstacles) > 1:
        raise errors.SomeFailed('Nothing was imported:', obstacles)
    for error in obstacles:
        raise error
    return planned


class Shown:
    """Adds up what an operation tells."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int | None]] = []
        self.lines: list[str] = []
        self.moved = self.skipped = 0

    def begin(self, what: str, total: int | None) -> None:
        self.begun.append((what, total))

    def advance(self, moved: int, skipped: int = 0) -> None:
        self.moved += moved
        self.skipped += skipped

    def say(self, line: str) -> None:
        self.lines.append(line)
