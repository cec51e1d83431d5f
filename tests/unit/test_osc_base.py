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

"""Signals, and streams that are closed or go away."""

import argparse
import io
import logging
import os
import signal
import sys
import time
from typing import Any

import pytest
from osc_lib import exceptions as osc_exceptions

from osc_backup_port import errors
from osc_backup_port.osc import base, progress_bar

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


class Command:
    """What osc-lib's classes do for ours."""

    def __init__(self, action: Any) -> None:
        self.app = argparse.Namespace(stdout=sys.stdout)
        self._action = action

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._action()
        return 0


class Ours(base.CommandMixin, Command):
    pass


def run(action: Any) -> int:
    return Ours(action).run(argparse.Namespace())


@pytest.mark.parametrize('number', STOPPING)
def test_a_signal_is_an_error_that_undoes(number: signal.Signals) -> None:
    undone = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            undone.append(number)

    with pytest.raises(osc_exceptions.CommandError, match=f'Stopped by {number.name}'):
        run(work)
    assert undone == [number]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """nohup does that."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_a_signal_waits_for_a_line_of_the_log() -> None:
    """Whoever is stopped within leaves the lock of the handler held, perhaps."""

    class Signalled(logging.Handler):
        lines = 0

        def emit(self, record: logging.LogRecord) -> None:
            if 'a line' in record.getMessage():
                os.kill(os.getpid(), signal.SIGINT)
                self.lines += 1

    handler = Signalled()
    logging.getLogger().addHandler(handler)
    try:

        def work() -> None:
            logging.getLogger('test').warning('a line')
            time.sleep(10)

        with pytest.raises(osc_exceptions.CommandError, match='Stopped by SIGINT'):
            run(work)
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.lines == 1


def test_a_signal_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a line is not written, because nobody reads it."""
    monkeypatch.setattr(base, '_DEFERRALS', 3)

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if 'a line' in record.getMessage():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)

    handler = Stuck()
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(osc_exceptions.CommandError, match='Stopped by SIGINT'):
            run(lambda: logging.getLogger('test').warning('a line'))
    finally:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize('number', STOPPING)
def test_a_second_signal_without_a_terminal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    undone = []

    def gone(*_args: object) -> int:
        raise OSError(5, 'the terminal has gone')

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            monkeypatch.setattr(base.os, 'write', gone)
            os.kill(os.getpid(), number)
            undone.append(number)

    with pytest.raises(osc_exceptions.CommandError, match='Stopped by'):
        run(work)
    assert undone == [number]


def test_no_stdout_is_told_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(sys, 'stdout', None)
    with pytest.raises(osc_exceptions.CommandError, match='stdout is closed'):
        run(lambda: done.append(1))
    assert not done


def test_a_table_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with open('/dev/full', 'w') as full:
        monkeypatch.setattr(sys, 'stdout', full)
        with pytest.raises(osc_exceptions.CommandError, match='stdout: No space left'):
            run(lambda: full.write('columns'))


def test_no_file_of_ours_gets_the_number_of_stderr() -> None:
    """What is printed there, by a library as well, would be in it."""
    kept = os.dup(2)
    os.close(2)
    try:

        def work() -> None:
            descriptor = os.open(os.devnull, os.O_RDONLY)
            os.close(descriptor)
            assert descriptor > 2

        assert run(work) == 0
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, 'Input/output error')

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize('stderr', [None, Gone()])
def test_progress_goes_on_without_stderr(
    stderr: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'stderr', stderr)
    monkeypatch.setattr(progress_bar, '_LINE_INTERVAL', 0)
    with progress_bar.shown(True) as shown:
        shown.begin('Backup', 10)
        shown.say('A line.')
        shown.advance(5)

    def stopped() -> None:
        with progress_bar.shown(True) as again:
            again.begin('Backup', 10)
            raise errors.Interrupted('Stopped by SIGHUP.')

    with pytest.raises(errors.Interrupted):
        stopped()
