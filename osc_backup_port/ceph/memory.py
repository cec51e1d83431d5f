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

"""How the memory of requests is had and given back."""

import contextlib
import ctypes

_M_ARENA_MAX = -8


def use_one_arena() -> None:
    """Let all threads take memory from one place; before there are many.

    By default each thread of librbd, and of ours, gets a place of its own, and
    what one allocates and another frees goes back to the kernel and comes again,
    page by page: it took half of the CPU time of an import from an archive.
    Where the C library is another one than glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
