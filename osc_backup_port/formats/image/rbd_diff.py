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

"""The rbd diff format 1: what ``rbd export-diff`` writes and ``rbd import-diff`` reads."""

from collections.abc import Iterator

from osc_backup_port import items, model
from osc_backup_port.formats import image_formats, rbd_diff, stream


class _RbdDiff(image_formats.OneIncrement):
    name = 'rbd-diff'
    summary = 'this backup, or the way to it from another, for "rbd import-diff"'
    banners = tuple(rbd_diff.BANNERS.values())

    def read(self, reader: stream.Reader, size: int) -> image_formats.Incoming:
        del size
        return image_formats.Incoming(self.name, None, 1, _read(reader))

    def write(self, writer: stream.Writer, increment: model.Increment) -> None:
        for piece in rbd_diff.encode(items.without_needless_zeros(increment)):
            writer.write(piece)
        writer.finish()


def _read(reader: stream.Reader) -> Iterator[model.Increment]:
    yield rbd_diff.read(reader)


FORMAT = _RbdDiff()
