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

"""The rbd export format 2: what ``rbd export --export-format 2`` writes."""

import dataclasses
from collections.abc import Iterator

from osc_backup_port import items, model
from osc_backup_port.formats import image_formats, rbd_diff, rbd_export, stream


class _Rbd(image_formats.ImageFormat):
    name = 'rbd'
    holds = image_formats.Holds.CHAIN
    summary = 'the chain up to this backup, with its snapshots, for "rbd import --export-format 2"'
    banners = (rbd_export.BANNER,)

    def read(self, reader: stream.Reader, size: int) -> image_formats.Incoming:
        del size
        export = rbd_export.read(reader)
        return image_formats.Incoming(self.name, export.layout, export.count, export.increments)

    def begin(
        self, writer: stream.Writer, layout: model.ImageLayout, points: int
    ) -> image_formats.ImageWriter:
        return _Writer(writer, layout, points)


class _Writer:
    def __init__(self, writer: stream.Writer, layout: model.ImageLayout, points: int) -> None:
        self._writer = writer
        self._layout = layout
        self._points = points
        self._last: model.Increment | None = None

    def add(self, increment: model.Increment) -> None:
        if self._last is None:
            # Behind the last snapshot comes what HEAD has more: nothing.
            count = self._points + (increment.to_snap is not None)
            self._put(rbd_export.encode(self._layout, count, ()))
        self._put(rbd_diff.encode(items.without_needless_zeros(increment), version=2))
        self._last = dataclasses.replace(increment, items=iter(()))

    def finish(self) -> None:
        last = self._last
        if last is not None and last.to_snap is not None:
            rest = model.Increment(last.to_snap, None, last.size, iter(()))
            self._put(rbd_diff.encode(rest, version=2))
        self._writer.finish()

    def _put(self, pieces: Iterator[bytes]) -> None:
        for piece in pieces:
            self._writer.write(piece)


FORMAT = _Rbd()
