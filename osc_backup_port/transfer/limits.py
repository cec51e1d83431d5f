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

Peak memory of a transfer, besides the interpreter and librbd (about 100 MiB,
of which 40 are libraries): ``window * request_size`` for what was read and
waits for its turn, and ``requests * request_size`` for what is being written.
With the defaults that is 96 MiB + 64 MiB at the very most when an image is
copied to another; a source or a sink that is a file holds one request, and
five more while it is hashed.  doc/source/reference/performance.rst has what
was measured.
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


DEFAULT = Limits()


def choose(
    requests: int | None = None, request_size: int | None = None, rate: int | None = None
) -> Limits:
    """Return limits in which what is None is as it is by default."""
    number = requests or DEFAULT.requests
    return Limits(
        requests=number,
        request_size=request_size or DEFAULT.request_size,
        window=number + number // 2,
        rate=rate,
    )
