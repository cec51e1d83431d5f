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

"""Leave when a signal asks for it and the cluster keeps us from answering.

Python answers a signal between two of its own steps.  A call into librbd or librados may
wait for the cluster for minutes, and so may all that has to be cleaned up.  So a thread
hears of signals, too.  It lets everything go its way as long as the clusters answer a small
question; when one does not, it ends the process.  That is safe at any moment: what is half
done is not visible, and the next run finds it.
"""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator

#: Seconds in which a cluster has to answer, and between two questions.
SILENCE = 10.0
_PAUSE = 2.0


@contextlib.contextmanager
def leaving_when_lost() -> Iterator[None]:
    """Watch over a command, which has handlers for the signals that end it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _watch(reader: int) -> None:
    numbers = os.read(reader, 1)
    while numbers:
        silent = _silent_pools()
        if silent:
            _leave(signal.Signals(numbers[0]).name, silent)
        if select.select([reader], [], [], _PAUSE)[0] and not os.read(reader, 1):
            return


def _silent_pools() -> list[str]:
    from osc_backup_port.ceph import cluster

    return cluster.silent_pools(SILENCE)


def _leave(name: str, pools: list[str]) -> None:
    text = (
        f'Stopped by {name}. The cluster of pool {", ".join(pools)} does not answer, so nothing '
        'was cleaned up.\n'
        'When it answers again: run the same command again, which cleans up, or see what is left: '
        'openstack volume backup image check\n'
    )
    os.write(2, text.encode())
    os._exit(1)
