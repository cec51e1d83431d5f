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

"""Free TCP ports on loopback."""

import random
import socket
from collections.abc import Iterable

HOST = '127.0.0.1'

# Below the kernel's default range for outgoing connections (from 32768 on), so that a port
# that is remembered but not in use at the moment is not taken by a passing client.
LOWEST, HIGHEST = 20000, 32000


def is_free(port: int) -> bool:
    """Say whether a server could listen on PORT of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Say whether somebody accepts connections on PORT of loopback."""
    try:
        with socket.create_connection((HOST, port), timeout=2):
            return True
    except OSError:
        return False


def choose(names: Iterable[str], taken: Iterable[int] = ()) -> dict[str, int]:
    """Return a different free port for each of NAMES, none of them in TAKEN.

    Starts at a random place, so that two checkouts that choose at the same moment, before either
    listens, hardly ever choose the same.
    """
    used = set(taken)
    chosen: dict[str, int] = {}
    start = random.randrange(LOWEST, HIGHEST)
    candidates = iter([*range(start, HIGHEST), *range(LOWEST, start)])
    for name in names:
        chosen[name] = next(port for port in candidates if port not in used and is_free(port))
    return chosen
