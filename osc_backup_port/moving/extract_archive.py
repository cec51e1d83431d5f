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

"""The bytes of one backup, out of an archive, with no Ceph and no cloud."""

import io
import os
import pathlib
import tempfile
from collections.abc import Iterator

from osc_backup_port import model, progress
from osc_backup_port.archive import catalog, increments
from osc_backup_port.archive import store as archive_store
from osc_backup_port.formats import raw, rbd_diff, stream
from osc_backup_port.moving import image_info
from osc_backup_port.transfer import differing, metering, ranges, zeros

RAW = 'raw'
RBD_DIFF = 'rbd-diff'


def run(
    store: archive_store.Store,
    contents: catalog.Catalog,
    backup: catalog.Backup,
    image_format: str,
    file: io.FileIO,
    folder: pathlib.Path,
    shown: progress.Progress,
) -> image_info.ImageInfo:
    """Write the whole content of a backup to a file; return what is to be told of it.

    :param file: new and empty, in a file system that can have sparse files
    :param folder: where there is room for the image once more, for rbd-diff
    :raises InvalidInput: the archive is damaged
    """
    (image,) = [image for image in contents.images if image.name == backup.image]
    way = catalog.path_to(image, backup)
    size = backup.increment.size
    if image_format == RAW:
        _write_sparse(store, way, file, shown)
    else:
        _write_diff(store, way, file, folder, shown)
    file_size = os.fstat(file.fileno()).st_size
    return image_info.ImageInfo(image_format, backup.id, size, file_size, None)


def _write_diff(
    store: archive_store.Store,
    way: list[catalog.Backup],
    file: io.FileIO,
    folder: pathlib.Path,
    shown: progress.Progress,
) -> None:
    size, name = way[-1].increment.size, way[-1].increment.to_snap
    # The records of a diff are in order; those of several increments are not.
    with tempfile.TemporaryFile(dir=folder, buffering=0) as sparse:
        _write_sparse(store, way, sparse, shown)
        sparse.seek(0)
        reader = stream.Reader(sparse, 'the extracted image', checksum=False)
        items = differing.drop_zeros(zeros.split_zeros(raw.read(reader, size)))
        whole = model.Increment(None, name, size, items)
        writer = stream.Writer(file, checksum=False)
        for piece in rbd_diff.encode(whole):
            writer.write(piece)


def _write_sparse(
    store: archive_store.Store,
    way: list[catalog.Backup],
    file: io.FileIO,
    shown: progress.Progress,
) -> None:
    """Write increments to a sparse file, the newest first.

    Older ones fill what is left, so that every byte is written once, and what
    became a hole stays one.
    """
    size = way[-1].increment.size
    shown.begin('Extracting', sum(step.increment.size for step in way))
    covered = ranges.Ranges()
    meter = metering.Meter(shown)
    smallest = size
    for step in reversed(way):
        smallest = min(smallest, step.increment.size)
        seen = ranges.Ranges()
        for item in meter.watch(increments.read(store, step), step.increment.size):
            seen.add(item.offset, item.offset + item.length)
            if isinstance(item, model.Data):
                for piece in _uncovered(item, covered, smallest):
                    os.pwrite(file.fileno(), piece.data, piece.offset)
        for start, end in seen:
            covered.add(start, end)
    os.ftruncate(file.fileno(), size)


def _uncovered(item: model.Data, covered: ranges.Ranges, limit: int) -> Iterator[model.Data]:
    """Yield what no newer increment has written.

    :param limit: what lay behind it was cut off, when the image was shrunk
    """
    end = min(item.offset + item.length, limit)
    for low, high in covered.gaps(item.offset, end):
        yield model.Data(low, item.data[low - item.offset : high - item.offset])
