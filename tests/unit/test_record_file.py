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

import json
import pathlib
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_backup_port import errors
from osc_backup_port.formats import record_file
from osc_backup_port.record import BackupRecord
from tests.unit import records

GOLDEN = records.DATA / 'records'
GOLDEN_2015 = records.DATA / 'records-2015'
CEPH_URL = json.loads((GOLDEN / 'osc-10.5.json').read_text())['backup_url']


def read(data: str | bytes) -> list[BackupRecord]:
    return record_file.read_records(data, 'x')


@pytest.mark.parametrize('path', sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_every_form_of_the_clients(path: pathlib.Path) -> None:
    (record,) = record_file.read_records(path.read_bytes(), path.name)
    assert record.says_the_same_as(BackupRecord.decode(records.CEPH, CEPH_URL))
    assert record.display_name == 'täglich "a|b"'


@pytest.mark.parametrize('name', ['cinderclient.table', 'cinderclient-indented.table', 'sed.txt'])
def test_table_of_2015(name: str) -> None:
    (record,) = read((GOLDEN_2015 / name).read_bytes())
    assert dict(record.fields) == json.loads((GOLDEN_2015 / 'decoded.json.txt').read_text())
    assert record.backup_service == 'cinder.backup.drivers.nfs'


def test_own_form() -> None:
    record = records.make_record(display_name='größer')
    text = record_file.write_record(record)
    assert text.endswith('}\n')
    assert list(json.loads(text)) == ['backup_service', 'backup_url', 'backup']
    assert 'größer' in text
    assert read(text) == [record]


def test_many_in_one_file() -> None:
    first, second = records.make_record(), records.make_record(id=records.OTHER_ID)
    texts = [record_file.write_record(item) for item in (first, second)]
    assert read(''.join(texts)) == [first, second]
    assert read(f'[{",".join(texts)}]') == [first, second]
    lines = [json.dumps(json.loads(text)) for text in texts]
    assert read('\n'.join(lines)) == [first, second]
    pairs = [f'{item.backup_service}\n{item.backup_url}\n' for item in (first, second)]
    assert read(''.join(pairs)) == [first, second]
    tables = [_table(item, 60) for item in (first, second)]
    assert read(''.join(tables)) == [first, second]
    shells = [
        f'backup_url="{item.backup_url}"\nbackup_service="{item.backup_service}"\n'
        for item in (first, second)
    ]
    assert read(''.join(shells)) == [first, second]


def _table(record: BackupRecord, width: int, center: bool = False) -> str:
    rows = [('backup_service', record.backup_service), ('backup_url', record.backup_url)]
    lines = ['+---+---+', '| Property | Value |', '+---+---+']
    for key, value in rows:
        for number, part in enumerate(textwrap.wrap(value, width)):
            name = key if number == 0 else ''
            lines.append(
                f'| {name.center(14)} | {part.center(width) if center else part.ljust(width)} |'
            )
    return '\n'.join([*lines, '+---+---+', ''])


@given(
    st.integers(5, 300),
    st.booleans(),
    st.text(st.characters(codec='utf-8'), max_size=60),
)
def test_table_of_any_width(width: int, center: bool, name: str) -> None:
    record = records.make_record(display_name=name)
    assert read(_table(record, width, center)) == [record]


@given(st.integers(1, 120), st.sampled_from(['\n', '\r\n', '\n    ']))
def test_bare_base64_wrapped_anywhere(width: int, end: str) -> None:
    record = records.make_record()
    assert read(end.join(textwrap.wrap(record.backup_url, width))) == [record]


@given(st.text(max_size=300))
def test_any_text_is_refused_clearly(text: str) -> None:
    with pytest.raises(errors.InvalidRecord):
        read(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_clearly(data: bytes) -> None:
    with pytest.raises(errors.InvalidRecord):
        read(data)


@given(st.data())
def test_file_cut_anywhere_is_refused(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(GOLDEN.iterdir())))
    whole = path.read_text('utf-16' if path.name == 'windows.txt' else 'utf-8').strip()
    text = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        (record,) = read(text)
    except errors.InvalidRecord:
        return
    # Only the frame, a quote or the padding was cut off, or nothing of the base64.
    assert record.backup_url == CEPH_URL or record.says_the_same_as(
        BackupRecord.decode(records.CEPH, CEPH_URL)
    )


def test_block_of_yaml() -> None:
    record = records.make_record()
    lines = textwrap.wrap(record.backup_url, 70)
    text = f'- backup_service: {record.backup_service}\n  backup_url: >-\n    ' + '\n    '.join(
        lines
    )
    assert read(text) == [record]


def test_warning_before_json() -> None:
    record = records.make_record()
    assert read('/usr/lib/x.py:1: UserWarning\n' + record_file.write_record(record)) == [record]


def test_wrapped_table_after_grep() -> None:
    lines = [line for line in _table(records.make_record(), 76).splitlines() if 'backup_' in line]
    with pytest.raises(errors.InvalidRecord) as caught:
        read('\n'.join(lines))
    assert 'grep takes only the first' in (caught.value.hint or '')


def test_edited_backup_is_noticed() -> None:
    content = json.loads(record_file.write_record(records.make_record()))
    content['backup']['container'] = 'elsewhere'
    with pytest.raises(errors.InvalidRecord, match='different things about container'):
        read(json.dumps(content))
    del content['backup']
    assert read(json.dumps(content)) == [records.make_record()]


@pytest.mark.parametrize(
    ('data', 'found'),
    [
        ('', 'is empty'),
        (b'\xef\xbb\xbf \n', 'is empty'),
        (b'rbd image v2\n\0\0', 'is not a text'),
        (b'\xff\xd8\xff\xe0', 'is not a text'),
        ('{"backup_service": "x"', 'is not JSON'),
        ('{"id": "x", "metadata": {}}', 'no text named backup_url'),
        ('{"backup_url": 5}', 'no text named backup_url'),
        ('[]', 'no backup record'),
        ('[1]', 'no text named backup_url'),
        ('[' * 100_000, 'is not JSON'),
        ('| a | b |\n', 'no backup record'),
        ('backup_service=cinder.backup.drivers.nfs\n', 'no backup_url'),
        ('cinder.backup.drivers.nfs\n', 'no backup_url'),
        ('ERROR: not found', 'is no part of a backup record'),
        (b'A' * (record_file.MAX_FILE_SIZE + 1), 'is 64.0 MiB'),
    ],
)
def test_no_record(data: str | bytes, found: str) -> None:
    with pytest.raises(errors.InvalidRecord, match=found) as caught:
        read(data)
    assert caught.value.problem.startswith('x')
    assert caught.value.hint


def test_every_bad_record_is_named() -> None:
    good = record_file.write_record(records.make_record())
    bad = json.dumps({'backup_service': records.CEPH, 'backup_url': 'abc'})
    with pytest.raises(errors.InvalidRecord) as caught:
        read(f'{bad}\n{good}\n{bad}')
    assert 'x, record 1:' in caught.value.problem
    assert 'x, record 3:' in str(caught.value)
