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

"""Follow one long word over the lines that it was wrapped into.

Terminals, tables, mails, YAML, quoted strings and logs each put something else at the
end of one line and at the beginning of the next.
"""

import collections.abc
import re

#: Into how many lines a word may be wrapped.
MAX_PIECES = 20_000
#: The widest lines that something wraps words into.  Longer ones were cut by other means.
MAX_WIDTH = 500

# A character of base64, in either alphabet, or one that was escaped: by JSON, in a URL,
# in HTML.
_WORD = rb'(?:[A-Za-z0-9+/_-]|\\{1,8}/|\\{1,8}u002[bBfF]|%2[bBfF]|&\#4[37];)+'
_ESCAPED = re.compile(rb'\\+/|\\+u002[bBfF]|%2[bBfF]|&#4[37];')
_PADDING = re.compile(rb'(?:=3D|=|\\{1,8}u003[dD]|%3[dD]|&\#61;)*')
_STANDARD = bytes.maketrans(b'-_', b'+/')

_FRAME = rb'\xe2[\x94\x95][\x80-\xbf]|\xc2\xa0|\xe2\x80\xa6'
_NEW_LINE = rb'(?:\r*\n|\r(?!\n)|(?:\\{1,8}r)?\\{1,8}n|<w?br\ ?/?>)'
_END_OF_LINE = rb'(?:[\ \t"\'|,;\\]|=(?=\r?\n)|' + _FRAME + rb'|[\ ]\+(?=\r?\n))*?'
_BEGINNING_OF_LINE = rb'(?:[\ \t"\'|>]|' + _FRAME + rb'|[-*\#]\ )*'
# When the line was logged, or its number; then whatever the log says of it.
_LOGGED = rb"""
    (?: [\[(<]? (?:[A-Z][a-z]{2},?\ )? (?:
            (?:\d{4}[-/]\d\d[-/]\d\d[T\ ])? \d\d:\d\d:\d\d (?:[.,]\d{1,9})?
            (?:Z|\ ?[+-]\d\d:?\d\d)?
          | [A-Z][a-z]{2}\ {1,2}\d{1,2}\ (?:\d{4}\ )?\d\d:\d\d:\d\d
          | \d{10}(?:\.\d{1,9})?(?=[\]\ :\t])
        ) [\])>]?:?
      | \d{1,7}[:\t|]
    )
    [\ \t|]* (?:[^\s]{1,100}[\ \t]+(?:[|][\ \t]*)*){0,8}?
"""
_NEXT = re.compile(
    rb'(?:'
     rb'(?:' + _END_OF_LINE + _NEW_LINE + _BEGINNING_OF_LINE + rb')'
    + rb'(?:' + _LOGGED + _BEGINNING_OF_LINE + rb'(?P<logged>' + _WORD + rb')'
    + rb'(?=(?:=3D|[=\ \t"\'|,;\\}\])]|' + _FRAME + rb')*(?:[\r\n]|\Z))'
    + rb'|(?P<plain>' + _WORD + rb'))'
    + rb'|[\ \t]+(?P<same>' + _WORD + rb')'
    + rb')',
    re.VERBOSE,
)  # fmt: skip
# The same where each line is whole, and nothing of it was wrapped.
_PREFIX = re.compile(
    rb"""
    (\n|\A) (?:
        [\ \t]*(?:>\ ?)+ | [|]\ | \ *\d{1,7}[:\t]
      | [\[(<]? (?:\d{4}[-/]\d\d[-/]\d\d[T\ ])? \d\d:\d\d:\d\d (?:[.,]\d{1,9})?
        (?:Z|\ ?[+-]\d\d:?\d\d)? [\])>]?:?\ ? (?:\S{1,100}\ \S{1,100}\[\d{1,9}\]:\ )?
      | [A-Z][a-z]{2}\ {1,2}\d{1,2}\ \d\d:\d\d:\d\d\ (?:\S{1,100}\ \S{1,100}:\ )?
    )
    """,
    re.VERBOSE,
)
_FIRST = re.compile(_WORD, re.VERBOSE)
_REST_OF_CELL = re.compile(
    rb'[ \t]*\|[ \t]*\r?\n(?:[ \t>]*)\|[ \t]{4,}\|[ \t]*([\w.]+)(?=[ \t]*\|)'
)


