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

import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Iterator

from osc_backup_port import errors, model, progress
from osc_backup_port.archive import (
    catalog,
    increments,
    manifest,
    names,
    segments,
    tar_stream,
)
from osc_backup_port.archive import store as archive_store
from osc_backup_port.ceph import image as ceph_image
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.moving import presence
from osc_backup_port.transfer import metering, ranges, zeros

GOOD = 'good'
DAMAGED = 'damaged'
UNFINISHED = 'unfinished'
MISSING = 'missing'
STRAY = 'not part of the archive'
NOT_THERE = 'not in the cluster'

#: Gaps in the numbers of an image that are told; a hostile number may leave many.
_MOST_GAPS = 10


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is known of one backup, or of one folder or file.

    :ivar image: empty for what is missing from the whole archive
    :ivar backup_id: empty for what is of no single backup
    :ivar result: one of the words above; with a problem unless ``good`` or ``not in the cluster``
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
    expected: Collection[str] = (),
) -> Iterator[Verdict]:
    """Look at every backup in an archive.

    :param quick: see that everything is there and has its size, read no data
    :param pool: compare the data with what is there
    :param expected: ids of backups that have to be there
    :raises NotFound: there is no archive
    """
    catalog.read_archive(store)
    present = presence.Presence(store.name)
    for entry in store.entries(''):
        if names.is_image(entry.name):
            yield from _verify_folder(store, entry.name, shown, quick, pool, present)
        elif entry.name != names.ARCHIVE and not _is_of_the_file_system(entry.name):
            yield _stray(store, '', '', entry.name)
    yield from _absent(present, expected)


def _is_of_the_file_system(name: str) -> bool:
    """Tell whether a file system, or what shows it, may have put that into its first folder."""
    return name == 'lost+found' or name.startswith('.')


def run_stream(
    source: tar_stream.Input, shown: progress.Progress, expected: Collection[str] = ()
) -> Iterator[Verdict]:
    """Look at every backup in a stream.

    :param expected: ids of backups that have to be there
    :raises InvalidInput: this is no archive, or what cannot be read on
    """
    source.read_archive()
    present = presence.Presence(source.name)
    try:
        for increment in source.increments():
            yield _verify_increment(increment, shown, present)
    except tar_stream.AT_THE_END:
        present.is_cut = True
        yield from _absent(present, expected)
        raise
    yield from _absent(present, expected)


def _verify_increment(
    increment: tar_stream.IncrementStream, shown: progress.Progress, present: presence.Presence
) -> Verdict:
    image, backup_id = increment.image, increment.backup_id
    described = segments.describe_all(increment.segments(), increment.where)
    arriving = increments.Arriving(increment.where)
    try:
        increment.layout()
        head = arriving.begin(described)
        shown.begin(f'Backup {backup_id}', head.size)
        for _item in metering.Meter(shown).watch(arriving.items(), head.size):
            pass
        present.add(increment.finish(arriving.check))
    except errors.ForgedArchive:
        raise
    except errors.InvalidInput as error:
        present.add_damaged(image, backup_id)
        with contextlib.suppress(*tar_stream.AT_THE_END):
            increment.use_up()
        return Verdict(image, backup_id, DAMAGED if increment.is_finished else UNFINISHED, error)
    return Verdict(image, backup_id, GOOD)


def _absent(present: presence.Presence, expected: Collection[str]) -> Iterator[Verdict]:
    for image, backup_id, error in present.absent(expected):
        yield Verdict(image, backup_id, MISSING, error)


def _verify_folder(
    store: archive_store.Store,
    name: str,
    shown: progress.Progress,
    quick: bool,
    pool: ceph_pool.Pool | None,
    present: presence.Presence,
) -> Iterator[Verdict]:
    """Look at all that is in the folder of an image."""
    try:
        image = catalog.read_image(store, name)
    except errors.InvalidInput as error:
        present.add_damaged(name, '')
        yield Verdict(name, '', DAMAGED, error)
        return
    if image is None or image.is_empty:
        present.add_damaged(name, '')
        yield Verdict(name, '', UNFINISHED, catalog.has_no_increment(f'{store.name}/{name}'))
    if image is not None:
        _tell_of_gaps(store, image, shown)
        yield from _verify_image(store, image, shown, quick, pool, present)
    for entry in store.entries(name):
        is_known = entry.name == names.IMAGE or names.is_note(entry.name)
        if not is_known and not names.parse_increment(entry.name):
            yield _stray(store, name, '', entry.name)


def _verify_image(
    store: archive_store.Store,
    image: catalog.Image,
    shown: progress.Progress,
    quick: bool,
    pool: ceph_pool.Pool | None,
    present: presence.Presence,
) -> Iterator[Verdict]:
    whole: set[str | None] = {None}
    for backup in image.backups:
        try:
            if quick:
                _check_sizes(store, backup)
            else:
                _read_all(store, backup, shown)
            result = GOOD if pool is None else _compare(store, backup, pool)
            _check_start(store, backup, whole)
        except errors.InvalidInput as error:
            present.add_damaged(image.name, backup.id)
            yield Verdict(image.name, backup.id, DAMAGED, error)
        else:
            whole.add(backup.increment.to_snap)
            present.add(backup)
            yield Verdict(image.name, backup.id, result)
        yield from _strays(store, backup)
    for word, found in ((DAMAGED, image.damaged), (UNFINISHED, image.unfinished)):
        for damage in found:
            present.add_damaged(image.name, damage.backup_id)
            yield Verdict(image.name, damage.backup_id, word, damage.error)


def _tell_of_gaps(
    store: archive_store.Store, image: catalog.Image, shown: progress.Progress
) -> None:
    """Tell of numbers that no increment has: no error, as what is not finished may be removed."""
    folders = [backup.increment.folder for backup in image.backups]
    folders += [damage.folder for damage in (*image.damaged, *image.unfinished)]
    there = {parsed[0] for folder in folders if (parsed := names.parse_increment(folder))}
    pairs = itertools.pairwise(sorted({-1, *there}))
    gaps = (number for low, high in pairs for number in range(low + 1, high))
    for number in itertools.islice(gaps, _MOST_GAPS):
        shown.say(
            f'{store.name}/{image.name}: there is no increment {number}. It was removed, or is '
            'lost; nothing that is there builds on it.'
        )


def _check_start(
    store: archive_store.Store, backup: catalog.Backup, whole: Collection[str | None]
) -> None:
    """See that a backup starts from one that was found whole."""
    if backup.increment.from_snap not in whole:
        raise catalog.dangling(f'{store.name}/{backup.path}', backup.increment.from_snap)


def _strays(store: archive_store.Store, backup: catalog.Backup) -> Iterator[Verdict]:
    """Tell of the files beside a backup that belong to none."""
    own = {names.RECORD, names.VOLUME_METADATA, names.INCREMENT}
    own |= {segment.name for segment in backup.increment.segments}
    for entry in store.entries(backup.path):
        # A run that was stopped right behind its commit leaves its notes.
        if entry.name not in own and not names.is_note(entry.name):
            yield _stray(store, backup.path, backup.id, entry.name)


def _stray(store: archive_store.Store, folder: str, backup_id: str, name: str) -> Verdict:
    path = f'{store.name}/{folder}/{name}' if folder else f'{store.name}/{name}'
    error = errors.InvalidInput(
        f'{path}: does not belong to the archive. Nothing reads it.',
        'A run that was stopped may have left it, or somebody put it there: if it is not needed, '
        'remove it.',
    )
    return Verdict(folder.partition('/')[0], backup_id, STRAY, error)


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
