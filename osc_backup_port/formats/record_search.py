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

"""Find backup records in a text, by what a record is and not by what is around it.

A record is the base64 of a JSON object with the fields of a backup; some texts hold the
object itself.  So the search looks for the first characters that such a base64 has, goes
on over everything that wraps long lines, and knows by the JSON itself where the record
ends.  Whatever else stands in the text is passed over, with one exception: what looks
like a part of a record, and is none, is told as damage, so that no record is lost
silently.

The time is linear in the text: every look at something either uses it up or is counted.
"""

import binascii
import collections.abc
import contextlib
import itertools
import json
import re
import typing

from osc_backup_port import documents, record
from osc_backup_port.formats import wrapped_text

#: How many things that look like records at first may turn out to be none.
MAX_LOOKS = 100_000
#: How many values a record may have; it has about thirty.
MAX_VALUES = 10_000

# The fields that every release writes, and nothing else has together.
_TYPICAL = frozenset({'volume_id', 'container', 'service_metadata', 'object_count', 'size'})
_LEAST_TYPICAL = 3


class Service(typing.NamedTuple):
    """The name of a driver.

    :ivar is_told: something says that this is the driver of a backup
    """

    start: int
    end: int
    name: str
    is_told: bool


class Url(typing.NamedTuple):
    """A record in its base64.

    :ivar content: the JSON, as it was encoded
    :ivar fields: the same decoded, not checked yet
    :ivar is_joined: it was put together of several lines
    """

    start: int
    end: int
    content: bytes
    fields: dict[str, typing.Any]
    is_joined: bool


class Fields(typing.NamedTuple):
    """The decoded fields of a record.

    :ivar is_shown: they stand under ``backup``, as in our own files, to show what the
        base64 beside them says
    """

    start: int
    end: int
    fields: dict[str, typing.Any]
    is_shown: bool


class Damage(typing.NamedTuple):
    """What looks like a record, or a part of one, and is none."""

    start: int
    end: int
    problem: str


Found = Service | Url | Fields | Damage

# How base64 of '{"', of '{ ' and of '{' and a line end goes on behind its "e", on however
# narrow lines.
_NARROW = rb'(?:[\ \t|]{0,80}\r?\n[\ \t>|]{0,80})?'
_BEGINNING = rb'%(n)b(?:y%(n)b[A-DI-L]|w%(n)b[k-r0-3])' % {b'n': _NARROW}
_QUOTES = rb'["\'\\]{0,16}(?:[bu](?=["\'\\]))?["\'\\]{0,16}'
# What a label begins with, and a value behind it.  A driver that is told and is none
# counts as one: it is for the record to refuse it.
_LABELS = rb"""
    %(first)b(?i:ackup[_\ -]?url) ["'\\]{0,16} [\ \t]* (?:
        [:=]>? [\ \t]* %(quotes)b (?:
            (?P<told_%(first)b>(?!(?:null|None)\b)[\w+/-])
          | (?P<odd_%(first)b>[^\w\s"'\\+/(<{\[`|-]{1,16}) (?=e%(beginning)b)
        )
      | [|] [\ \t]* (?P<cell_%(first)b>[\w+/-]{16})
    )
  | %(first)b(?i:ackup[_\ -]?service) ["'\\]{0,16} [\ \t]* (?:
        [:=]>? [\ \t]* %(quotes)b (?P<service_%(first)b>
            (?!(?:null|None)\b)\w[\w.]* | (?:(?<="") | (?<='') | (?<=\\"\\")) (?=[\s,}])
        )
      | [|,;\t] [\ \t"'|]{0,200} (?P<row_%(first)b>[A-Za-z_]\w*(?:\.\w+)+\.?)
    )
"""
_PARTS = {b'quotes': _QUOTES, b'beginning': _BEGINNING}
# Each alternative begins with a letter, so that the search can hop from one of these
# letters to the next; what has to stand before the letter is looked at afterwards.
_EVENT = re.compile(
    rb"""
    %(small)b | %(large)b
  | e (?:(?<![\w+/-]e) | (?<=\\[nrt]e) | (?<=\n[+-]e)) (?P<url>%(beginning)b)
  | cinder\.backup\.drivers\. (?:(?<![\w.].{22}) | (?<=\\[nrt].{22})) (?P<driver>\w+(?:\.\w+)?)
  | backup (?<=["']backup) (?P<shown>\\{0,16}) ["'] \s{0,16} : \s{0,64} \{
  | service_metadata (?<=["'].{16}) (?P<fields>\\{0,16}) ["'] \s{0,16} :
  | service_metadata: (?<=[\n\ ].{17}) (?P<yaml>[\ \t\r\n])
    """
    % {
        b'small': _LABELS % {b'first': b'b', **_PARTS},
        b'large': _LABELS % {b'first': b'B', **_PARTS},
        b'beginning': _BEGINNING,
    },
    re.VERBOSE,
)
_LONG_WORD = re.compile(rb'[A-Za-z0-9+/_-]{32,}')
_PRINTABLE = re.compile(rb'[ -~\t\r\n]*')
_LIKE_JSON = re.compile(rb'": |", "|":"|","')


