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

"""Text on its way to a terminal.

A name, a record or an archive can come from somebody else, and hold what a terminal obeys:
escape codes, line breaks, marks that turn the direction of the text. Everything that this
package prints goes through :func:`escape`, in this module; a test sees to that.
"""

import collections.abc
import io
import logging
import re
import sys
import typing
import unicodedata

from cliff import columns

from osc_backup_port.archive import secret_url

# Control characters; format characters, as bidirectional and zero-width ones are; what is left
# of bytes of a file name that are no text; separators of lines and of paragraphs.
_OBEYED = frozenset({'Cc', 'Cf', 'Cs', 'Zl', 'Zp'})
# Letters and marks that nobody sees; of E0000 to E0FFF no character is ever shown.
_UNSEEN = frozenset('\u034f\u115f\u1160\u17b4\u17b5\u2065\u3164\uffa0')
_UNSEEN_PLANE = range(0xE0000, 0xE1000)
# They join what stands beside them: emoji, and the letters of scripts without upper case.
_JOINERS = frozenset('\u200c\u200d')
_JOINED = frozenset({'Lo', 'Mn', 'Mc', 'So', 'Sk'})

_OURS = __name__.partition('.')[0]
# What cliff writes exactly, and escapes by itself. All others are escaped here.
_EXACT_FORMATS = frozenset({'json', 'yaml'})


class Writer(typing.Protocol):
    """A text stream."""

    def write(self, text: str, /) -> object: ...


def escape(text: str) -> str:
    r"""Return *text* as one line in which nothing is obeyed by a terminal, or hidden.

    What is harmless stays as it is: letters of all scripts, emoji, and the backslash, so that
    to escape twice is to escape once. All else becomes what Python would write: ``\x1b``.
    """
    if text.isascii() and text.isprintable():
        return text
    return ''.join(
        char if _is_harmless(text, place) else _code(char) for place, char in enumerate(text)
    )


def _is_harmless(text: str, place: int) -> bool:
    char = text[place]
    if char in _JOINERS:
        beside = text[max(place - 1, 0) : place] + text[place + 1 : place + 2]
        return len(beside) == 2 and all(unicodedata.category(one) in _JOINED for one in beside)
    if char in _UNSEEN or ord(char) in _UNSEEN_PLANE:
        return False
    return unicodedata.category(char) not in _OBEYED


def _code(char: str) -> str:
    if '\udc80' <= char <= '\udcff':
        # One byte of a file name, as os.fsdecode() hands it on.
        return f'\\x{ord(char) & 0xFF:02x}'
    return char.encode('unicode_escape').decode()


def escape_lines(lines: collections.abc.Iterable[str]) -> str:
    """Return *lines*, whose breaks are our own, as one text."""
    return '\n'.join(map(escape, lines))


def write_line(stream: Writer, line: str) -> None:
    """Write *line*, and end it."""
    stream.write(f'{escape(line)}\n')


def cell(value: object, formatter: str) -> object:
    """Return what a formatter of cliff is to print for *value*."""
    if formatter in _EXACT_FORMATS:
        return value
    if isinstance(value, columns.FormattableColumn):
        is_for_people = formatter == 'table'
        value = value.human_readable() if is_for_people else value.machine_readable()
    if value is None or isinstance(value, (int, float)):
        return value
    text = escape(str(value))
    # cliff puts it between double quotes, in which a shell would still run "$(...)".
    return re.sub(r'[\\$`]', r'\\\g<0>', text) if formatter == 'shell' else text


def heading(name: str, formatter: str) -> str:
    """Return what a formatter of cliff is to call a column."""
    if formatter in _EXACT_FORMATS:
        return name
    if formatter == 'shell':
        # The fields of a record are columns, too.
        return re.sub(r'[^A-Za-z0-9_]', '_', name)
    return escape(name)


def accept_all_letters() -> None:
    """Let stdout print what its encoding does not have, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def guard_logs(urls: collections.abc.Iterable[str] = ()) -> None:
    """Escape what is logged from now on, by whatever library.

    :param urls: ones that were typed; what is secret in them is hidden. With --debug osc-lib
        logs the arguments of a command, and a library the URLs that it opens.
    """
    urls = frozenset(urls)
    for handler in logging.getLogger().handlers:
        guard = handler.formatter
        if not isinstance(guard, _Escaping):
            guard = _Escaping(guard or logging.Formatter())
            handler.setFormatter(guard)
        guard.urls = urls


class _Escaping(logging.Formatter):
    """Formats as another one does. The lines of others stay; a message of ours is one line."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.urls: frozenset[str] = frozenset()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        if record.name.partition('.')[0] == _OURS:
            record = logging.makeLogRecord({**vars(record), 'msg': escape(record.getMessage())})
            record.args = None
        text = self._inner.format(record)
        for url in self.urls:
            text = secret_url.hide(text, url)
        return escape_lines(text.split('\n'))
