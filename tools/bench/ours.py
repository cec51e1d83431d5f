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


def _move(source: Any, sink: Any, bounds: Any = None) -> None:
    from osc_backup_port.moving import copy, job
    from osc_backup_port.transfer import limits

    planned = copy.plan(source, sink)
    copy.run(planned, sink, job.Job(bounds=bounds or limits.SHARED))
    for error in planned.errors():
        raise error


def _export(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port import files
    from osc_backup_port.formats import image_formats, stream
    from osc_backup_port.moving import cluster_source, file_sink
    from osc_backup_port.transfer import limits

    base, image_format = records[0].id if options.from_first else None, options.format
    with_chain = image_formats.get(image_format).holds is image_formats.Holds.CHAIN
    source = cluster_source.OneBackup(pool, records[-1], None, with_chain, base)

    def write(file: io.RawIOBase) -> None:
        writer = stream.Writer(file, options.checksum)
        sink = file_sink.Sink(writer, image_formats.get(image_format), base)
        _move(source, sink, limits.choose(rate=options.limit_rate))

    if options.file == '-':
        write(io.FileIO(1, 'w', closefd=False))
    else:
        with files.new_file(pathlib.Path(options.file), replace=True) as file:
            write(file)


def _import(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.formats import stream
    from osc_backup_port.moving import cluster_sink, file_source
    from osc_backup_port.records import import_records
    from osc_backup_port.transfer import limits

    file = io.FileIO(0 if options.file == '-' else options.file)
    reader = stream.Reader(file, options.file, options.checksum)
    opened = file_source.recognise(reader, records[-1], options.format, None, progress.Silent())
    source = file_source.Source(opened, file_source.Wanted(records[-1]), pool.commands)
    sink = cluster_sink.Sink(pool, None, import_records.Options())
    _move(source, sink, limits.DEFAULT)


def _archive(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.archive import store
    from osc_backup_port.moving import archive_sink, cluster_source
    from osc_backup_port.records import wanted_records

    cinder = Cinder(records)
    found = wanted_records.read(cinder, [item.id for item in records])
    source = cluster_source.Source(cinder, pool, found)
    _move(source, archive_sink.Sink(store.Folder(pathlib.Path(options.file))))


def _unarchive(pool: Any, records: Any, options: Any) -> None:
    from osc_backup_port.archive import catalog, store
    from osc_backup_port.moving import archive_source, cluster_sink
    from osc_backup_port.records import import_records, rewriting

    where = store.Folder(pathlib.Path(options.file))
    chosen = import_records.Options(changes=rewriting.Rewriting(ceph_pool=pool.name))
    source = archive_source.Source(where, catalog.read(where))
    _move(source, cluster_sink.Sink(pool, Cinder([]), chosen))


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
    from osc_backup_port.moving import cluster_sink, cluster_source
    from osc_backup_port.records import import_records, rewriting, wanted_records

    conf, name = options.to
    chosen = import_records.Options(changes=rewriting.Rewriting(ceph_pool=name))
    with cluster.open_pool(cluster.Settings(conf, options.user), name) as target:
        cinder = Cinder(records)
        found = wanted_records.read(cinder, [item.id for item in records])
        source = cluster_source.Source(cinder, pool, found)
        _move(source, cluster_sink.Sink(target, Cinder([]), chosen))


if __name__ == '__main__':
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])
    main()
