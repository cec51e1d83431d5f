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

"""Finding what is wrong with an archive, or that nothing is."""

import dataclasses
from collections.abc import Iterator

from osc_backup_port import errors, model, progress
from osc_backup_port.archive import (
    catalog,
    increments,
    manifest,
    names,
    sealed,
    segments,
    tar_stream,
)
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.transfer import metering, ranges, zeros

GOOD = 'good'
DAMAGED = 'damaged'
UNFINISHED = 'unfinished'
NOT_THERE = 'not in the cluster'


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of one backup, or of one folder.

    :ivar result: ``good``, ``damaged``, ``unfinished``, ``not in the cluster``
    """

    image: str
    backup_id: str
    result: str
    problem: errors.PortError | None = None


def run(
    store: archive_store.Store,
    shown: progress.Progress,
    quick: bool,
    pool: ceph_pool.Pool | None = None,
) -> Iterator[Verdict]:
    """Look at every backup in an archive.

    :param quick: see that everything is there and has its size, read no data
    :param pool: compare the data with what is there
    :raises NotFound: there is no archive
    """
    if catalog.read_archive(store) is None:
        catalog.read(store)  # tells that there is none
    for entry in store.entries(''):
        if not names.is_image(entry.name):
            continue
        try:
            image = catalog.read_image(store, entry.name)
        except errors.InvalidInput as error:
            yield Verdict(entry.name, '', DAMAGED, error)
            continue
        if image is not None:
            yield from _verify_image(store, image, shown, quick, pool)


def run_stream(source: tar_stream.Input, shown: progress.Progress) -> Iterator[Verdict]:
    """Look at every backup in a stream.

    :raises InvalidInput: this is no archive, or what cannot be read on
    """
    source.read_archive()
    points: dict[str, set[str | None]] = {}
    for increment in source.increments():
        there = points.setdefault(increment.image, {None})
        described = segments.describe_all(increment.segments(), increment.where)
        arriving = increments.Arriving(increment.where)
        try:
            _layout, head = increment.layout, arriving.begin(described)
            shown.begin(f'Backup {increment.backup_id}', head.size)
            for _item in metering.Meter(shown).watch(arriving.items(), head.size):
                pass
            arriving.check(increment.finish())
            if head.from_snap not in there:
                raise sealed.damaged(
                    increment.where,
                    f'starts from snapshot {head.from_snap}, which no whole increment before it '
                    'leads to',
                )
        except errors.ForgedArchive:
            raise
        except errors.InvalidInput as error:
            yield Verdict(increment.image, increment.backup_id, DAMAGED, error)
            continue
        there.add(head.to_snap)
        yield Verdict(increment.image, increment.backup_id, GOOD)


def _verify_image(
    store: archive_store.Store,
    image: catalog.Image,
    shown: progress.Progress,
    quick: bool,
    pool: ceph_pool.Pool | None,
) -> Iterator[Verdict]:
    for backup in image.backups:
        try:
            if quick:
                _check_sizes(store, backup)
            else:
                _read_all(store, backup, shown)
            found = GOOD if pool is None else _compare(store, backup, pool)
            yield Verdict(image.name, backup.id, found)
        except errors.InvalidInput as error:
            yield Verdict(image.name, backup.id, DAMAGED, error)
    for damage in image.damaged:
        yield Verdict(image.name, damage.backup_id, DAMAGED, damage.error)
    for path in image.unfinished:
        parsed = names.parse_increment(path.split('/')[-1])
        yield Verdict(image.name, parsed[1] if parsed else path, UNFINISHED)


def _check_sizes(store: archive_store.Store, backup: catalog.Backup) -> None:
    sizes = {entry.name: entry.size for entry in store.entries(backup.path)}
    for segment in backup.increment.segments:
        if sizes.get(segment.name) != segment.size:
            found = sizes.get(segment.name, 'nothing')
            raise errors.InvalidInput(
                f'{store.name}/{backup.path}/{segment.name}: {found} bytes are there, expected '
                f'{segment.size}.'
            )


def _read_all(
    store: archive_store.Store, backup: catalog.Backup, shown: progress.Progress
) -> None:
    shown.begin(f'Backup {backup.id}', backup.increment.size)
    meter = metering.Meter(shown)
    for _item in meter.watch(increments.read(store, backup), backup.increment.size):
        pass


def _compare(store: archive_store.Store, backup: catalog.Backup, pool: ceph_pool.Pool) -> str:
    """Compare an increment with the cluster.

    :raises InvalidInput: they differ
    """
    increment = backup.increment
    try:
        with pool.open(backup.image, increment.to_snap) as image:
            if image.size() != increment.size:
                raise _differs(store, backup, f'the image there has {image.size()} bytes')
            covered = ranges.Ranges()
            for item in increments.read(store, backup):
                covered.add(item.offset, item.offset + item.length)
                _compare_item(store, backup, image, item)
            _compare_rest(store, backup, image, covered)
    except errors.NotFound:
        return NOT_THERE
    return GOOD


def _compare_item(
    store: archive_store.Store, backup: catalog.Backup, image: ceph_image.Image, item: model.Item
) -> None:
    for at in range(item.offset, item.offset + item.length, manifest.SEGMENT_SIZE):
        length = min(manifest.SEGMENT_SIZE, item.offset + item.length - at)
        there = image.read(at, length)
        same = there == item.data if isinstance(item, model.Data) else zeros.is_zero(there)
        if not same:
            raise _differs(store, backup, f'bytes {at} to {at + length} differ')


def _compare_rest(
    store: archive_store.Store,
    backup: catalog.Backup,
    image: ceph_image.Image,
    covered: ranges.Ranges,
) -> None:
    """See that the cluster knows of no change that the archive does not."""
    start = backup.increment.from_snap
    if start is not None and start not in {snapshot.name for snapshot in image.snapshots()}:
        return  # removed there since; what the archive has was compared
    for extent in image.extents(start):
        if not extent.exists:
            continue
        for low, high in covered.gaps(extent.offset, extent.offset + extent.length):
            for at in range(low, high, manifest.SEGMENT_SIZE):
                length = min(manifest.SEGMENT_SIZE, high - at)
                if start is not None or not zeros.is_zero(image.read(at, length)):
                    raise _differs(store, backup, f'bytes {at} to {at + length} are only there')


def _differs(
    store: archive_store.Store, backup: catalog.Backup, problem: str
) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{store.name}/{backup.path}: is not what image {backup.image}@'
        f'{backup.increment.to_snap} holds: {problem}.'
    )
