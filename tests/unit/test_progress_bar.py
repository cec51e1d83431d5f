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

import io
import logging
import re
import sys
import threading

import pytest
import rich.console

from osc_backup_port import units
from osc_backup_port.osc import progress_bar


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def move(shown: progress_bar._Lines | progress_bar._Bar, clock: Clock, seconds: int) -> None:
    """Move 30 MiB a second, beside as much that is skipped."""
    for _ in range(seconds):
        clock.now += 1
        shown.advance(30 * units.MIB, 30 * units.MIB)


def test_lines_of_each_part_begin_at_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = progress_bar._Lines(10.0, clock)
    for number in range(3):
        lines.begin(f'Backup {number}', units.GIB)
        move(lines, clock, 9)
    lines.end()

    assert capsys.readouterr().err.splitlines() == [
        f'Backup {number}: 540.0 MiB of 1.0 GiB, 270.0 MiB moved at 30.0 MiB/s, '
        '270.0 MiB skipped, 8 s left'
        for number in range(3)
    ]


def test_a_line_comes_each_interval(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress_bar._Lines(10.0, clock)
    lines.begin('Exporting', None)
    move(lines, clock, 25)

    told = capsys.readouterr().err.splitlines()
    assert told == [
        'Exporting: 600.0 MiB, 300.0 MiB moved at 30.0 MiB/s, 300.0 MiB skipped',
        'Exporting: 1.2 GiB, 600.0 MiB moved at 30.0 MiB/s, 600.0 MiB skipped',
    ]


def test_the_bar_of_each_part_begins_at_nothing(clock: Clock) -> None:
    bar = progress_bar._Bar(clock)
    bar.display.live.console = console = rich.console.Console(file=io.StringIO(), width=120)
    for number in range(3):
        bar.begin(f'Backup {number}', units.GIB)
        move(bar, clock, 9)
        (task,) = bar.display.tasks
        assert task.completed == 540 * units.MIB
        assert task.fields == {'moved': '270.0 MiB', 'rate': '30.0 MiB/s', 'skipped': '270.0 MiB'}

    file = console.file
    assert isinstance(file, io.StringIO)
    assert re.findall(r'^Backup \d: .* moved at 30.0 MiB/s', file.getvalue(), re.MULTILINE) == [
        f'Backup {number}: 540.0 MiB of 1.0 GiB, 270.0 MiB moved at 30.0 MiB/s'
        for number in range(2)
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_logged_goes_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, 'stderr', stderr)
    monkeypatch.setenv('TERM', 'xterm')
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        with progress_bar.shown(True) as shown:
            shown.begin('Backup 1', units.GIB)
            assert handler.stream is not stderr
            logging.getLogger('test').warning('Image [red]x[/red]: lock taken.\nAnother line')
        assert handler.stream is stderr
    finally:
        logging.getLogger().removeHandler(handler)
    # At the beginning of a line, from which the bar was wiped before.
    printed = re.sub('\x1b[^A-Za-z]*[A-Za-z]', '', stderr.getvalue())
    assert '\rImage [red]x[/red]: lock taken.\n' in printed
    assert '\rAnother line\n' in printed


def test_threads_may_share_it(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress_bar._Lines(10.0, clock)
    lines.begin('Migrating', 40000)

    def work() -> None:
        for _ in range(10000):
            lines.advance(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.end()

    assert capsys.readouterr().err.startswith('Migrating: 39.1 KiB of 39.1 KiB')


def test_nothing_moves_where_it_is_not_wanted(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = progress_bar._Lines(None, clock)
    lines.begin('Exporting', units.GIB)
    move(lines, clock, 60)
    lines.say('said')
    lines.end()

    assert capsys.readouterr().err == 'said\n'
