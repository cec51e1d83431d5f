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

"""Read every file that the known ways to export a record leave behind.

These are: our own JSON; ``openstack volume backup record export`` in any of
its formats; the table of ``cinder backup-export``, old and new; the body of the
REST answer; and the bare strings that grep, awk and sed cut out of a table.
Nothing in them is evaluated.
"""

import codecs
import collections.abc
import dataclasses
import json
import re
import typing

from osc_backup_port import errors, units
from osc_backup_port import record as record_module

#: A file may hold many records, one after the other.
MAX_FILE_SIZE = 64 * units.MIB

# What the two strings are called: by the API and the clients, and in the
# tables of python-openstackclient.
_SERVICE_NAMES = frozenset({'backup_service', 'backup service'})
_URL_NAMES = frozenset({'backup_url', 'metadata'})

_BASE64 = re.compile(r'[A-Za-z0-9+/]+={0,2}')
_DRIVER = re.compile(r'[A-Za-z_]\w*(?:\.\w+)+', re.ASCII)
# A line of `-f yaml` or `-f shell` (with any --prefix), or of `set`.
_KEY_LINE = re.compile(
    r'\s*(?:- )?(?:export )?["\']?(?:\w*?)(backup_service|backup_url)["\']?\s*[:=]\s*(.*)',
    re.ASCII,
)


@dataclasses.dataclass
class _Pair:
    """The two strings of one record, as far as they are found."""

    service: str | None = None
    url: str | None = None
    # The decoded form that our own JSON adds for people.
    decoded: typing.Any = None
    # A table that was wrapped, of which only the first line is left?
    cut: bool = False


def read_records(data: str | bytes, name: str) -> list[record_module.BackupRecord]:
    """Return the records in a file, at least one.

    :param data: the whole content of the file
    :param name: what to call it in an error
    :raises errors.InvalidRecord: there is none in it, or one is not valid;
        every one that is not valid is named
    """
    text = _to_text(data, name).strip()
    if not text:
        raise errors.InvalidRecord(f'{name} is empty, expected a backup record.', _HINT)
    if text.startswith(('{', '[')):
        pairs = list(_read_json(text, name))
    elif any(line.lstrip().startswith('|') for line in text.splitlines()):
        pairs = list(_read_table(text))
    elif any(_KEY_LINE.match(line) for line in text.splitlines()):
        pairs = list(_read_keys(text))
    else:
        pairs = list(_read_bare(text, name))
    if not pairs:
        raise errors.InvalidRecord(f'{name}: there is no backup record in it.', _HINT)
    return _decode_all(pairs, name)