class Run:
    """A word in a text, with the pieces of it on the lines that follow.

    :param end: the text is looked at up to here
    :ivar content: the word in the standard alphabet of base64, without padding
    :ivar end: where it ends in the text
    """

    def __init__(self, text: bytes, start: int, end: int | None = None) -> None:
        self._text = text
        self._limit = len(text) if end is None else end
        self._start = start
        self._content = bytearray()
        # Of each piece: its beginning and end in the text, and its end in the content.
        self._spans: list[tuple[int, int, int]] = []

    @property
    def content(self) -> bytes:
        return bytes(self._content)

    @property
    def end(self) -> int:
        return self._spans[-1][1] if self._spans else self._start

    @property
    def pieces(self) -> int:
        return len(self._spans)

    def grow(self, limit: int) -> collections.abc.Iterator[int]:
        """Add one piece after the other; yield how long the word is then.

        :param limit: of the whole word, in characters
        """
        match = _FIRST.match(self._text, self._start, min(self._limit, self._start + limit))
        span = match.span() if match else None
        while span and len(self._content) < limit and len(self._spans) < MAX_PIECES:
            self._content += standard(self._text[span[0] : span[1]])
            self._spans.append((*span, len(self._content)))
            yield len(self._content)
            following = _NEXT.match(self._text, span[1], min(self._limit, span[1] + limit))
            span = following.span(str(following.lastgroup)) if following else None

    def cut(self, size: int) -> int:
        """Drop the pieces behind the first *size* characters; return where it ends then."""
        while len(self._spans) > 1 and self._spans[-2][2] >= size:
            self._spans.pop()
        del self._content[self._spans[-1][2] :]
        padding = _PADDING.match(self._text, self.end)
        return padding.end() if padding else self.end

    def is_even(self) -> bool:
        """Tell whether the pieces are as something that wraps lines makes them.

        All but the last fill their line, so that they are of one length, or end at the
        same place.  The first one may be shorter, because of what stands before it.
        """
        lengths = [end - start for start, end, _size in self._spans]
        if len(lengths) == 1:
            return True
        if max(lengths) > MAX_WIDTH:
            return False
        if _is_even(lengths) or _is_even(self._columns()):
            return True
        return len(lengths) > 2 and lengths[0] <= lengths[1] and _is_even(lengths[1:])

    def _columns(self) -> list[int]:
        """Return where in its line each piece ends."""
        columns = []
        line = self._text.rfind(b'\n', 0, self._start)
        previous = self._start
        for start, end, _size in self._spans:
            line = max(line, self._text.rfind(b'\n', previous, start))
            columns.append(end - line)
            previous = start
        return columns


def rest_of_cell(text: bytes, end: int) -> tuple[bytes, int]:
    """Return what follows of a name that a table wraps, and where it ends."""
    parts = []
    while match := _REST_OF_CELL.match(text, end):
        parts.append(match[1])
        end = match.end(1)
    return b''.join(parts), end


def without_prefixes(text: bytes) -> bytes:
    """Return lines without what a mail, a log or a listing puts before each of them."""
    return _PREFIX.sub(rb'\1', text)


def _is_even(sizes: list[int]) -> bool:
    *full, last = sizes
    # Lines that were wrapped twice come in pairs, a long one and a short one.
    pairs = len(full) >= 5 and len(set(full[::2])) == 1 and len(set(full[1::2])) == 1
    return (len(set(full)) == 1 or pairs) and last <= max(full)


def standard(piece: bytes) -> bytes:
    """Return a piece of base64 in the standard alphabet, nothing of it escaped."""
    if b'\\' in piece or b'%' in piece or b'&' in piece:
        piece = _ESCAPED.sub(_unescaped, piece)
    return piece.translate(_STANDARD)


def _unescaped(match: 're.Match[bytes]') -> bytes:
    return b'+' if match[0].lower()[-2:] in (b'2b', b'3;') else b'/'
