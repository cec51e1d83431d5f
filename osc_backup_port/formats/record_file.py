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

"""Record files: our own, and whatever else people have that holds records.

Our own is JSON, and :func:`read_own` takes nothing else.  :func:`read_records` finds the
records in the output of every client in every format, in what grep, mails, logs, tables
and scripts make of it, and in any text around it.  Nothing in a file is evaluated.
"""

import base64
import collections.abc
import json
import re
import typing

from osc_backup_port import documents, errors, record_rules, units
from osc_backup_port import record as record_module
from osc_backup_port.formats import clean_text, line_marks, record_parts, record_search

#: A file may hold many records, one after the other.
MAX_FILE_SIZE = 32 * units.MIB
#: How many values the records of a file may have in all: some 10 000 records.
MAX_VALUES = 500_000

# How many failures are told before the reading is given up.
_MAX_FAILURES = 10
# So many different marks before lines are looked for, in files of up to that size.
_MAX_MARKS = 5
_LARGEST_MARKED = 4 * units.MIB
# A place is shown with so many characters.
_SHOWN = 40

_IMAGE = re.compile(r'volume-(?P<volume>[0-9a-f-]{36})\.backup\.(?P<backup>[0-9a-f-]{36}|base)$')

_HINT = (
    'Expected what one of these writes: openstack volume backup metadata export <backup>; '
    'openstack volume backup record export <backup>; cinder backup-export <backup>'
)
_HINT_TABLE = (
    'It looks like one line of a table whose lines were wrapped (grep takes only '
    'the first of them); give the whole output of cinder backup-export.'
)


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


def read_own(data: bytes, name: str) -> record_module.BackupRecord:
    """Return the record in what :func:`write_record` made, and in nothing else.

    :param name: what to call it in an error
    :raises errors.InvalidRecord: it is something else
    """
    if len(data) > 4 * record_module.MAX_SIZE:
        raise errors.InvalidRecord(f'{name}: has {len(data)} bytes; a record has some 2 KiB.')
    try:
        content = documents.read_json(data.decode('utf-8'))
        driver, url = content['backup_service'], content['backup_url']
        if not isinstance(url, str):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise errors.InvalidRecord(f'{name}: is not the file of a record.', _HINT) from None
    record = record_module.BackupRecord.decode(driver, url, name)
    if 'backup' in content:
        _compare(content['backup'], record, name)
    return record


def read_records(data: str | bytes, name: str) -> list[record_module.BackupRecord]:
    """Return the records in a file, at least one, each once.

    :param data: the whole content of the file
    :param name: what to call it in an error
    :raises errors.InvalidRecord: there is none in it, or something in it looks like one
        and is not valid; the first of these are named, with their places
    """
    if len(data) > MAX_FILE_SIZE:
        found = units.human_size(len(data))
        raise errors.InvalidRecord(f'{name} is {found}; a record has some 2 KiB.', _HINT)
    text = clean_text.clean(data.encode('utf-8', 'replace') if isinstance(data, str) else data)
    if not text.strip():
        raise errors.InvalidRecord(f'{name} is empty, expected a backup record.', _HINT)
    if b'\0' in text:
        raise _no_text(name)
    return _read(text, name).result()


def _read(text: bytes, name: str) -> '_Reader':
    """Read a text as it is; if that fails, without the marks before its lines."""
    first = reader = _Reader(text, name).read()
    if len(text) > _LARGEST_MARKED:
        return first
    for _mark in range(_MAX_MARKS):
        if not reader.failures:
            return reader
        plain = line_marks.remove(reader.text, reader.failed_at)
        others = (_Reader(content, name).read() for content in plain)
        found = next((other for other in others if other.count > reader.count), None)
        if found is None:
            break
        reader = found
    # What went wrong is told of the text as it is.
    return reader if not reader.failures else first


