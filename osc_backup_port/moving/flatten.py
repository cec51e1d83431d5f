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

"""A point of an archive as a whole, put together of the increments that lead to it.

Newer increments come first, and older ones fill what is left, so that every byte is taken
once, and what became a hole stays one.
"""

import contextlib
import io
import pathlib
import tempfile
import typing
from collections.abc import Generator, Iterator

from osc_backup_port import model
from osc_backup_port.archive import catalog, increments
from osc_backup_port.archive import store as archive_store
from osc_backup_port.formats import raw, stream
from osc_backup_port.moving import archive_source, endpoints, plan
from osc_backup_port.transfer import limits, ranges, zeros


class Source(endpoints.Source):
    """One backup of an archive, whole by itself.

    :param folder: where there is room for the image, to have its items in order; None: any
        order will do
    """

    def __init__(
        self,
        store: archive_store.Store,
        contents: catalog.Catalog,
        backup: catalog.Backup,
        folder: pathlib.Path | None,
    ) -> None:
        self.place = f'archive {store.name}'
        self.failures: list[plan.Finding] = []
        [image] = [image for image in contents.images if image.name == backup.image]
        self._chain = Chain(store, image, backup, folder)

    def chains(self) -> list['Chain']:
        return [self._chain]


class Chain(endpoints.SourceChain):
    """One point, as a chain of nothing else."""

    def __init__(
        self,
        store: archive_store.Store,
        image: catalog.Image,
        backup: catalog.Backup,
        folder: pathlib.Path | None,
    ) -> None:
        self.name = image.name
        self._store = store
        self._layout = image.layout
        self._backup = backup
        self._way = catalog.path_to(image, backup)
        self._folder = folder

    def steps(self, present: endpoints.Present) -> list[plan.Step]:  # noqa: ARG002 - it starts from nothing
        return [plan.Step(archive_source.point_of(self._backup), None)]

    def layout(self) -> model.ImageLayout:
        return self._layout

    @contextlib.contextmanager
    def read(self, step: plan.Step, bounds: limits.Limits) -> Iterator['_Reading']:  # noqa: ARG002 - segments have bounds of their own
        point = step.point
        increment = model.Increment(None, point.name, point.size, iter(()))
        if self._folder is None:
            yield _Reading(increment, self._newest_first(), is_ordered=False)
            return
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as sparse:
            file = typing.cast(io.RawIOBase, sparse)
            writer = stream.Writer(file, checksum=False)
            for item in self._newest_first():
                if isinstance(item, model.Data):
                    writer.write_at(item.offset, item.data)
            writer.resize(point.size)
            sparse.seek(0)
            reader = stream.Reader(file, 'the extracted image', checksum=False)
            items = zeros.split_zeros(raw.read(reader, point.size))
            yield _Reading(increment, items, is_ordered=True)

    def _newest_first(self) -> Iterator[model.Item]:
        """Yield the data of the point, each byte once."""
        covered = ranges.Ranges()
        smallest = self._backup.increment.size
        for backup in reversed(self._way):
            smallest = min(smallest, backup.increment.size)
            seen = ranges.Ranges()
            for item in increments.read(self._store, backup):
                seen.add(item.offset, item.offset + item.length)
                if isinstance(item, model.Data):
                    yield from _uncovered(item, covered, smallest)
            for start, end in seen:
                covered.add(start, end)

    def volume_metadata(self, point: plan.Point) -> bytes | None:  # noqa: ARG002 - there is one
        return self._backup.volume_metadata

    def bytes_to_read(self, step: plan.Step) -> int:  # noqa: ARG002 - there is one
        return sum(backup.increment.stored_size for backup in self._way)

    def bytes_to_write(self, step: plan.Step, exact: bool) -> int:  # noqa: ARG002 - it is not known
        return step.point.size


def _uncovered(item: model.Data, covered: ranges.Ranges, limit: int) -> Iterator[model.Data]:
    """Yield what no newer increment has written.

    :param limit: what lay behind it was cut off, when the image was shrunk
    """
    end = min(item.offset + item.length, limit)
    for low, high in covered.gaps(item.offset, end):
        yield model.Data(low, item.data[low - item.offset : high - item.offset])


class _Reading(endpoints.Reading):
    """The whole point."""

    def __init__(
        self, increment: model.Increment, items: Iterator[model.Item], is_ordered: bool
    ) -> None:
        self.increment = increment
        self.is_ordered = is_ordered
        self._items = items

    def parts(self, first: int, cut: bool) -> Generator[endpoints.Part, None, None]:  # noqa: ARG002 - it is one part
        yield endpoints.Part(self._items, self.increment.size)
