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

"""What every command of ours shares: one place where errors become messages."""

import argparse
import collections.abc
import contextlib
import errno
import importlib.metadata
import io
import logging
import os
import pathlib
import shlex
import signal
import sys
import threading
import time
import types
import typing

from cliff import show
from osc_lib import exceptions as osc_exceptions

from osc_backup_port import errors
from osc_backup_port.osc import terminal, watchdog

LOG = logging.getLogger(__name__)


class CommandMixin:
    """Goes before one of osc-lib's command classes.

    Every error becomes a ``CommandError`` here and nowhere else, and what is
    printed is escaped (see :mod:`~osc_backup_port.osc.terminal`).  A command
    that did a part of its work prints its columns and then tells, through
    :meth:`fail_after_output`, what it could not do: the exit code is 1.
    """

    _failure: errors.PortError | None = None
    app: typing.Any
    auth_required: bool

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)  # type: ignore[misc]
        tell = parser.error
        # It repeats what was typed, which may be the name of a file.
        setattr(parser, 'error', lambda message: tell(terminal.escape(message)))  # noqa: B010
        return parser

    def authenticate(self) -> None:
        """Do now what a command with ``auth_required = False`` put off.

        Such a command can do a part of its work with no cloud at hand.
        """
        self.auth_required = True
        self.app.prepare_to_run_command(self)

    def fail_after_output(self, failure: errors.PortError) -> None:
        """Print the columns first, then *failure*, and make the exit code 1."""
        self._failure = failure

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        form = parsed_args.formatter
        names = tuple(terminal.heading(name, form) for name in column_names)
        if isinstance(self, show.ShowOne):
            data = tuple(terminal.cell(value, form) for value in data)
        else:
            data = [tuple(terminal.cell(value, form) for value in row) for row in data]
        return int(super().produce_output(parsed_args, names, data))  # type: ignore[misc]

    def run(self, parsed_args: argparse.Namespace) -> int:
        terminal.accept_all_letters()
        terminal.guard_logs(_urls_in(parsed_args))
        try:
            _check_streams()
            with _told(self), _signals_as_errors(), watchdog.leaving_when_lost():
                code: int = super().run(parsed_args)  # type: ignore[misc]
                # Now, and not at exit: what cannot be written is an error like any other.
                self.app.stdout.flush()
            if self._failure is not None:
                raise self._failure
            return code
        except errors.Interrupted as stopped:
            hint = 'Run the same command again: completed work is kept.'
            raise osc_exceptions.CommandError(f'{stopped}\n{hint}') from stopped
        except errors.PortError as error:
            text = terminal.escape_lines(error.lines())
            raise osc_exceptions.CommandError(text) from error
        except OSError as error:
            text = terminal.escape(_describe_os_error(error))
            raise osc_exceptions.CommandError(text) from error


class ColumnsBesideData:
    """Goes before a class that prints columns: to stderr where stdout has data."""

    data_on_stdout = False
    app: typing.Any

    def produce_output(
        self,
        parsed_args: argparse.Namespace,
        column_names: collections.abc.Sequence[str],
        data: typing.Any,
    ) -> int:
        stdout = self.app.stdout
        if self.data_on_stdout:
            self.app.stdout = self.app.stderr
        try:
            return int(super().produce_output(parsed_args, column_names, data))  # type: ignore[misc]
        finally:
            self.app.stdout = stdout


def add_image_format(
    parser: argparse.ArgumentParser, text: str = '', default: str | None = 'raw'
) -> None:
    """Add --format; cliff's own, for the columns, stays reachable as -f.

    :param text: what is to be said besides what each format is
    """
    from osc_backup_port.formats import image_formats

    known = {name: image_formats.get(name).summary for name in image_formats.names()}
    told = '; '.join(f'{name}: {summary}' for name, summary in known.items())
    group = parser.add_argument_group('format of the image', conflict_handler='resolve')
    group.add_argument(
        '--format',
        choices=tuple(known),
        dest='image_format',
        default=default,
        help=f'{told}{text}{f" (default: {default})" if default else ""}. The format of the '
        'columns is -f.',
    )


def refuse_to_overwrite(path: pathlib.Path) -> None:
    """:raises Conflict: there is such a file"""
    if os.path.lexists(path):
        raise errors.Conflict(
            f'{path}: is there already.', 'Remove it first, or choose another name.'
        )