def search(text: bytes) -> collections.abc.Iterator[Found]:
    """Yield what belongs to records in a text, in its order."""
    looks = 0
    position = 0
    # Before this nothing is looked at again.
    used = 0
    while looks < MAX_LOOKS:
        event = _EVENT.search(text, position)
        before = event.start() if event else len(text)
        for word in _LONG_WORD.finditer(text, position, before):
            if word.start() < position or not _is_text(text, word.start()):
                continue
            looks += 1
            part = _part_of_record(text, word.start(), before)
            position = part.end
            if isinstance(part, Damage):
                yield part
        if event is None:
            return
        if event.start() < position:
            continue
        end = event.end()
        for found in _READERS[_kind(event)](text, event, used):
            end = max(end, found.end)
            if not isinstance(found, Service):
                used = end
            if isinstance(found, _Nothing):
                looks += 1
            else:
                yield found
        position = end
    yield Damage(position, position, 'there is too much before this place that is no record')


def _kind(event: 're.Match[bytes]') -> str:
    return str(event.lastgroup).partition('_')[0]


class _Nothing(typing.NamedTuple):
    """A place that was looked at, up to its end."""

    start: int
    end: int


_Reader = collections.abc.Callable[
    [bytes, 're.Match[bytes]', int], collections.abc.Iterable[Found | _Nothing]
]


