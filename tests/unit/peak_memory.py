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

"""How much memory this process has taken at most."""

import pathlib
import re


def mebibytes() -> int:
    """Return the peak of the resident memory.

    ``ru_maxrss`` of a process begins with what the one had that started it: a test runner that
    has grown would make every child look large.
    """
    status = pathlib.Path('/proc/self/status').read_text()
    found = re.search(r'VmHWM:\s+(\d+) kB', status)
    assert found, 'the kernel does not tell VmHWM'
    return int(found[1]) >> 10
