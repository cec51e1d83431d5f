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

"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

import argparse
import collections.abc
import contextlib
import sys
import time
import typing

from osc_backup_port import progress, units

#: Seconds between two lines where there is no terminal.
_LINE_INTERVAL = 10.0


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--no-progress', action='store_true', help='Show no progress on stderr')


@contextlib.contextmanager
def shown(wanted: bool) -> collections.abc.Iterator[progress.Progress]:
    """Show progress until the block ends.

    :param wanted: False: only what is said, nothing that moves
    """
    if wanted and sys.stderr.isatty():
        bar = _Bar()
        with bar.display:
            yield bar
    else:
        lines = _Lines(_LINE_INTERVAL if wanted else None)
        yield lines
        lines.end()


class _Lines:
    """One line each few seconds, for logs."""

    def __init__(self, interval: float | None) -> None:
        self._interval = interval
        self._started = self._next = time.monotonic()
        self._what = ''
        self._total: int | None = None
        self._moved = self._skipped = 0

    def begin(self, what: str, total: int | None) -> None:
        self.end()
        self._what, self._total = what, total
        self._moved = self._skipped = 0
        self._started = time.monotonic()
        self._next = self._started + (self._interval or 0)

    def advance(self, moved: int, skipped: int = 0) -> None:
        self._moved += moved
        self._skipped += skipped
        if self._interval is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._print()

    def say(self, line: str) -> None:
        sys.stderr.write(f'{line}\n')

    def end(self) -> None:
        if self._interval is not None and self._what:
            self._print()

    def _print(self) -> None:
        seconds = max(time.monotonic() - self._started, 0.001)
        done = self._moved + self._skipped
        share = f' of {units.human_size(self._total)}' if self._total else ''
        self.say(
            f'{self._what}: {units.human_size(done)}{share}, '
            f'{units.human_size(self._moved)} moved at {units.human_size(self._moved / seconds)}/s'
            f', {units.human_size(self._skipped)} skipped'
            f'{_time_left(done, self._total, seconds)}'
        )


def _time_left(done: int, total: int | None, seconds: float) -> str:
    if not total or not 0 < done < total:
        return ''
    return f', {seconds * (total - done) / done:.0f} s left'


class _Bar:
    """A bar with bytes, rate and time left."""

    def __init__(self) -> None:
        # Imported here: `openstack --help` loads this module and shows no bar.
        import rich.console
        import rich.progress as rich_progress

        self.display = rich_progress.Progress(
            rich_progress.TextColumn('{task.description}'),
            rich_progress.BarColumn(),
            rich_progress.DownloadColumn(binary_units=True),
            rich_progress.TextColumn(
                '{task.fields[moved]} moved, {task.fields[rate]}/s, {task.fields[skipped]} skipped'
            ),
            rich_progress.TimeRemainingColumn(),
            console=rich.console.Console(stderr=True),
        )
        self._task: typing.Any = None
        self._moved = self._skipped = 0
        self._started = time.monotonic()

    def begin(self, what: str, total: int | None) -> None:
        self._started = time.monotonic()
        self._task = self.display.add_task(
            what, total=total, moved='0 B', rate='0 B', skipped='0 B'
        )

    def advance(self, moved: int, skipped: int = 0) -> None:
        if self._task is None:
            return
        self._moved += moved
        self._skipped += skipped
        seconds = max(time.monotonic() - self._started, 0.001)
        self.display.update(
            self._task,
            advance=moved + skipped,
            moved=units.human_size(self._moved),
            rate=units.human_size(self._moved / seconds),
            skipped=units.human_size(self._skipped),
        )

    def say(self, line: str) -> None:
        self.display.console.print(line, markup=False, highlight=False)
