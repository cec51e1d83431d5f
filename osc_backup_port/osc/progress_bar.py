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
import logging
import sys
import threading
import time
import typing

from osc_backup_port import progress, units
from osc_backup_port.osc import terminal

#: Seconds between two lines where there is no terminal.
_LINE_INTERVAL = 10.0


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--no-progress', action='store_true', help='Show no progress on stderr')


@contextlib.contextmanager
def shown(wanted: bool) -> collections.abc.Iterator[progress.Progress]:
    """Show progress until the block ends.

    :param wanted: False: only what is said, nothing that moves
    """
    if wanted and _Stderr().isatty():
        bar = _Bar()
        with _logs_above(bar), bar.display:
            yield bar
    else:
        lines = _Lines(_LINE_INTERVAL if wanted else None)
        yield lines
        lines.end()


@contextlib.contextmanager
def _logs_above(bar: '_Bar') -> collections.abc.Iterator[None]:
    """Print what is logged to stderr above the bar, not into it."""
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr
    ]
    stderr = sys.stderr
    for handler in handlers:
        handler.setStream(_Above(bar))
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(stderr)


class _Above:
    """A stream whose lines, each written as a whole, go above the bar."""

    def __init__(self, bar: '_Bar') -> None:
        self._bar = bar

    def write(self, text: str) -> None:
        for line in text.removesuffix('\n').split('\n'):
            self._bar.say(line)

    def flush(self) -> None:
        """Do nothing: a line is printed when it is written."""


class _Stderr:
    """stderr as it is now, where it is there: that it has gone is no reason to stop."""

    def __init__(self) -> None:
        self._file = sys.stderr
        self.encoding: str = getattr(self._file, 'encoding', None) or 'utf-8'

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if self._file is not None:
                self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._file is not None:
                self._file.flush()

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self._file is not None and self._file.isatty()
        return False


class _Count:
    """How far one part of the work is; each part begins at nothing.

    Several threads may advance it.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        clock: collections.abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.total = total
        self.moved = self.skipped = 0
        self._clock = clock
        self._started = clock()
        self._mutex = threading.Lock()

    def advance(self, moved: int, skipped: int) -> None:
        with self._mutex:
            self.moved += moved
            self.skipped += skipped

    @property
    def done(self) -> int:
        return self.moved + self.skipped

    @property
    def seconds(self) -> float:
        return max(self._clock() - self._started, 0.001)

    @property
    def rate(self) -> str:
        """What was moved in a second, on average; what was skipped took no moving."""
        return f'{units.human_size(self.moved / self.seconds)}/s'

    def __str__(self) -> str:
        share = f' of {units.human_size(self.total)}' if self.total else ''
        return (
            f'{self.what}: {units.human_size(self.done)}{share}, '
            f'{units.human_size(self.moved)} moved at {self.rate}, '
            f'{units.human_size(self.skipped)} skipped{self._time_left()}'
        )

    def _time_left(self) -> str:
        if not self.total or not 0 < self.done < self.total:
            return ''
        return f', {self.seconds * (self.total - self.done) / self.done:.0f} s left'


class _Lines:
    """One line each few seconds, for logs.

    :param interval: seconds; None: only what is said
    """

    def __init__(
        self,
        interval: float | None,
        clock: collections.abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._next = 0.0
        self._count: _Count | None = None

    def begin(self, what: str, total: int | None) -> None:
        self.end()
        self._count = _Count(what, total, self._clock)
        self._next = self._clock() + (self._interval or 0)

    def advance(self, moved: int, skipped: int = 0) -> None:
        if self._count is None:
            return
        self._count.advance(moved, skipped)
        if self._interval is not None and self._clock() >= self._next:
            self._next = self._clock() + self._interval
            self.say(str(self._count))

    def say(self, line: str) -> None:
        terminal.write_line(_Stderr(), line)

    def end(self) -> None:
        if self._interval is not None and self._count is not None:
            self.say(str(self._count))


class _Bar:
    """A bar with bytes, rate and time left; a line remains of each part that is over."""

    def __init__(self, clock: collections.abc.Callable[[], float] = time.monotonic) -> None:
        # Imported here: `openstack --help` loads this module and shows no bar.
        import rich.console
        import rich.progress as rich_progress

        self.display = rich_progress.Progress(
            # No markup: "[red]" can be a part of a name.
            rich_progress.TextColumn('{task.description}', markup=False),
            rich_progress.BarColumn(),
            rich_progress.DownloadColumn(binary_units=True),
            rich_progress.TextColumn(
                '{task.fields[moved]} moved, {task.fields[rate]}, {task.fields[skipped]} skipped'
            ),
            rich_progress.TimeRemainingColumn(),
            console=rich.console.Console(file=typing.cast(typing.TextIO, _Stderr())),
        )
        self._clock = clock
        self._task: typing.Any = None
        self._count: _Count | None = None

    def begin(self, what: str, total: int | None) -> None:
        if self._count is not None:
            self.say(str(self._count))
            self.display.remove_task(self._task)
        self._count = _Count(what, total, self._clock)
        self._task = self.display.add_task(
            terminal.escape(what), total=total, **self._fields(self._count)
        )

    def advance(self, moved: int, skipped: int = 0) -> None:
        if self._count is None:
            return
        self._count.advance(moved, skipped)
        self.display.update(self._task, completed=self._count.done, **self._fields(self._count))

    def say(self, line: str) -> None:
        # Not wrapped: there may be a command to copy in it.
        self.display.console.print(
            terminal.escape(line), markup=False, highlight=False, emoji=False, soft_wrap=True
        )

    def _fields(self, count: _Count) -> dict[str, typing.Any]:
        return {
            'moved': units.human_size(count.moved),
            'rate': count.rate,
            'skipped': units.human_size(count.skipped),
        }
