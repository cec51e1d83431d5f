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

"""Waiting for something to become true, with a limit and a way out."""

import threading
import time
from collections.abc import Callable

from .errors import CancelledError

# Set when one thread failed or the user gave up: every other wait ends at once.
cancelled = threading.Event()


def until(missing: Callable[[], str], seconds: float, interval: float = 0.2) -> str:
    """Call MISSING until it returns the empty string, for at most SECONDS.

    Returns what is still missing: the empty string on success. Raises CancelledError when
    another part of the program gave up.
    """
    deadline = time.monotonic() + seconds
    while True:
        what = missing()
        if not what or time.monotonic() > deadline:
            return what
        if cancelled.wait(interval):
            raise CancelledError('cancelled')
