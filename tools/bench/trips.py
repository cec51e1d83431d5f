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

"""How often a client asks the cluster, as its own log of messages says.

The log is the same for whoever uses librados: ours and the peer are counted alike.
"""

import contextlib
import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .place import Cluster

#: To an OSD or a monitor, who answers.  Who asks has a session of its own with each.
_ASKED = re.compile(
    r'^(\S+) \S+ +\d+ -- (\S+) --> .*? -- (osd_op\(\w+\.\d+\.\d+|mon_command|pool_op)(?::(\d+))?'
)
_ANSWERED = re.compile(
    r'^(\S+) \S+ +\d+ -- (\S+) <== .*? ==== (osd_op_reply|mon_command_ack|pool_op_reply)\((\d+)?'
)


def parse(lines: Iterator[str]) -> tuple[int, int]:
    """Return how many requests a log tells of, and how many lie one after the other.

    These are the most of which no two are under way at the same time: what a delay is waited
    for, over and over.
    """
    asked: dict[tuple[str, str, str | None], float] = {}
    spans: list[tuple[float, float]] = []
    count = 0
    for line in lines:
        if found := _ASKED.match(line):
            count += 1
            asked[_key(found)] = _time(found[1])
        elif (found := _ANSWERED.match(line)) and (start := asked.pop(_key(found), 0.0)):
            spans.append((_time(found[1]), start))
    in_line, free = 0, 0.0
    for end, start in sorted(spans):
        if start >= free:
            in_line, free = in_line + 1, end
    return count, in_line


def _key(found: 're.Match[str]') -> tuple[str, str, str | None]:
    kind = found[3][:6]
    return found[2], kind, found[4] if kind == 'osd_op' else None


def _time(text: str) -> float:
    return datetime.datetime.strptime(text, '%Y-%m-%dT%H:%M:%S.%f%z').timestamp()


class Counter:
    """Counts what is asked of some clusters together.

    :ivar found: of each block, in turn: requests, and those one after the other
    """

    def __init__(self, clusters: Sequence[Cluster], folder: Path) -> None:
        self._clusters = clusters
        self._folder = folder
        self.found: list[dict[str, int]] = []

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is asked while the block runs."""
        logs = [self._folder / f'{cluster.cloud}.messages' for cluster in self._clusters]
        with contextlib.ExitStack() as stack:
            for cluster, log in zip(self._clusters, logs, strict=True):
                stack.callback(log.unlink, missing_ok=True)
                stack.enter_context(cluster.logging(log))
            yield
            lines = [line for log in logs if log.exists() for line in _lines(log)]
        requests, in_line = parse(iter(sorted(lines)))
        self.found.append({'requests': requests, 'in_line': in_line})


def _lines(log: Path) -> list[str]:
    with log.open(errors='replace') as file:
        return [line for line in file if ' -- ' in line]
