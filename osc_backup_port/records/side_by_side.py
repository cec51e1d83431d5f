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

"""Requests side by side, results in order."""

import collections.abc
import typing

from osc_backup_port import errors, workers
from osc_backup_port.cinder import patience

#: As many as a requests session keeps connections for, less some air.
WORKERS = 8

Item = typing.TypeVar('Item')
Result = typing.TypeVar('Result')


def each(
    function: collections.abc.Callable[[Item], Result],
    items: collections.abc.Sequence[Item],
) -> list[Result | errors.PortError]:
    """Call *function* for each of *items* and return what it returns, in order.

    An error of one takes its place in the list and does not stop the others.

    :raises errors.NotPermitted: for one, so for all; no more are started
    :raises errors.Interrupted: no more are started
    """
    results: list[Result | errors.PortError] = []
    with workers.threads(WORKERS) as pool:
        try:
            for future in [pool.submit(function, item) for item in items]:
                try:
                    results.append(future.result())
                except errors.NotPermitted:
                    raise
                except errors.PortError as error:
                    results.append(error)
        except errors.Interrupted:
            # Those at work may be waiting for a cloud that does not answer.
            patience.stop_waiting()
            raise
    return results