class _Reader:
    """Makes records of what was found, and remembers what went wrong.

    :ivar failed_at: the place of the first failure
    """

    def __init__(self, text: bytes, name: str) -> None:
        self.text = text
        self._name = name
        self._records: dict[str, record_module.BackupRecord] = {}
        # Where those begin that were put together of several lines.
        self._joined: list[tuple[int, record_module.BackupRecord]] = []
        self._values = 0
        self.failures: list[errors.InvalidRecord] = []
        self.failed_at = len(text)

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self._records)

    def read(self) -> '_Reader':
        for part in record_parts.join(self.text, record_search.search(self.text)):
            self._take(part)
            if len(self.failures) >= _MAX_FAILURES:
                break
        self._check_joined()
        return self

    def _fail(self, start: int, error: errors.InvalidRecord) -> None:
        self.failed_at = min(self.failed_at, start)
        self.failures.append(error)

    def _take(self, part: record_parts.Part) -> None:
        try:
            record = self._record(part)
            if _is_of_several_lines(part.found):
                self._joined.append((part.found.start, record))
            known = self._records.setdefault(record.id, record)
            if not known.says_the_same_as(record):
                place = self._place(part.found.start)
                raise errors.InvalidRecord(
                    f'{place}: the record of backup {record.id} says something else than the one '
                    'before it.',
                    'Give the newer one only.',
                )
        except errors.InvalidRecord as error:
            self._fail(part.found.start, error)
        else:
            self._count(record)

    def result(self) -> list[record_module.BackupRecord]:
        """Return the records.

        :raises errors.InvalidRecord: something failed, or there are none
        """
        if not self.failures and self._records:
            return list(self._records.values())
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            if len(self.failures) >= _MAX_FAILURES:
                more = f'{self._name}: there may be more; these were the first.'
                self.failures.append(errors.InvalidRecord(more))
            raise errors.InvalidRecord.of_several(self.failures)
        try:
            self.text.decode('utf-8')
        except UnicodeDecodeError:
            raise _no_text(self._name) from None
        start = len(self.text) - len(self.text.lstrip())
        raise errors.InvalidRecord(
            f'{self._name}: there is no backup record in it. '
            f'It begins in {self._line(start)} with {self._shown(start)}.',
            _HINT,
        )

    def _check_joined(self) -> None:
        """See that the lines of a record are all of it, and not those of two records."""
        for start, record in self._joined:
            if len(self.failures) >= _MAX_FAILURES:
                return
            if problem := self._misfit(record):
                told = f'{self._place(start)}: {problem}.'
                self._fail(start, errors.InvalidRecord(told, _HINT))

    def _misfit(self, record: record_module.BackupRecord) -> str | None:
        """Tell what cannot be of one record: each half may name another volume, or backup."""
        base = record.base_image
        image = _IMAGE.match(base or '')
        if base and (
            image is None
            or image['volume'] != record.volume_id
            or (record.parent_id is None and not self._is_known(image['backup'], record.id))
        ):
            return (
                'the lines of this record do not belong together: it is of backup '
                f'{record.id}, and the image is {base}'
            )
        lost = record_rules.lost_fields(record.fields)
        return f'a part of this record is missing: {", ".join(lost)}' if lost else None

    def _is_known(self, backup_id: str, own_id: str) -> bool:
        return backup_id in (own_id, 'base') or backup_id in self._records

    def _record(self, part: record_parts.Part) -> record_module.BackupRecord:
        try:
            return self._decode(part, self._name)
        except errors.InvalidRecord:
            # To find out the place takes time, so it is done only where it is told.
            self._decode(part, self._place(part.found.start))
            raise

    def _decode(self, part: record_parts.Part, place: str) -> record_module.BackupRecord:
        if isinstance(part.found, record_search.Damage):
            raise self._damage(part.found, place)
        if isinstance(part.found, record_search.Fields):
            return record_module.BackupRecord.of_fields(part.driver, part.found.fields, place)
        url = base64.b64encode(part.found.content).decode('ascii')
        record = record_module.BackupRecord.decode(part.driver, url, place)
        if part.shown:
            _compare(part.shown.fields, record, place)
        return record

    def _damage(self, damage: record_search.Damage, place: str) -> errors.InvalidRecord:
        line = self._line_start(damage.start)
        is_row = self.text[line : line + 200].lstrip().startswith(b'|')
        return errors.InvalidRecord(
            f'{place}: no backup record can be made of {self._shown(damage.start)}: '
            f'{damage.problem}. It ends before {self._shown(damage.end)}.',
            _HINT_TABLE if is_row and b'\n+-' not in self.text else _HINT,
        )

    def _count(self, record: record_module.BackupRecord) -> None:
        inner = (value for value in record.fields.values() if isinstance(value, dict | list))
        self._values += len(record.fields) + sum(map(len, inner)) + len(record.backup_url) // 64
        if self._values > MAX_VALUES:
            raise errors.InvalidRecord(
                f'{self._name}: holds more than {len(self._records)} records, which are too many '
                'for one file.',
                'Split it, or export into a directory: openstack volume backup metadata export '
                '--all --directory <directory>',
            )

    def _place(self, start: int) -> str:
        return f'{self._name}, {self._line(start)}'

    def _line_start(self, start: int) -> int:
        return self.text.rfind(b'\n', 0, start) + 1

    def _line(self, start: int) -> str:
        line = self.text.count(b'\n', 0, start) + 1
        before = self.text[self._line_start(start) : start]
        column = len(before.translate(None, bytes(range(0x80, 0xC0)))) + 1
        return f'line {line}, column {column}'

    def _shown(self, start: int) -> str:
        content = self.text[start : start + 4 * _SHOWN].decode('utf-8', 'replace')
        return ascii(content[:_SHOWN])


def _is_of_several_lines(found: record_search.Found) -> bool:
    return isinstance(found, record_search.Fields) or (
        isinstance(found, record_search.Url) and found.is_joined
    )


def _compare(shown: typing.Any, record: record_module.BackupRecord, name: str) -> None:
    if shown == dict(record.fields):
        return
    names = sorted(_differences(shown, record.fields))
    raise errors.InvalidRecord(
        f'{name}: backup and backup_url tell different things about {", ".join(names)}.',
        'backup_url is the record, backup only shows it; was one of them edited? Export the '
        'record anew, or remove backup from the file to trust backup_url.',
    )


def _differences(shown: typing.Any, fields: collections.abc.Mapping[str, typing.Any]) -> set[str]:
    if not isinstance(shown, dict):
        return {'everything'}
    names = shown.keys() | fields.keys()
    missing = object()
    return {name for name in names if shown.get(name, missing) != fields.get(name, missing)}


def _no_text(name: str) -> errors.InvalidRecord:
    return errors.InvalidRecord(
        f'{name} is not a text, expected a backup record (is it the image?).', _HINT
    )
