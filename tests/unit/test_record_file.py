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

import collections.abc
import contextlib
import json
import pathlib
import subprocess
import sys
import textwrap
import time
import typing

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from osc_backup_port import errors
from osc_backup_port.formats import record_file
from osc_backup_port.record import BackupRecord
from tests.unit import record_forms, records

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


#: With everything in it that a wrapping may trip over: quotes, braces, both of the
#: characters in which the alphabets of base64 differ.
AWKWARD = records.make_record(
    display_name='täglich "a|b" \'x\' {',
    display_description='for $HOME \\x <>?>?~ %2B &amp; \n- a: b',
    metadata={'a': 'b>?', '{"id": 1}': 'v'},
)


@pytest.mark.parametrize('form', record_forms.FORMS, ids=lambda form: form.__name__)
def test_every_form_of_people(form: collections.abc.Callable[[BackupRecord], str]) -> None:
    assert '+' in AWKWARD.backup_url
    assert '/' in AWKWARD.backup_url
    for encode in record_forms.ENCODINGS:
        assert read(encode(form(AWKWARD))) == [AWKWARD]
    for wrapping in record_forms.WRAPPINGS:
        try:
            assert read(wrapping(form(AWKWARD))) == [AWKWARD]
        except errors.InvalidRecord:
            # YAML lives on the beginnings of its lines.
            assert 'decoded_yaml' in form.__name__


def _narrow(record: BackupRecord) -> str:
    return record_forms.table(record, 21)


def _wide(record: BackupRecord) -> str:
    return record_forms.table(record, 60)


@pytest.mark.parametrize('mark', record_forms.MARKS)
def test_a_mark_before_every_line(mark: collections.abc.Callable[[int], str]) -> None:
    for form in (_narrow, _wide, record_forms.mime, record_forms.pretty, record_forms.decoded):
        text = record_forms.marked(form(AWKWARD), mark)
        assert read(text) == [AWKWARD], form
        assert read(f'Some other text.\n\n{text}\n{text}\nThe end.\n') == [AWKWARD], form


@pytest.mark.parametrize('mark', record_forms.MARKS)
def test_no_line_behind_a_mark_may_be_lost(mark: collections.abc.Callable[[int], str]) -> None:
    for form in (_narrow, _wide, record_forms.mime):
        lines = record_forms.marked(form(AWKWARD), mark).splitlines()
        # Before them a table has its head, and the driver.
        inside = range(5, len(lines) - 1)
        for number in (*inside[:: len(inside) // 5], inside[-1]):
            with pytest.raises(errors.InvalidRecord):
                read('\n'.join(lines[:number] + lines[number + 1 :]))


def test_what_belongs_to_a_record_is_no_mark() -> None:
    """Two lines that begin in the same way are not all that it takes."""
    url = records.make_record().backup_url
    for text in (
        f'backup_url: {url}\nbackup_service: 5\n',
        f'backup-url: {url}\nbackup-service: 5\n',
        f'host: backup_url: {url}\nhost: backup_service: 5\n',
    ):
        with pytest.raises(errors.InvalidRecord):
            read(text)
    edited = json.loads(record_file.write_record(AWKWARD))
    edited['backup']['size'] = 2
    for mark in record_forms.MARKS:
        with pytest.raises(errors.InvalidRecord):
            read(record_forms.marked(json.dumps(edited, indent=2), mark))


@settings(deadline=None)
@given(st.data())
def test_several_in_any_forms(data: st.DataObject) -> None:
    ids = [records.ID, records.OTHER_ID, records.THIRD_ID]
    items = [records.make_record(id=one, display_name=None) for one in ids]
    forms = [data.draw(st.sampled_from(record_forms.FORMS)) for _ in items]
    text = '\n\n'.join(form(item) for form, item in zip(forms, items, strict=True))
    assert read(data.draw(st.sampled_from(record_forms.ENCODINGS))(text)) == items


@settings(deadline=None)
@given(st.data(), st.text(st.characters(codec='utf-8'), max_size=200))
def test_damage_gives_that_record_or_an_error(data: st.DataObject, junk: str) -> None:
    # Nothing in decoded fields could tell that a letter is another one.
    forms = [form for form in record_forms.FORMS if 'decoded' not in form.__name__]
    text = data.draw(st.sampled_from(forms))(AWKWARD)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)) | st.just(len(text)))
    put = data.draw(st.sampled_from(['', junk]))
    # base64 has no checksum: other letters in the place of some may be another record.
    assume(len(put) != end - start or not put.isascii())
    try:
        found = read(text[:start] + put + text[end:])
    except errors.InvalidRecord:
        return
    for record in found:
        assert record.id == AWKWARD.id
        assert record.volume_id == AWKWARD.volume_id
        assert record.base_image == AWKWARD.base_image


