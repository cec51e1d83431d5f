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
import hashlib
import io
import json
import pathlib
import sys
import typing
import uuid

from osc_backup_port import progress, record
from osc_backup_port.ceph import cluster

SERVICE = 'cinder.backup.drivers.ceph.CephBackupDriver'


class Cinder:
    """A Block Storage service that knows the records it is told, and takes any."""

    def __init__(self, records: list[record.BackupRecord]) -> None:
        self._records = {item.id: item for item in records}
        self._imported: dict[str, record.BackupRecord] = {}

    @property
    def project(self) -> None:
        return None

    @property
    def cloud(self) -> typing.Any:
        from osc_backup_port.cinder import resources

        return resources.Cloud()

    def check_project(self) -> None:
        pass

    def check_import(self) -> None:
        pass

    def driver(self) -> None:
        return None

    def in_project(self, name_or_id: str, domain: str | None = None) -> typing.Any:
        raise NotImplementedError

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
    where = cluster.Settings(options.conf, options.user)
    with cluster.open_pool(where, options.pool) as pool:
        globals()[f'_{options.verb}'](pool, records, options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ('conf', 'user', 'pool', 'verb', 'chain'):
        parser.add_argument(name)
    parser.add_argument('--format', default='raw')
    parser.add_argument('--from-first', action='store_true')
    parser.add_argument('--file', default='-')
    parser.add_argument('--checksum', action='store_true')
    parser.add_argument('--to', nargs=2)
    parser.add_argument('--count', type=int)
    parser.add_argument('--limit-rate', type=int)
    return parser.parse_args()


def _export(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port import files
    from osc_backup_port.formats import stream
    from osc_backup_port.moving import export_image
    from osc_backup_port.transfer import limits

    bounds = limits.choose(rate=options.limit_rate)
    base = records[0].id if options.from_first else None
    plan = export_image.plan(pool, records[-1], None, options.format, base)

    def write(file: io.RawIOBase) -> None:
        writer = stream.Writer(file, options.checksum)
        export_image.run(pool, plan, writer, progress.Silent(), bounds)

    if options.file == '-':
        write(io.FileIO(1, 'w', closefd=False))
    else:
        with files.new_file(pathlib.Path(options.file), replace=True) as file:
            write(file)


def _import(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.formats import stream
    from osc_backup_port.moving import import_image

    source = io.FileIO(0 if options.file == '-' else options.file)
    reader = stream.Reader(source, options.file, options.checksum)
    chosen, shown = import_image.Options(format=options.format), progress.Silent()
    stream_ = import_image.recognise(reader, records[-1], chosen, shown)
    import_image.run(pool, records[-1], None, stream_, chosen, shown)


def _archive(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.archive import store
    from osc_backup_port.moving import chains, create_archive

    chosen, target = create_archive.Options(), store.Folder(pathlib.Path(options.file))
    cinder = Cinder(records)
    found = chains.read_records(cinder, [item.id for item in records], False)
    planned = create_archive.plan(cinder, pool, target, found, chosen)
    create_archive.run(pool, target, planned, chosen, progress.Silent())
    _raise_first([error for _id, error in planned.findings()])


def _unarchive(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.archive import catalog, store
    from osc_backup_port.moving import import_archive
    from osc_backup_port.records import import_records, rewriting

    source, cinder = store.Folder(pathlib.Path(options.file)), Cinder([])
    chosen = import_records.Options(changes=rewriting.Rewriting(ceph_pool=pool.name))
    planned = import_archive.plan(cinder, pool, catalog.read(source), [], chosen)
    import_archive.run(pool, source, planned, chosen, progress.Silent())
    _raise_first(planned.findings())


def _many(pool: Any, records: Any, options: Any) -> None:
    """Write an archive of one chain of *count* small backups."""
    from osc_backup_port import model
    from osc_backup_port.archive import manifest, names, segments, store
    from osc_backup_port.formats import rbd_diff, record_file

    target, (first, *_) = store.Folder(pathlib.Path(options.file)), records
    image, stamp, last = first.base_image, '2024-01-01T00:00:00Z', None
    target.put(names.ARCHIVE, manifest.encode_archive(manifest.Archive(first.id, stamp)))
    layout = model.ImageLayout(first.size << 30)
    target.put(f'{image}/{names.IMAGE}', manifest.encode_image(layout))
    for number in range(options.count):
        own = str(uuid.uuid5(uuid.UUID(first.id), str(number))) if number else first.id
        parent = last.split('.')[1] if last else None
        path = f'{image}/{names.increment(number, own)}'
        raw = record_file.write_record(first.with_changes(id=own, parent_id=parent)).encode()
        target.put(f'{path}/{names.RECORD}', raw)
        point = f'backup.{own}.snap.{1700000000 + number}.25'
        increment = model.Increment(last, point, layout.size, iter(()))
        pieces = (rbd_diff.encode_header(increment), rbd_diff.END)

        def put(packed: segments.Packed, path: str = path) -> None:
            target.put(f'{path}/{packed.segment.name}', packed.content)

        made = tuple(segments.pack([pieces], 3, put))
        digest = hashlib.sha256(raw).hexdigest()
        info = manifest.Increment(own, number, last, point, layout.size, made, digest, None, stamp)
        target.put(f'{path}/{names.INCREMENT}', manifest.encode_increment(info))
        last = point


def _list(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.archive import catalog, store

    found = catalog.read(store.Folder(pathlib.Path(options.file)))
    for backup in found.backups():
        print(backup.id, backup.record.display_name, backup.increment.stored_size)


def _migrate(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.moving import chains, migrate
    from osc_backup_port.records import import_records, rewriting

    conf, name = options.to
    chosen = import_records.Options(changes=rewriting.Rewriting(ceph_pool=name))
    with cluster.open_pool(cluster.Settings(conf, options.user), name) as target:
        clouds = migrate.Clouds(pool, target, Cinder([]))
        cinder = Cinder(records)
        found = chains.read_records(cinder, [item.id for item in records], False)
        planned = migrate.plan(cinder, clouds, found, False, chosen)
        migrate.run(clouds, planned, chosen, False, progress.Silent())
        _raise_first(planned.findings())


def _raise_first(findings: list[typing.Any]) -> None:
    if findings:
        raise findings[0]


if __name__ == '__main__':
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])
    main()
