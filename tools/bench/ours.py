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

"""One operation of ours, as its command calls it, in a process of its own.

It leaves out what every command of ``openstack`` costs before ours begins: the shell's start
and the way to Keystone and Cinder.  Records are made up instead of asked for.

Usage: ours.py CONF USER POOL VERB CHAIN OPTIONS
"""

import argparse
import io
import json
import pathlib
import sys
import typing

from osc_backup_port import progress, record
from osc_backup_port.ceph import cluster
from osc_backup_port.transfer import limits

SERVICE = 'cinder.backup.drivers.ceph.CephBackupDriver'


class Cinder:
    """A Block Storage service that knows the records it is told, and takes any."""

    def __init__(self, records: list[record.BackupRecord]) -> None:
        self._records = {item.id: item for item in records}
        self._imported: dict[str, record.BackupRecord] = {}

    def export_record(self, backup_id: str) -> record.BackupRecord:
        return self._records[backup_id]

    def get(self, backup_id: str) -> typing.Any:
        from osc_backup_port import errors

        raise errors.NotFound(f'Backup {backup_id}: not there.')

    def room(self) -> typing.Any:
        from osc_backup_port.cinder import resources

        return resources.Room()

    def import_record(self, item: record.BackupRecord) -> str:
        self._imported[item.id] = item
        return item.id

    def wait(self, backup_id: str, timeout: float) -> typing.Any:
        from osc_backup_port.cinder import resources

        item = self._imported[backup_id]
        return resources.Backup(backup_id, 'available', item.volume_id, item.size)

    def delete(self, backup_id: str, timeout: float) -> None:
        raise NotImplementedError


Any = typing.Any


def main() -> None:
    options = _parse()
    urls = json.loads(options.chain)
    records = [record.BackupRecord.decode(SERVICE, url) for url in urls]
    bounds = limits.Limits(requests=options.requests) if options.requests else limits.DEFAULT
    where = cluster.Settings(options.conf, options.user)
    with cluster.open_pool(where, options.pool) as pool:
        globals()[f'_{options.verb}'](pool, records, options, bounds)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ('conf', 'user', 'pool', 'verb', 'chain'):
        parser.add_argument(name)
    parser.add_argument('--format', default='raw')
    parser.add_argument('--from-first', action='store_true')
    parser.add_argument('--file', default='-')
    parser.add_argument('--checksum', action='store_true')
    parser.add_argument('--requests', type=int)
    parser.add_argument('--to', nargs=2)
    return parser.parse_args()


def _export(pool: Any, records: Any, options: Any, bounds: Any) -> None:
    from osc_backup_port import files
    from osc_backup_port.formats import stream
    from osc_backup_port.operations import export_image

    base = records[0].id if options.from_first else None
    plan = export_image.plan(pool, records[-1], None, options.format, base)

    def write(file: io.RawIOBase) -> None:
        writer = stream.Writer(file, options.checksum)
        export_image.run(pool, plan, writer, progress.Silent(), bounds)

    if options.file == '-':
        write(io.FileIO(1, 'w', closefd=False))
    else:
        with files.part_file(pathlib.Path(options.file)) as file:
            write(file)


def _import(pool: Any, records: Any, options: Any, bounds: Any) -> None:
    from osc_backup_port.formats import stream
    from osc_backup_port.operations import import_image

    source = io.FileIO(0 if options.file == '-' else options.file)
    reader = stream.Reader(source, options.file, options.checksum)
    import_image.run(
        pool, records[-1], None, reader, import_image.Options(), progress.Silent(), bounds
    )


def _archive(pool: Any, records: Any, options: Any, bounds: Any) -> None:
    from osc_backup_port.archive import store
    from osc_backup_port.operations import create_archive

    chosen, target = create_archive.Options(), store.Folder(pathlib.Path(options.file))
    ids = [item.id for item in records]
    plans = create_archive.plan(Cinder(records), pool, target, ids, chosen)
    create_archive.run(pool, target, plans, chosen, progress.Silent(), bounds)


def _unarchive(pool: Any, records: Any, options: Any, bounds: Any) -> None:
    from osc_backup_port.archive import catalog, store
    from osc_backup_port.operations import import_archive, import_metadata

    source, cinder = store.Folder(pathlib.Path(options.file)), Cinder([])
    chosen = import_metadata.Options(ceph_pool=pool.name)
    planned = import_archive.plan(cinder, pool, catalog.read(source), [], chosen)
    import_archive.run(cinder, pool, source, planned, chosen, progress.Silent(), bounds)
    _raise_first(planned.findings())


def _migrate(pool: Any, records: Any, options: Any, bounds: Any) -> None:
    from osc_backup_port.operations import import_metadata, migrate

    conf, name = options.to
    chosen = import_metadata.Options(ceph_pool=name)
    with cluster.open_pool(cluster.Settings(conf, options.user), name) as target:
        clouds = migrate.Clouds(pool, target, Cinder([]))
        ids = [item.id for item in records]
        planned = migrate.plan(Cinder(records), clouds, ids, False, chosen)
        migrate.run(clouds, planned, chosen, False, progress.Silent())
        _raise_first(planned.findings())


def _raise_first(findings: list[typing.Any]) -> None:
    if findings:
        raise findings[0]


if __name__ == '__main__':
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])
    main()