@settings(deadline=None)
@given(st.data())
def test_halves_of_two_records_are_no_record(data: st.DataObject) -> None:
    other_volume = records.THIRD_ID
    other = records.make_record(
        id=records.OTHER_ID,
        volume_id=other_volume,
        service_metadata=json.dumps({'base': f'volume-{other_volume}.backup.{records.OTHER_ID}'}),
    )
    forms = [form for form in record_forms.FORMS if 'decoded' not in form.__name__]
    form = data.draw(st.sampled_from(forms))
    one, two = (form(item).splitlines(keepends=True) for item in (records.make_record(), other))
    lines = one[: data.draw(st.integers(0, len(one)))] + two[data.draw(st.integers(0, len(two))) :]
    cut = data.draw(st.integers(0, len(records.make_record().backup_url)))
    halves = f'{records.make_record().backup_url[:cut]}\n{other.backup_url[cut:]}\n'
    whole = (records.make_record(), other)
    for text in (''.join(lines), halves):
        try:
            found = read(text)
        except errors.InvalidRecord:
            continue
        # A line too many may add a field that no release has; it changes nothing.
        assert all(
            any(record.fields.items() >= one.fields.items() for one in whole) for record in found
        )


@pytest.mark.parametrize('form', [record_forms.yaml_wrapped, record_forms.python_lines])
def test_no_line_of_a_wrapped_record_may_be_lost(form: typing.Callable[..., str]) -> None:
    whole = records.make_record()
    lines = form(whole).splitlines(keepends=True)
    assert read(''.join(lines)) == [whole]
    for start in range(len(lines)):
        for end in range(start + 1, len(lines)):
            with contextlib.suppress(errors.InvalidRecord):
                assert read(''.join(lines[:start] + lines[end:])) == [whole], (start, end)


@pytest.mark.parametrize('form', [record_forms.decoded, record_forms.decoded_yaml])
def test_no_field_of_a_decoded_record_may_be_lost(form: typing.Callable[..., str]) -> None:
    whole = records.make_record(encryption_key_id=records.OTHER_ID)
    lines = form(whole).splitlines(keepends=True)
    assert read(''.join(lines)) == [whole]
    without = ''.join(line for line in lines if 'encryption_key_id' not in line)
    with pytest.raises(errors.InvalidRecord, match='encryption_key_id'):
        read(without)


@pytest.mark.parametrize('between', ['\n', '# of the old cloud\n', '--More--\n', '> '])
def test_yaml_that_something_stands_in_is_not_cut_short(between: str) -> None:
    text = record_forms.decoded_yaml(records.make_record(encryption_key_id=records.OTHER_ID))
    with pytest.raises(errors.InvalidRecord, match='encryption_key_id'):
        read(text.replace('encryption_key_id', f'{between}encryption_key_id'))


def test_halves_of_decoded_records_that_do_not_fit_together() -> None:
    other_volume = records.THIRD_ID
    other = records.make_fields(
        id=records.OTHER_ID,
        volume_id=other_volume,
        service_metadata=json.dumps({'base': f'volume-{other_volume}.backup.{records.OTHER_ID}'}),
    )
    one, two = (json.dumps(fields, indent=1) for fields in (records.make_fields(), other))
    cut = one.splitlines(keepends=True)
    for number, line in enumerate(cut):
        if 'service_metadata' in line:
            break
        halves = ''.join(cut[: number + 1] + two.splitlines(keepends=True)[number + 1 :])
        if '"id"' not in ''.join(cut[: number + 1]):
            continue
        with pytest.raises(errors.InvalidRecord, match='do not belong together'):
            read(halves)


@pytest.mark.parametrize(
    ('lines', 'expected'),
    [
        ([76, 76, 40], True),
        ([60, 76, 40], True),
        ([70, 6, 70, 6, 70, 6, 20], True),
        ([600, 700], False),
        ([76, 60, 76, 40], False),
        ([76, 76, 80], False),
    ],
)
def test_lines_of_any_length_are_no_record(lines: list[int], expected: bool) -> None:
    url, pieces = records.make_record().backup_url, []
    for size in lines[:-1]:
        pieces.append(url[:size])
        url = url[size:]
    rest = [url] if len(lines) == 2 else record_forms.wrap(url, max(lines[:2]))
    if lines[-1] == 80:
        rest = [url[:76], url[76:156], *record_forms.wrap(url[156:], 76)]
    text = '\n'.join([*pieces, *rest])
    if expected and lines[1] != 6:
        assert read(text) == [records.make_record()]
    elif not expected:
        with pytest.raises(errors.InvalidRecord, match='do not belong together'):
            read(text)


def test_lines_that_were_wrapped_twice() -> None:
    lines = record_forms.wrap(records.make_record().backup_url, 76)
    text = '\n'.join(f'> {line[:70]}\n{line[70:]}' for line in lines)
    assert read(text) == [records.make_record()]


