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


"""The variables of an ``openrc`` file, read without running it.

Such a file is a shell script, and so could do anything.  What is understood is what those
that OpenStack's dashboard and its installers write consist of: assignments, ``export``,
``unset``, quotes, comments, and variables of the file itself.  Anything else is refused.
No message shows a value: it may be a password.
"""

import collections.abc
import re

from osc_backup_port import errors

#: Bytes; such a file has one or two thousand.
MAX_SIZE = 64 * 1024

_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_ASSIGNMENT = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)=')
# What the file of the dashboard does with a variable that is empty.
_UNSET_EMPTY = re.compile(
    r'if +\[ +-z +"?\$\{?(\w+)\}?"? +\] *; *then +unset +(\w+) *; *fi *(?:#.*)?'
)
_PLAIN = re.compile(r'[^\s\'"\\$`;&|<>()#]+')
# Between double quotes a backslash is one, but before these.
_ESCAPED_IN_QUOTES = '$`"\\'


class _Unknown(str):
    """The value of a variable that nobody knows before the script runs."""


def parse(text: str, source: str, outside: collections.abc.Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a file sets.

    A variable that it asks the user for is not among them.

    :param source: name of the file, for messages
    :param outside: variables that it may use; those of OpenStack are not taken from there
    :raises errors.InvalidInput: it does more than to set variables
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.replace('\r\n', '\n').split('\n'), 1):
        where = f'{source}: line {number}'
        if (match := _UNSET_EMPTY.fullmatch(line.strip())) and match[1] == match[2]:
            if not variables.get(match[1]):
                variables.pop(match[1], None)
            continue
        for words in _statements(_Line(line, where, variables, outside)):
            _run(words, variables, where)
    return {name: value for name, value in variables.items() if not isinstance(value, _Unknown)}


class _Line:
    """One line, and what a word in it stands for.

    :ivar at: index of the next character
    """

    def __init__(
        self,
        text: str,
        where: str,
        variables: collections.abc.Mapping[str, str],
        outside: collections.abc.Mapping[str, str],
    ) -> None:
        self.text = text
        self.where = where
        self.at = 0
        self._variables = variables
        self._outside = outside

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def word(self) -> str:
        """Read one word, with its quotes taken away and its variables put in."""
        parts: list[str] = []
        while self.next and not self.next.isspace() and self.next != ';':
            parts.append(self._part())
        kind = _Unknown if any(isinstance(part, _Unknown) for part in parts) else str
        return kind(''.join(parts))

    def _part(self) -> str:
        match = _PLAIN.match(self.text, self.at)
        if match:
            self.at = match.end()
            return match[0]
        first = self.next
        self.at += 1
        if first == '#':
            return first  # within a word it begins no comment
        if first == "'":
            end = self._find("'")
            found, self.at = self.text[self.at : end], end + 1
            return found
        if first == '"':
            return self._quoted()
        if first == '\\' and self.next:
            self.at += 1
            return self.text[self.at - 1]
        if first == '$':
            return self._variable()
        raise _refused(self.where, f'has a {first!r}, which could run something')

    def _quoted(self) -> str:
        parts: list[str] = []
        end = self._find('"')
        while self.at < end:
            first = self.next
            self.at += 1
            if first == '\\' and self.next in _ESCAPED_IN_QUOTES:
                parts.append(self.next)
                self.at += 1
                end = self._find('"') if self.at > end else end
            elif first == '`':
                raise _refused(self.where, "has a '`', which could run something")
            else:
                parts.append(self._variable() if first == '$' else first)
        self.at = end + 1
        kind = _Unknown if any(isinstance(part, _Unknown) for part in parts) else str
        return kind(''.join(parts))

    def _find(self, quote: str) -> int:
        end = self.text.find(quote, self.at)
        if end < 0:
            raise _refused(self.where, f'has a {quote} that is not closed on that line')
        return end

    def _variable(self) -> str:
        """Read the name of a variable after its ``$`` and return its value."""
        braces = self.next == '{'
        match = _NAME.match(self.text, self.at + braces)
        if not match or (braces and self.text[match.end() : match.end() + 1] != '}'):
            raise _refused(self.where, 'has a $ that is not followed by the name of a variable')
        self.at = match.end() + braces
        name = match[0]
        if name in self._variables:
            return self._variables[name]
        if name in self._outside and not name.startswith('OS_'):
            return self._outside[name]
        return _Unknown()


def _statements(line: _Line) -> collections.abc.Iterator[list[str]]:
    """Return the words of each statement of a line."""
    words: list[str] = []
    while line.next:
        if line.next.isspace():
            line.at += 1
        elif line.next == '#':
            break
        elif line.next == ';':
            line.at += 1
            yield words
            words = []
        else:
            words.append(line.word())
    yield words


def _run(words: list[str], variables: dict[str, str], where: str) -> None:
    if not words:
        return
    command, rest = words[0], words[1:]
    if command == 'export' or _ASSIGNMENT.match(command):
        for word in rest if command == 'export' else words:
            match = _ASSIGNMENT.match(word)
            if match:
                value = word[match.end() :]
                variables[match[1]] = _Unknown() if isinstance(word, _Unknown) else value
            elif command != 'export' or not _NAME.fullmatch(word):
                raise _refused(where, 'exports what is no variable, or runs a command')
    elif command == 'unset':
        for name in rest:
            variables.pop(name, None)
    elif command == 'read':
        # Its value comes from whoever runs the script.
        variables.update({name: _Unknown() for name in rest[-1:] if _NAME.fullmatch(name)})
    elif command not in ('echo', 'printf') and words not in (['set', '-a'], ['set', '+a']):
        # What is no plain word may be a part of a password.
        what = command if _NAME.fullmatch(command) else 'a command'
        raise _refused(where, f'runs {what}')


def _refused(where: str, what: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{where}: {what}. The file is read and not run; expected only lines such as: '
        'export OS_AUTH_URL=https://cloud.example.org:5000/v3',
        'Write the variables into a file of its own: bash -c ". <file>; env" | grep ^OS_ > '
        '<new file> (quote values with spaces), and protect that file: it has the password.',
    )
