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

"""How an operation tells how far it is."""

from typing import Protocol


class Progress(Protocol):
    """Told by an operation, shown by whoever called it."""

    def begin(self, what: str, total: int | None) -> None:
        """Start a part of the work of *total* bytes, where that is known."""

    def advance(self, moved: int, skipped: int = 0) -> None:
        """So many bytes more were moved, or found to need no moving."""

    def say(self, line: str) -> None:
        """Tell one line that stays."""


class Silent:
    """Shows nothing."""

    def begin(self, what: str, total: int | None) -> None:
        pass

    def advance(self, moved: int, skipped: int = 0) -> None:
        pass

    def say(self, line: str) -> None:
        pass