def test_show_of_the_client_is_no_record() -> None:
    for wrapping in record_forms.WRAPPINGS[-6:-4]:
        with pytest.raises(errors.InvalidRecord, match='there is no backup record in it'):
            read(wrapping(''))


def test_a_record_that_begins_is_never_passed_over() -> None:
    whole = records.make_record()
    other = records.make_record(id=records.OTHER_ID)
    for cut in (7, 100, len(other.backup_url) // 2, len(other.backup_url) - 3):
        for text in (
            f'{whole.backup_url}\n\n{other.backup_url[:cut]}\n',
            f'{other.backup_url[:cut]}\n\n{whole.backup_url}\n',
            f'{record_forms.pretty(whole)}\n{record_forms.pretty(other)[: cut + 80]}',
        ):
            with pytest.raises(errors.InvalidRecord, match=r'line .*, column'):
                read(text)


def test_a_record_that_ends_is_never_passed_over() -> None:
    whole = records.make_record()
    other = records.make_record(id=records.OTHER_ID).backup_url
    for cut in (20, 101, 502, len(other) - 200):
        with pytest.raises(errors.InvalidRecord, match='without its beginning'):
            read(f'{other[cut:]}\n\n{record_forms.table(whole)}')


def test_a_driver_without_a_record_is_never_passed_over() -> None:
    whole = record_forms.pretty(records.make_record())
    for text in (
        f'{whole}\nbackup_service: {records.CEPH}\n',
        f'backup_service: {records.CEPH}\n{whole}',
    ):
        with pytest.raises(errors.InvalidRecord, match='no backup_url'):
            read(text)


@pytest.mark.parametrize(
    'text',
    [
        'backup_service: {nfs}\nbackup_url: {url}\n',
        'cinder backup-import {nfs} {url}\n',
        '{nfs}\n{url}\n',
        "export backup_url='{url}'\nexport backup_service='{nfs}'\n",
        '{nfs},{url}\n',
    ],
)
def test_another_driver_beside_the_record(text: str) -> None:
    nfs = 'cinder.backup.drivers.nfs.NFSBackupDriver'
    with pytest.raises(errors.InvalidRecord, match='expected the same driver in both'):
        read(text.format(nfs=nfs, url=records.make_record().backup_url))


@pytest.mark.parametrize('driver', ['', 5, 'c', True])
def test_a_driver_that_is_none_is_not_taken_from_the_record(driver: object) -> None:
    url = records.make_record().backup_url
    for content in (
        json.dumps({'backup_service': driver, 'backup_url': url}),
        repr({'backup_url': url, 'backup_service': driver}),
        f'backup_service: {driver!r}\nbackup_url: {url}\n',
    ):
        with pytest.raises(errors.InvalidRecord, match='backup_service'):
            read(content)


def test_what_is_told_to_be_base64_has_to_begin_as_such() -> None:
    item = records.make_record()
    for content in (f'backup_url: "$$$${item.backup_url}"', f'backup_url=%{item.backup_url}'):
        with pytest.raises(errors.InvalidRecord, match='does not begin as base64'):
            read(content)


def test_drivers_of_several_records() -> None:
    nfs = 'cinder.backup.drivers.nfs.NFSBackupDriver'
    items = [
        records.make_record(service=None),
        records.make_record(nfs, service=None, id=records.OTHER_ID, service_metadata=None),
        records.make_record(id=records.THIRD_ID),
    ]
    for form in (record_forms.value, record_forms.url_first, record_forms.as_yaml):
        assert read(''.join(map(form, items))) == items


def test_the_same_record_twice() -> None:
    item = records.make_record()
    moved = records.make_record(updated_at='2026-12-01T00:00:00Z')
    assert read(record_forms.table(item) + record_file.write_record(item)) == [item]
    assert read(record_forms.table(item) + record_forms.bare(moved)) == [item]
    with pytest.raises(errors.InvalidRecord, match='says something else'):
        read(record_forms.table(item) + record_forms.bare(records.make_record(size=2)))


def test_only_our_own_file_is_our_own() -> None:
    item = records.make_record()
    own = record_file.write_record(item).encode()
    assert record_file.read_own(own, 'x') == item
    for data in (
        record_forms.table(item).encode(),
        own + own,
        b'# ' + own,
        b'{}',
        b'[' * 2000,
        own.replace(b'"container": "backups"', b'"container": "other"'),
    ):
        with pytest.raises(errors.InvalidRecord):
            record_file.read_own(data, 'x')


HOSTILE: dict[str, tuple[bytes, bytes]] = {
    'words': (b'', b'A '),
    'label and lines': (b'backup_url: A\n', b'A\n'),
    'narrow table': (b'+-+\n| backup_url | A |\n', b'| | A |\n'),
    'bad records': (b'', b'{"backup_url":"AAAA"}'),
    'label and spaces': (b'backup_url', b' '),
    'label and quotes': (b'backup_url: ', b'"'),
    'backslashes': (b'backup_url: A', b'\\'),
    'beginnings': (b'', b'eyJ '),
    'one beginning': (b'', b'eyJ'),
    'other objects': (b'', b'eyIiOjF9 '),
    'drivers': (b'', b'cinder.backup.drivers.ceph.CephBackupDriver '),
    'told drivers': (b'', b'backup_service: cinder.backup.drivers.ceph\n'),
    'colours': (b'', b'xx\x1b[m'),
    'titles': (b'', b'\x1b]'),
    'fields': (b'', b'{"service_metadata":'),
    'fields in a string': (b'', b'\\"service_metadata\\":'),
    'fields in YAML': (b'', b'\nservice_metadata: x'),
    'fields behind YAML': (b'service_metadata: x', b'\na: x'),
    'shown': (b'', b'"backup":{}'),
    'shown in itself': (b'', b'"backup":{'),
    'braces': (b'', b'{'),
    'long words': (b'', b'A' * 40 + b' '),
    'long text': (b'', b'I' * 40 + b'\n'),
    'log': (b'eyJk\n', b'2026-11-27 23:02:00 a b c d e f g h i\n'),
    'narrow beginnings': (b'', b'e   \n   '),
    'marks': (b'', b'# backup_url: eyJhYmM\n'),
    'numbers': ((b'1 ' * 95 + b'backup_url: eyJhYmM\n') * 2, b'1' * 199 + b'x\n'),
    'UTF-16': (b'', 'eyJ€ '.encode('utf-16-le')),
    'no UTF-8': (b'', b'\xff'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_time_grows_with_the_size_only(name: str) -> None:
    beginning, more = HOSTILE[name]

    def seconds(size: int) -> float:
        data = beginning + more * (size // len(more))
        began = time.process_time()
        with pytest.raises(errors.InvalidRecord) as caught:
            read(data)
        assert len(str(caught.value)) < 8000
        return time.process_time() - began

    small, large = seconds(1 << 15), seconds(1 << 18)
    # Eight times as much; what is quadratic would take 64 times as long.
    assert large < 24 * small + 0.5


def test_time_grows_with_the_number_of_records_only() -> None:
    def seconds(number: int) -> float:
        items = [records.make_record(id=f'{n:08x}{records.ID[8:]}') for n in range(number)]
        data = ''.join(f'{item.backup_url}\n' for item in items)
        began = time.process_time()
        assert len(read(data)) == number
        return time.process_time() - began

    small, large = seconds(100), seconds(1600)
    assert large < 48 * small + 0.5


def test_too_many_records_for_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_file, 'MAX_VALUES', 1000)
    items = [records.make_record(id=f'{n:08x}{records.ID[8:]}') for n in range(40)]
    with pytest.raises(errors.InvalidRecord, match='too many for one file'):
        read(''.join(map(record_forms.value, items)))


@pytest.mark.parametrize('name', ['colours', 'UTF-16'])
def test_memory_is_bounded(name: str) -> None:
    script = """if True:
        import sys
        from osc_backup_port import errors
        from osc_backup_port.formats import record_file
        from tests.unit import peak_memory, test_record_file
        beginning, more = test_record_file.HOSTILE[sys.argv[1]]
        data = beginning + more * ((16 << 20) // len(more))
        before = peak_memory.mebibytes()
        try:
            record_file.read_records(data, 'x')
        except errors.InvalidRecord:
            pass
        # Some copies of the file, and what the pieces take that are cleaned at a time.
        peak = peak_memory.mebibytes()
        assert peak - before < 120, (before, peak)
    """
    subprocess.run([sys.executable, '-c', script, name], check=True, cwd=records.DATA.parents[2])


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
        ('{"backup_service": "x"', 'no backup_url'),
        ('{"id": "x", "metadata": {}}', 'no backup record'),
        ('{"backup_url": 5}', 'line 1, column 16: no backup record can be made of'),
        ('[]', 'no backup record'),
        ('[1]', 'no backup record'),
        ('[' * 100_000, 'no backup record'),
        ('| a | b |\n', 'no backup record'),
        ('backup_service=cinder.backup.drivers.nfs\n', 'no backup_url'),
        ('cinder.backup.drivers.nfs\n', 'no backup record'),
        ('\n ERROR: \x07not found', "begins in line 2, column 2 with 'ERROR: not found'"),
        (b'A' * (record_file.MAX_FILE_SIZE + 1), 'is 32.0 MiB'),
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
    lines = str(caught.value).splitlines()
    assert lines[0].startswith('x, line 1, column 82: no backup record can be made of')
    assert lines[1].startswith(f'x, line {good.count(chr(10)) + 3}, column 82: no backup record')