def check_folder(path: pathlib.Path) -> None:
    """See that a file can be made, before it takes hours to fill it.

    :raises InvalidInput: there is no such folder, or it may not be written to
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise errors.InvalidInput(
            f'{path}: there is no folder {folder}.',
            f'Make it first: mkdir -p {shlex.quote(str(folder))}',
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.InvalidInput(
            f'{path}: the folder {folder} may not be written to.', 'Choose another folder.'
        )


def open_stdout() -> io.FileIO:
    """Return stdout for data.

    :raises InvalidInput: it is a terminal, or closed
    """
    if sys.stdout is None:
        raise errors.InvalidInput(
            'stdout is closed.', 'Name a file, or pipe the output into a program.'
        )
    if sys.stdout.isatty():
        raise errors.InvalidInput(
            'stdout is a terminal, which the data would garble.',
            'Name a file, or pipe the output into a program.',
        )
    return io.FileIO(sys.stdout.fileno(), 'w', closefd=False)


def open_stdin() -> io.FileIO:
    """Return stdin for data.

    :raises InvalidInput: it is a terminal, or closed
    """
    if sys.stdin is None:
        raise errors.InvalidInput(
            'stdin is closed.', 'Name a file, or pipe a program into this one.'
        )
    if sys.stdin.isatty():
        raise errors.InvalidInput(
            'stdin is a terminal, from which no data can come.',
            'Name a file, or pipe a program into this one.',
        )
    return io.FileIO(sys.stdin.fileno(), closefd=False)


def _check_streams() -> None:
    """See that there is a stdout, and let nothing else get its number, or that of stderr.

    A file that is opened while one of the three is closed would get its number, and then
    all that is printed there.

    :raises InvalidInput: stdout is closed
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    if sys.stdout is None:
        raise errors.InvalidInput(
            'stdout is closed.', 'Let it lead to a terminal, a file or a program; or: >/dev/null'
        )


def _urls_in(parsed_args: argparse.Namespace) -> list[str]:
    """Return the URLs among the arguments of a command."""
    values: list[object] = []
    for value in vars(parsed_args).values():
        values += value if isinstance(value, list) else [value]
    return [value for value in values if isinstance(value, str) and '://' in value]


@contextlib.contextmanager
def _told(command: CommandMixin) -> collections.abc.Iterator[None]:
    """Log when a command begins and ends; not its arguments: a URL may hold a password."""
    name = getattr(command, 'cmd_name', None) or type(command).__name__
    version = 'of unknown version'
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version('osc-backup-port')
    LOG.info('%s: begins, osc-backup-port %s, process %d.', name, version, os.getpid())
    began = time.monotonic()
    how = 'failed'
    try:
        yield
        how = 'ended'
    except errors.Interrupted as stopped:
        LOG.info('%s: %s', name, stopped)
        raise
    finally:
        LOG.info('%s: %s after %.1f s.', name, how, time.monotonic() - began)


def _describe_os_error(error: OSError) -> str:
    try:
        sys.stdout.flush()
        is_broken = error.errno == errno.EPIPE
    except OSError:
        is_broken = True
    if is_broken:
        # Nothing more can be written there; the interpreter would try once
        # more, and complain, when it flushes at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return 'stdout: the program that reads our output has gone away.'
    place = f'{error.filename}: ' if error.filename else 'stdout: ' * is_broken
    return f'{place}{error.strerror or error}'


#: How often, and for how many seconds each time, a signal waits for a line of the log.
_DEFERRALS, _DEFERRAL = 20, 0.05

#: What asks a program to stop: the keyboard, a service manager, a terminal that goes.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def _signals_as_errors() -> collections.abc.Iterator[None]:
    """Turn the first signal that asks us to stop into ``Interrupted``.

    What is half done is undone while the exception travels.  A second
    signal is only answered, so that it does not cut that short; the third
    does what it always did.  One that is ignored, as under nohup, stays so.
    """
    seen = deferred = 0

    def handle(number: int, frame: types.FrameType | None) -> None:
        nonlocal seen, deferred
        if seen == 0 and deferred < _DEFERRALS and _is_logging(frame):
            deferred += 1
            threading.Timer(_DEFERRAL, os.kill, (os.getpid(), number)).start()
            return
        seen += 1
        name = signal.Signals(number).name
        if seen == 1:
            raise errors.Interrupted(f'Stopped by {name}.')
        # The terminal may be what has gone.
        with contextlib.suppress(OSError):
            if sys.stderr is not None:
                os.write(2, f'{name}: cleaning up; once more to leave at once.\n'.encode())
        signal.signal(number, signal.SIG_DFL)

    old: dict[signal.Signals, typing.Any] = {
        number: signal.signal(number, handle)
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _is_logging(frame: types.FrameType | None) -> bool:
    """Tell whether a line of the log is being written.

    An exception there could leave the lock of a log handler held, and a thread that has to
    renew the lock on an image would wait for it when it logs.
    """
    while frame is not None:
        if frame.f_code.co_filename == logging.__file__:
            return True
        frame = frame.f_back
    return False