def write_record(record: record_module.BackupRecord) -> str:
    """Return the text of a file with one record: JSON that ends with a newline.

    ``backup_service`` and ``backup_url`` are the record; ``backup`` is what it
    says, for people, and is compared with it when the file is read.
    """
    content = {
        'backup_service': record.backup_service,
        'backup_url': record.backup_url,
        'backup': dict(record.fields),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if not text.replace('\n', '').isprintable():
        # It can be shown on a terminal, which would obey what JSON does not have to escape.
        text = json.dumps(content, indent=2)
    return f'{text}\n'


_HINT = (
    'Expected what one of these writes: openstack volume backup metadata export <backup>; '
    'openstack volume backup record export <backup>; cinder backup-export <backup>'
)


def _to_text(data: str | bytes, name: str) -> str:
    if len(data) > MAX_FILE_SIZE:
        found = units.human_size(len(data))
        raise errors.InvalidRecord(f'{name} is {found}; a record has some 2 KiB.', _HINT)
    if isinstance(data, str):
        return data.removeprefix('\ufeff')
    # PowerShell writes UTF-16 where others write UTF-8.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode('utf-16' if wide else 'utf-8-sig')
    except UnicodeDecodeError:
        text = '\0'
    if '\0' in text:
        raise errors.InvalidRecord(
            f'{name} is not a text, expected a backup record (is it the image?).', _HINT
        )
    return text


def _decode_all(
    pairs: collections.abc.Sequence[_Pair], name: str
) -> list[record_module.BackupRecord]:
    records = []
    failures = []
    for number, pair in enumerate(pairs, 1):
        source = name if len(pairs) == 1 else f'{name}, record {number}'
        try:
            records.append(_decode(pair, source))
        except errors.InvalidRecord as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise errors.InvalidRecord.of_several(failures)
    return records


def _decode(pair: _Pair, source: str) -> record_module.BackupRecord:
    if pair.url is None:
        raise errors.InvalidRecord(f'{source} has a backup_service and no backup_url.', _HINT)
    try:
        record = record_module.BackupRecord.decode(pair.service, pair.url, source)
    except errors.InvalidRecord as error:
        if pair.cut:
            raise errors.InvalidRecord(
                error.in_one_line(),
                'It looks like one line of a table whose lines were wrapped (grep takes only '
                'the first of them); give the whole output of cinder backup-export.',
            ) from None
        raise
    if pair.decoded is not None and pair.decoded != dict(record.fields):
        names = sorted(_differences(pair.decoded, record.fields))
        raise errors.InvalidRecord(
            f'{source}: backup and backup_url tell different things about {", ".join(names)}.',
            'backup_url is the record, backup only shows it; was one of them edited? Export the '
            'record anew, or remove backup from the file to trust backup_url.',
        )
    return record


def _differences(shown: typing.Any, fields: collections.abc.Mapping[str, typing.Any]) -> set[str]:
    if not isinstance(shown, dict):
        return {'everything'}
    names = shown.keys() | fields.keys()
    missing = object()
    return {name for name in names if shown.get(name, missing) != fields.get(name, missing)}


def _read_json(text: str, name: str) -> collections.abc.Iterator[_Pair]:
    """One object, a list of them, or one after the other."""
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise errors.InvalidRecord(f'{name} is not JSON ({error}).', _HINT) from None
        for item in value if isinstance(value, list) else [value]:
            yield _pair_of_object(item, name)
        while position < len(text) and text[position] in ' \t\r\n,':
            position += 1


def _pair_of_object(item: typing.Any, name: str) -> _Pair:
    if isinstance(item, dict) and isinstance(item.get('backup-record'), dict):
        item = item['backup-record']
    pair = _Pair()
    if isinstance(item, dict):
        for key, value in item.items():
            if key.lower() in _SERVICE_NAMES:
                pair.service = value
            # A record that is already decoded has its own "metadata".
            elif key.lower() in _URL_NAMES and isinstance(value, str):
                pair.url = value
        pair.decoded = item.get('backup')
    if pair.url is None:
        raise errors.InvalidRecord(
            f'{name} has no text named backup_url, expected backup_service and backup_url.', _HINT
        )
    return pair


def _read_table(text: str) -> collections.abc.Iterator[_Pair]:
    """Tables with two columns, whose long lines may be wrapped.

    A line that was wrapped has nothing in its first column.  Old tables have
    their texts in the middle of the column.
    """
    rows: list[tuple[str, str]] = []
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if not line.startswith('|') or len(cells) != 2:
            continue
        if cells[0] or not rows:
            rows.append((cells[0], cells[1]))
        else:
            rows[-1] = (rows[-1][0], rows[-1][1] + cells[1])
    # grep leaves no frame.
    framed = any(line.startswith('+') for line in lines)
    yield from _pairs(rows, cut=not framed)


def _read_keys(text: str) -> collections.abc.Iterator[_Pair]:
    """Lines of ``name: value`` or ``name="value"``; a value may be wrapped."""
    rows: list[tuple[str, str]] = []
    going_on = False
    for line in text.splitlines():
        match = _KEY_LINE.match(line)
        if match:
            value = match[2].strip()
            going_on = True
            # A block of YAML begins on the next line.
            rows.append((match[1], '' if re.fullmatch(r'[>|][+-]?', value) else _unquote(value)))
        elif going_on and _BASE64.fullmatch(_unquote(line.strip())):
            rows[-1] = (rows[-1][0], rows[-1][1] + _unquote(line.strip()))
        else:
            going_on = False
    yield from _pairs(rows)


def _unquote(value: str) -> str:
    return value.strip('\'", \t')


def _read_bare(text: str, name: str) -> collections.abc.Iterator[_Pair]:
    """``-f value``, bare base64, or an import command with its arguments."""
    pair = _Pair()
    for word in map(_unquote, text.split()):
        if _DRIVER.fullmatch(word):
            if pair.url is not None:
                yield pair
            pair = _Pair(service=word)
        elif _is_command(word) and not pair.url:
            continue
        elif _BASE64.fullmatch(word):
            pair.url = (pair.url or '') + word
        else:
            raise errors.InvalidRecord(
                f'{name}: {word[:40]!r} is no part of a backup record.', _HINT
            )
    if pair.service or pair.url:
        yield pair


def _is_command(word: str) -> bool:
    return word in {
        '$', '#', 'backup', 'backup-import', 'cinder', 'import', 'openstack', 'record', 'volume',
    }  # fmt: skip


def _pairs(
    rows: collections.abc.Iterable[tuple[str, str]], cut: bool = False
) -> collections.abc.Iterator[_Pair]:
    """Put the rows of one record together; a name that comes again begins the next."""
    pair = _Pair(cut=cut)
    for key, value in rows:
        if key.lower() in _SERVICE_NAMES:
            if pair.service is not None:
                yield pair
                pair = _Pair(cut=cut)
            pair.service = value
        elif key.lower() in _URL_NAMES:
            if pair.url is not None:
                yield pair
                pair = _Pair(cut=cut)
            pair.url = value
    if pair.service is not None or pair.url is not None:
        yield pair
