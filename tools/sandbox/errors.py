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

"""What can go wrong, said in words meant for the person at the terminal."""

from pathlib import Path


class SandboxError(Exception):
    """Something the user has to know; the message is complete, no traceback is needed."""


class CancelledError(SandboxError):
    """Gave up because something else failed, or the user pressed Ctrl-C."""


class DaemonError(SandboxError):
    """A daemon did not start, did not become ready, or died."""

    def __init__(self, cloud: str, name: str, reason: str, log: Path) -> None:
        super().__init__(f'{cloud}: {name} {reason}\n{last_lines(log)}\nits log: {log}')


def last_lines(log: Path, count: int = 20) -> str:
    """Return the last COUNT lines of LOG, indented; says so when there are none."""
    try:
        text = log.read_text(errors='replace')
    except OSError as error:
        return f'    (no log: {error.strerror})'
    lines = text.splitlines()[-count:]
    return '\n'.join(f'    {line}' for line in lines) or '    (its log is empty)'
