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
from osc_backup_port.moving import chains as pool_chains
from osc_backup_port.moving import create_archive, import_archive, import_stream, verify_archive
from osc_backup_port.records import import_records, rewriting
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
) -> list[create_archive.Step]:
    """Create as the command does; what went wrong is raised."""
    planned = create_all(cinder, cluster, where, wanted, single, level)
    for _id, finding in planned.findings():
        raise finding
    return planned.steps


def create_all(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    where: store.Store,
    wanted: collections.abc.Sequence[str],
    single: bool = False,
    level: int | None = 3,
) -> create_archive.Plan:
    options = create_archive.Options(single, level)
    records = pool_chains.read_records(cinder, wanted, single)
    planned = create_archive.plan(cinder, cluster.pool(), where, records, options)
    create_archive.run(cluster.pool(), where, planned, options, SILENT, chains.BOUNDS)
    return planned


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
) -> list[import_archive.Step]:
    """Import as the command does; a finding is raised."""
    planned = import_all(cinder, cluster, where, wanted, verify)
    for finding in planned.findings():
        raise finding
    return planned.steps


def import_all(
    cinder: FakeCinder,
    cluster: fake_ceph.Cluster,
    where: store.Store,
    wanted: collections.abc.Sequence[str] = (),
    verify: bool = False,
) -> import_archive.Plan:
    contents = catalog.read(where)
    planned = import_archive.plan(cinder, cluster.pool(), contents, wanted, OPTIONS)
    if not planned.records.obstacles:
        import_archive.run(cluster.pool(), where, planned, OPTIONS, SILENT, chains.BOUNDS, verify)
    return planned


def import_stream_(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, content: bytes, verify: bool = False
) -> list[import_archive.Step]:
    """Import as the command does; an error is raised when all is done."""
    steps, found = import_stream_all(cinder, cluster, content, verify)
    for error in found:
        raise error
    return steps


def import_stream_all(
    cinder: FakeCinder, cluster: fake_ceph.Cluster, content: bytes, verify: bool = False
) -> tuple[list[import_archive.Step], list[errors.PortError]]:
    source = tar_stream.Input(io.BytesIO(content))  # type: ignore[arg-type]
    steps, found = [], []
    try:
        for item in import_stream.run(
            cinder, cluster.pool(), source, OPTIONS, SILENT, chains.BOUNDS, verify
        ):
            if isinstance(item, errors.PortError):
                found.append(item)
            else:
                steps.append(item)
    except errors.InvalidInput as error:
        # The stream is read no further, as by the command.
        found.append(error)
    return steps, found


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
