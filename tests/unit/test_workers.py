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

"""Threads end before whatever they use goes."""

import threading
import time

import pytest

from osc_backup_port import errors, workers


def test_what_has_begun_is_waited_for_and_the_rest_is_cancelled() -> None:
    done: list[int] = []
    begun = threading.Event()

    def work(number: int) -> None:
        begun.set()
        time.sleep(0.1)
        done.append(number)

    def fail() -> None:
        with workers.threads(1) as pool:
            for number in range(5):
                pool.submit(work, number)
            begun.wait()
            raise errors.PortError('No.')

    with pytest.raises(errors.PortError):
        fail()

    assert done == [0]


def test_a_signal_does_not_end_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    joined = []

    def work() -> None:
        time.sleep(0.2)
        done.set()

    def interrupted() -> None:
        with workers.threads(1) as pool:
            pool.submit(work)
            shutdown = pool.shutdown

            def stop(wait: bool = True, *, cancel_futures: bool = False) -> None:
                joined.append(wait)
                if len(joined) == 1:
                    raise errors.Interrupted('Stopped by SIGTERM.')
                shutdown(wait, cancel_futures=cancel_futures)

            monkeypatch.setattr(pool, 'shutdown', stop)

    with pytest.raises(errors.Interrupted):
        interrupted()

    assert joined == [True, True]
    assert done.is_set()