def _read_service(
    text: bytes, event: 're.Match[bytes]', _low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    kind = _kind(event)
    start, end = event.span(str(event.lastgroup))
    if kind == 'driver':
        start = event.start()
    name = text[start:end]
    if kind == 'row':
        more, end = wrapped_text.rest_of_cell(text, end)
        name += more
    yield Service(start, end, name.decode('ascii'), kind != 'driver')


def _read_url(
    text: bytes, event: 're.Match[bytes]', _low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    kind = _kind(event)
    start = event.start() if kind == 'url' else event.start(str(event.lastgroup))
    run = wrapped_text.Run(text, start)
    try:
        content, fields = _grow_to_record(run)
    except ValueError as error:
        yield Damage(start, run.end, str(error))
        return
    used = -(-len(content) * 4 // 3)
    end = run.cut(used)
    if kind == 'url' and len(_TYPICAL & fields.keys()) < _LEAST_TYPICAL:
        yield _Nothing(start, end)
    elif len(run.content) % 4 == 1 or _decode(run.content)[len(content) :].strip():
        yield Damage(start, end, 'something follows its end without a space between them')
    elif not run.is_even():
        yield Damage(start, end, 'its lines do not belong together: they are not of one length')
    else:
        yield Url(start, end, _decode(run.content), fields, run.pieces > 1)


def _read_odd(
    _text: bytes, event: 're.Match[bytes]', _low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    yield Damage(*event.span(str(event.lastgroup)), 'it does not begin as base64 does')


def _grow_to_record(run: wrapped_text.Run) -> tuple[bytes, dict[str, typing.Any]]:
    """Take as many pieces as it needs, and return the JSON, and what it holds.

    :raises ValueError: there is no whole object in all of them
    """
    wanted = 0
    for size in run.grow(record.MAX_SIZE):
        if size >= wanted:
            # Twice as much each time, or a long one takes forever.
            wanted = 2 * size
            with contextlib.suppress(ValueError):
                return _decode_beginning(run.content)
    return _decode_beginning(run.content)


def _decode(encoded: bytes) -> bytes:
    """Return the bytes in base64 that may have no padding, or end anywhere."""
    if len(encoded) % 4 == 1:
        encoded = encoded[:-1]
    return binascii.a2b_base64(encoded + b'=' * (-len(encoded) % 4))


def _decode_beginning(encoded: bytes) -> tuple[bytes, dict[str, typing.Any]]:
    """Return the JSON object that *encoded* begins with, as it stands there and decoded.

    :raises ValueError: it does not begin with a whole one
    """
    raw = _decode(encoded)
    if raw.count(b',') > MAX_VALUES + len(raw) // 64 or raw.count(b'[') > MAX_VALUES:
        raise ValueError(f'it has more than {MAX_VALUES} values')
    text = raw.decode('utf-8', 'surrogateescape')
    blank = len(text) - len(text.lstrip())
    try:
        fields, end = json.JSONDecoder().raw_decode(text, blank)
    except json.JSONDecodeError as error:
        raise ValueError(
            f'it is not the base64 of a JSON object, or not all of it: {error}'
        ) from None
    except RecursionError:
        raise ValueError('its JSON is nested too deep') from None
    if not isinstance(fields, dict):
        raise ValueError('it is the base64 of JSON that is no object')
    return text[:end].encode('utf-8', 'surrogateescape'), fields


def _is_text(text: bytes, start: int) -> bool:
    """Tell whether a word can be the base64 of plain text, wherever that begins in it."""
    word = wrapped_text.standard(text[start : start + 32])
    return any(_PRINTABLE.fullmatch(_decode(word[skip : skip + 28])) for skip in range(4))


def _part_of_record(text: bytes, start: int, end: int) -> 'Damage | _Nothing':
    """Look at a word: is it a piece of the base64 of a record without its beginning?"""
    run = wrapped_text.Run(text, start, end)
    for size in run.grow(1024):
        if size >= 512:
            break
    for skip in range(4):
        printable = _PRINTABLE.match(_decode(run.content[skip:]))
        if printable and len(printable[0]) >= 18 and _LIKE_JSON.search(printable[0]):
            return Damage(start, run.end, 'it looks like a part of a record without its beginning')
    return _Nothing(start, run.end)


_BEHIND_OBJECT = re.compile(
    rb'"[^"\\]*(?:\\.[^"\\]*)*"|\'[^\'\\]*(?:\\.[^\'\\]*)*\'|[{}\[\]]', re.DOTALL
)
_REST_OF_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_LARGEST_STRING = 8 * record.MAX_SIZE


def _read_fields(
    text: bytes, event: 're.Match[bytes]', low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    marker = event.start() - 1
    if text[marker - 1 : marker] == b'\\':
        yield from _read_escaped(text, marker, low)
        return
    low = max(low, marker - record.MAX_SIZE)
    brace = marker
    problem = 'it looks like the fields of a record, but the whole of them is not there'
    for _attempt in range(16):
        brace = text.rfind(b'{', low, brace)
        if brace < 0:
            break
        end = _end_of_object(text, brace)
        if end is None or end <= marker:
            continue
        try:
            fields = _read_object(text[brace:end])
        except ValueError as error:
            # It may begin within a text.
            problem = f'it looks like the fields of a record: {error}'
            continue
        if 'service_metadata' in fields:
            yield Fields(brace, end, fields, False)
            return
    yield Damage(marker, event.end(), problem)


def _read_shown(
    text: bytes, event: 're.Match[bytes]', low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    start, brace = event.start() - 1, event.end() - 1
    if text[start - 1 : start] == b'\\':
        yield from _read_escaped(text, start, low)
        return
    end = _end_of_object(text, brace)
    if end is None:
        yield Damage(brace, event.end(), 'the object "backup" does not end')
        return
    try:
        fields = _read_object(text[brace:end])
        # The API calls something shorter by that name.
        if 'service_metadata' in fields:
            yield Fields(brace, end, fields, True)
        else:
            yield _Nothing(brace, event.end())
    except ValueError as error:
        yield Damage(brace, end, f'the object "backup" cannot be read: {error}')


def _read_escaped(
    text: bytes, marker: int, low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    """Search in a string that holds JSON, as Ansible and logs have it."""
    start = marker
    while (start := text.rfind(b'"', low, start)) > low and text[start - 1 : start] == b'\\':
        pass
    start = max(start + 1, low)
    body = _REST_OF_STRING.match(text, start, start + _LARGEST_STRING)
    content = body[0] if body else b''
    try:
        inner = _unescaped(content)
        known = len(_unescaped(text[start : marker - 1]))
    except ValueError as error:
        yield Damage(
            marker, start + len(content), f'it is in a string that cannot be read: {error}'
        )
        return
    for found in search(inner):
        # What is before the marker was found already.
        if not isinstance(found, Service) or found.start >= known:
            yield found._replace(start=start, end=start)
    yield _Nothing(start, start + len(content))


def _unescaped(content: bytes) -> bytes:
    text: str = json.loads(b'"%b"' % content, strict=False)
    return text.encode('utf-8', 'replace')


def _end_of_object(text: bytes, start: int) -> int | None:
    depth = 0
    tokens = _BEHIND_OBJECT.finditer(text, start, start + record.MAX_SIZE)
    for token in itertools.islice(tokens, 2 * MAX_VALUES):
        if token[0] in b'{[':
            depth += 1
        elif token[0] in b'}]':
            depth -= 1
        if depth == 0:
            return token.end()
        if depth > documents.MAX_DEPTH:
            return None
    return None


def _read_object(content: bytes) -> dict[str, typing.Any]:
    """Return the dict in the text of a JSON object, or of a dict of Python.

    :raises ValueError: it is neither
    """
    text = content.decode('utf-8')
    try:
        fields = documents.read_json(text)
    except ValueError as error:
        plain = wrapped_text.without_prefixes(content)
        if plain != content:
            return _read_object(plain)
        if "'" not in text:
            raise
        try:
            fields = documents.read_python(text)
        except ValueError:
            raise error from None
    if not isinstance(fields, dict):
        raise ValueError('it is no object')
    return fields


_YAML_KEY = re.compile(rb'(?:[a-z_]+|"[a-z_]+"):(?:[ \r\n]|$)|[ \t]+\S|- ')


def _read_yaml(
    text: bytes, event: 're.Match[bytes]', low: int
) -> collections.abc.Iterator[Found | _Nothing]:
    """Read the mapping of YAML that a key stands in: the lines around it."""
    key = event.start()
    start, end = text.rfind(b'\n', 0, key) + 1, key
    width = key - start
    if width > 100 or text[start:key].strip(b' -'):
        return
    low = max(low, key - record.MAX_SIZE)
    while b'-' not in text[start : start + width]:
        above = text.rfind(b'\n', low, max(start - 1, low)) + 1 or low
        if above >= start or not _is_of_mapping(text[above : start - 1], width):
            break
        start = above
    while 0 <= (end := text.find(b'\n', end)) < key + record.MAX_SIZE:
        end += 1
        below = text[end : end + 1000].split(b'\n', 1)[0]
        if below[:width].strip() or not _is_of_mapping(below, width):
            break
    end = end if end >= 0 else len(text)
    try:
        block = b' ' * width + text[start + width : end]
        fields = documents.read_yaml(block.decode('utf-8'))
        json.dumps(fields)
    except (ValueError, TypeError) as error:
        yield Damage(start, end, f'it looks like the fields of a record: {error}')
        return
    yield Fields(start, end, fields, False)


def _is_of_mapping(line: bytes, width: int) -> bool:
    return not line[:width].strip(b' -') and _YAML_KEY.match(line[width:]) is not None


_READERS: dict[str, _Reader] = {
    'told': _read_url,
    'odd': _read_odd,
    'cell': _read_url,
    'url': _read_url,
    'service': _read_service,
    'row': _read_service,
    'driver': _read_service,
    'shown': _read_shown,
    'fields': _read_fields,
    'yaml': _read_yaml,
}
