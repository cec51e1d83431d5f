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

"""Archives for tests: made of a pool in memory, read, damaged and imported."""

import collections.abc
import io
import pathlib

import zstandard

from osc_backup_port import errors, progress
from osc_backup_port.archive import catalog, store, tar_stream
from osc_backup_port.formats import image_formats, stream
from osc_backup_port.moving import (
    archive_sink,
    archive_source,
    cluster_sink,
    cluster_source,
    copy,
    file_sink,
    flatten,
    plan,
    stream_source,
    verify_archive,
)
from osc_backup_port.moving import job as job_module
from osc_backup_port.records import import_records, rewriting, wanted_records
from tests.fakes import ceph as fake_ceph
from tests.unit import chains
from tests.unit.fake_cinder import FakeCinder

SILENT = progress.Silent()
OPTIONS = import_records.Options(changes=rewriting.Rewriting('backups'))
META = b'{"version": 2, "volume-base-metadata": {}}'


def expand(frames: bytes) -> bytes:
    """Return what ``zstd -dc`` makes of *frames*."""
    with zstandard.ZstdDecompressor().stream_reader(frames, read_across_frames=True) as reader:
        return reader.read()


def with_metadata(chain: chains.Chain) -> FakeCinder:
    """Give a chain its metadata objects; return the cloud that knows its records."""
    for backup in chain.backups:
        chain.cluster.objects[f'backup.{backup.id}.meta'] = META
    return FakeCinder(*chain.backups)


def create(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    where: store.Store,
    wanted: collections.abc.Sequence[str],
    single: bool = False,
    level: int | None = 3,
    verify: bool = False,
) -> list[plan.Step]:
    """Create as the command does; what went wrong is raised."""
    planned = create_all(cinder, cluster, where, wanted, single, level, verify)
    for finding in planned.errors():
        raise finding
    return planned.steps


def create_all(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    where: store.Store,
    wanted: collections.abc.Sequence[str],
    single: bool = False,
    level: int | None = 3,
    verify: bool = False,
) -> plan.Plan:
    records = wanted_records.read(cinder, wanted, single)
    source = cluster_source.Source(cinder, cluster.pool(), records, single)
    sink = archive_sink.Sink(where, level)
    planned = copy.plan(source, sink)
    copy.run(planned, sink, job(verify))
    return planned


def job(verify: bool = False) -> job_module.Job:
    return job_module.Job(SILENT, chains.BOUNDS, verify)


def create_stream(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, wanted: collections.abc.Sequence[str]
) -> bytes:
    file = chains.memory_file()
    output = tar_stream.Output(file)
    create(cinder, cluster, output, wanted)
    output.close()
    file.seek(0)
    return file.readall()


def import_(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    where: store.Store,
    wanted: collections.abc.Sequence[str] = (),
    verify: bool = False,
) -> list[plan.Step]:
    """Import as the command does; a finding is raised."""
    planned = import_all(cinder, cluster, where, wanted, verify)
    for finding in planned.errors():
        raise finding
    return planned.steps


def import_all(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    where: store.Store,
    wanted: collections.abc.Sequence[str] = (),
    verify: bool = False,
) -> plan.Plan:
    source = archive_source.Source(where, catalog.read(where), wanted)
    sink = cluster_sink.Sink(cluster.pool(), cinder, OPTIONS)
    planned = copy.plan(source, sink)
    copy.run(planned, sink, job(verify))
    return planned


def import_stream_(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, content: bytes, verify: bool = False
) -> list[plan.Step]:
    """Import as the command does; an error is raised when all is done."""
    steps, found = import_stream_all(cinder, cluster, content, verify)
    for error in found:
        raise error
    return steps


def import_stream_all(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, content: bytes, verify: bool = False
) -> tuple[list[plan.Step], list[errors.PortError]]:
    stream = tar_stream.Input(io.BytesIO(content))  # type: ignore[arg-type]
    sink = cluster_sink.Sink(cluster.pool(), cinder, OPTIONS)
    steps: list[plan.Step] = []
    found: list[errors.PortError] = []
    try:
        for planned in copy.run_once(stream_source.Source(stream), sink, job(verify)):
            steps += planned.steps
            found += planned.errors()
    except errors.InvalidInput as error:
        # The stream is read no further, as by the command.
        found.append(error)
    return steps, found


def extract(
    where: store.Store, backup_id: str, image_format: str, file: io.FileIO, folder: pathlib.Path
) -> None:
    """Extract as the command does."""
    contents = catalog.read(where)
    one = None if image_format == 'raw' else folder
    source = flatten.Source(where, contents, contents.find(backup_id), one)
    sink = file_sink.Sink(stream.Writer(file, False), image_formats.get(image_format))
    planned = copy.plan(source, sink)
    copy.run(planned, sink, job())
    for error in planned.errors():
        raise error


def is_good(where: store.Store) -> bool:
    """Tell whether verify has nothing to say."""
    try:
        verdicts = list(verify_archive.run(where, SILENT, quick=False))
    except errors.PortError:
        return False
    return {verdict.result for verdict in verdicts} == {verify_archive.GOOD}


def files(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in root.rglob('*') if path.is_file())


def contents(cluster: fake_ceph.Cluster, name: str = chains.BASE) -> dict[str, chains.Blocks]:
    """Return what each snapshot of an image holds."""
    return {snapshot.name: snapshot.content.dump() for snapshot in cluster.images[name].snapshots}
