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

"""How much may be under way at once.

Peak memory of a transfer, at the very most:

* 60 MiB for the interpreter and the libraries;
* out of a cluster, ``(window + requests) * request_size``: what was read and
  waits for its turn, and once more, in librados, what is being read;
* into a cluster, ``2 * requests * request_size``: what is being written, and
  librbd's copy of it;
* into or out of an archive, a segment of 8 MiB, and 80 MiB for what is packed or expanded;
  one segment of up to 64 MiB at a time in images beyond 2 TiB (archive/segments.py);
* into or out of a file, one request, and five more while it is hashed.

With the defaults that is 220 MiB for an export, 188 for an import, 204 from
cluster to cluster, 228 and 212 for the two ways of an archive; and some more, as
long as the allocator finds no use for what was given back to it.
doc/source/reference/performance.rst has what was measured.
"""

import dataclasses

from osc_backup_port import units


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a transfer.

    :param requests: operations in flight to the cluster, of each direction
    :param request_size: bytes of the largest of them
    :param window: pieces read or being read that are not delivered yet
    :param rate: bytes of data a second; None: no limit
    """

    requests: int = 16
    request_size: int = 4 * units.MIB
    window: int = 24
    rate: int | None = None

    def shared_by(self, count: int) -> 'Limits':
        """Return limits for each of so many transfers side by side."""
        return dataclasses.replace(
            self,
            requests=max(self.requests // count, 1),
            window=max(self.window // count, 1),
        )


DEFAULT = Limits()
#: Where the memory has to do for more: another cluster, the segments of an archive.
SHARED = DEFAULT.shared_by(2)


def choose(
    requests: int | None = None,
    request_size: int | None = None,
    rate: int | None = None,
    default: Limits = DEFAULT,
) -> Limits:
    """Return limits in which what is None is as it is by default."""
    number = requests or default.requests
    return Limits(
        requests=number,
        request_size=request_size or default.request_size,
        window=number + number // 2,
        rate=rate,
    )
