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

from collections.abc import Callable

from osc_backup_port import items
from osc_backup_port.formats import image_formats, rbd_export, stream


class _Rbd:
    name = 'rbd'
    holds = image_formats.Holds.CHAIN
    suffixes = ()
    summary = 'the chain up to this backup, with its snapshots, for "rbd import --export-format 2"'
    banners = (rbd_export.BANNER,)

    def image_size(self, reader: stream.Reader, size: int, may_have: Callable[[int], bool]) -> int:
        del reader, may_have
        return size

    def read(self, reader: stream.Reader, size: int) -> image_formats.Incoming:
        del size
        export = rbd_export.read(reader)
        return image_formats.Incoming(self.name, export.layout, export.count, export.increments)

    def write(self, writer: stream.Writer, image: image_formats.Outgoing) -> None:
        increments = map(items.without_needless_zeros, image.increments)
        for piece in rbd_export.encode(image.layout, image.count, increments):
            writer.write(piece)
        writer.finish()


FORMAT = _Rbd()
