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

"""Threads that have ended when their block has."""

import concurrent.futures
import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def threads(count: int) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Give threads that work until the block ends, however it ends.

    What has not begun by then is cancelled; what has is waited for.  So a thread never
    outlives what it uses: a lock, an open image, a file.
    """
    pool = concurrent.futures.ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except BaseException:
            # A signal ended the waiting.
            pool.shutdown(cancel_futures=True)
            raise
