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

"""How a move is made: what every endpoint is handed, in one object."""

import dataclasses
import functools

from osc_backup_port import progress
from osc_backup_port.transfer import limits, pacing


@dataclasses.dataclass(frozen=True)
class Job:
    """How a move is made.

    :ivar shown: told how far it is
    :ivar bounds: of all that is moved at the same time
    :ivar verify: read back what was written, and compare it with what came in
    """

    shown: progress.Progress = dataclasses.field(default_factory=progress.Silent)
    bounds: limits.Limits = limits.SHARED
    verify: bool = False

    @functools.cached_property
    def pace(self) -> pacing.Pace:
        """What holds back the data of the whole job, however many chains are moved."""
        return pacing.Pace(self.bounds.rate)
