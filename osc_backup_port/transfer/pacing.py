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

"""No faster than somebody allowed."""

import threading
import time
from collections.abc import Callable

#: Seconds of the allowed rate that a pause of the source may be caught up with.
_CREDIT = 1.0


class Pace:
    """Lets bytes by at a rate, on the average of a second and longer.

    May be used by several threads, which share the rate.

    :param rate: bytes a second; None: no limit
    """

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._due: float | None = None
        self._mutex = threading.Lock()

    def passed(self, count: int) -> None:
        """Wait as long as it takes for *count* bytes more to have been in time."""
        if not self._rate or not count:
            return
        with self._mutex:
            now = self._clock()
            if self._due is None:
                self._due = now
            self._due = due = max(self._due, now - _CREDIT) + count / self._rate
        if due > now:
            self._sleep(due - now)
