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

import base64
import collections.abc
import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_backup_port import errors
from osc_backup_port.record import BackupRecord
from tests.unit import records

NOTHING = object()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec='utf-8'), max_size=20),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=8,
)


def test_decode_keeps_the_string_of_cinder() -> None:
    url = records.encode(records.make_fields())
    record = BackupRecord.decode(records.CEPH, url)
    assert record.backup_url == url
    assert dict(record.fields) == records.make_fields()
    assert list(record.fields) == list(records.make_fields())


def test_properties() -> None:
    record = records.make_record(parent_id=records.OTHER_ID, size=7)
    assert (record.id, record.volume_id) == (records.ID, records.VOLUME_ID)
    assert record.parent_id == records.OTHER_ID
    assert (record.container, record.size, record.service) == ('backups', 7, records.CEPH)
    assert record.base_image == f'volume-{records.VOLUME_ID}.backup.{records.ID}'
    assert record.snapshot_id is None
    assert record.encryption_key_id is None
    assert record.num_dependent_backups == 1
    assert record.created_at == '2026-11-21T00:56:39Z'
    assert record.display_name == 'nightly'
    assert record.is_ceph


@pytest.mark.parametrize(
    ('image_size', 'expected'),
    [
        (2 << 30, True),
        ((1 << 30) + 1, True),
        ((1536 << 20) + 12345, True),
        (1 << 30, False),
        ((2 << 30) + 1, False),
        (0, False),
    ],
)
def test_the_size_is_rounded_up_to_whole_gib(image_size: int, expected: bool) -> None:
    assert records.make_record(size=2).fits(image_size) is expected


def test_line_ends_are_taken_out() -> None:
    record = records.make_record()
    wrapped = '\r\n'.join(
        record.backup_url[start : start + 76] for start in range(0, len(record.backup_url), 76)
    )
    assert BackupRecord.decode(records.CEPH, f' {wrapped}\n') == record


def test_record_of_2015() -> None:
    folder = records.DATA / 'records-2015'
    record = BackupRecord.decode('cinder.backup.drivers.nfs', (folder / 'sed.txt').read_text())
    assert dict(record.fields) == json.loads((folder / 'decoded.json.txt').read_text())
    assert not record.is_ceph
    assert record.service_metadata == 'backup'
    assert record.base_image is None
    assert record.num_dependent_backups == 0
    assert record.encryption_key_id is None


def test_service_is_taken_from_inside_when_not_given() -> None:
    assert BackupRecord.decode(None, records.make_record().backup_url) == records.make_record()


@pytest.mark.parametrize(
    'service',
    [
        records.CEPH,
        'cinder.backup.drivers.ceph',
        'cinder.backup.drivers.s3.S3BackupDriver',
        'cinder.backup.drivers.google.GoogleBackupDriver',
        'cinder.backup.drivers.swift',
        'com_example.backup.ExampleDriver',
    ],
)
def test_services(service: str) -> None:
    record = records.make_record(service, service=service)
    assert record.is_ceph == ('ceph' in service)


def test_module_and_class_are_the_same_driver() -> None:
    assert records.make_record('cinder.backup.drivers.ceph').is_ceph


@pytest.mark.parametrize(
    'service',
    [
        '',
        'c',
        'cinder.backup',
        'cinder.backup.drivers',
        'cinder.backup.drivers.cep',
        'cinder.backup.drivers.ceph.',
        records.CEPH[:-1],
        f'{records.CEPH}.x',
        f' {records.CEPH}',
        'cinder.backup.drivers.nfs',
        'cinder.backup.drivers.nfs.NFSBackupDriver',
        5,
        True,
        [],
    ],
)
def test_bad_service(service: typing.Any) -> None:
    with pytest.raises(errors.InvalidRecord, match='backup_service is'):
        BackupRecord.decode(service, records.encode(records.make_fields()))


@pytest.mark.parametrize(
    ('url', 'found'),
    [
        ('', 'is empty'),
        (' \n', 'is empty'),
        ('abcde', 'has 5 characters'),
        ('abcdefg', 'has 7 characters'),
        ('ab!d', 'is not base64'),
        ('abcé', 'is not base64'),
        ('ab=d', 'is not base64'),
        (base64.b64encode(b'\xff\xff\xff').decode(), 'not UTF-8'),
        (base64.b64encode(b'{"id": ').decode(), 'is not JSON'),
        (base64.b64encode(b'{"size": NaN}').decode(), 'NaN is not a JSON number'),
        (base64.b64encode(b'{"id": 1, "id": 2}').decode(), 'twice'),
        (base64.b64encode(b'{"id": "\\ud800"}').decode(), 'is not JSON'),
        (base64.b64encode(b'[' * 100_000).decode(), 'is not JSON'),
        (base64.b64encode(b'1' * 10_000).decode(), 'is not JSON'),
        (records.encode([]), 'holds a JSON list'),
        (records.encode('x'), 'holds a JSON string'),
        (records.encode(None), 'holds a JSON null'),
        ('A' * (2**20 + 1), '1.0 MiB long'),
    ],
)
def test_no_record_at_all(url: str, found: str) -> None:
    with pytest.raises(errors.InvalidRecord) as caught:
        BackupRecord.decode(records.CEPH, url, 'x.json')
    assert caught.value.problem.startswith('x.json: backup_url ')
    assert found in caught.value.problem
    assert 'metadata export' in (caught.value.hint or '')


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('id', [NOTHING, None, '', 5, 'v', records.ID.upper(), f'{{{records.ID}}}', '../x']),
        ('volume_id', [NOTHING, None, 'v', records.VOLUME_ID + ' ']),
        ('size', [NOTHING, None, '1', 0, -5, True, 1.0, 2**31]),
        ('container', [NOTHING, 5, 'x' * 256]),
        ('service_metadata', [NOTHING, '{', '[]', '{}', '{"base": 5}', '"x"', {}, 'x' * 256]),
        ('display_name', [NOTHING, 5, 'x' * 256]),
        ('display_description', [NOTHING, [], 'x' * 256]),
        ('object_count', [NOTHING, '5', -1]),
        ('num_dependent_backups', ['5', -1, True]),
        ('parent_id', ['', 'x', 5]),
        ('snapshot_id', ['x']),
        ('encryption_key_id', ['x']),
        ('created_at', ['yesterday', 5, '']),
        ('data_timestamp', ['2026-13-01T00:00:00Z']),
        ('metadata', [[1], 'x', {'a': 1}]),
        ('service', ['cinder.backup.drivers.nfs.NFSBackupDriver']),
    ],
)
def test_bad_field(name: str, values: list[object]) -> None:
    for value in values:
        fields = records.make_fields(**{name: value})
        if value is NOTHING:
            del fields[name]
        with pytest.raises(errors.InvalidRecord) as caught:
            BackupRecord.decode(records.CEPH, records.encode(fields), 'x.json')
        assert [name in str(detail) for detail in caught.value.details] == [True], value


def test_all_findings_at_once() -> None:
    fields = records.make_fields(size=0, id=None)
    del fields['container']
    with pytest.raises(errors.InvalidRecord) as caught:
        BackupRecord.decode(records.CEPH, records.encode(fields))
    assert len(caught.value.details) == 3


def test_no_volume_and_no_base() -> None:
    zeros = '00000000-0000-0000-0000-000000000000'
    with pytest.raises(errors.InvalidRecord, match='names no RBD image'):
        records.make_record(volume_id=zeros, service_metadata=None)
    assert records.make_record(volume_id=zeros).volume_id == zeros


def test_old_layout_and_free_text_of_other_drivers() -> None:
    assert records.make_record(service_metadata=None).base_image is None
    nfs = 'cinder.backup.drivers.nfs.NFSBackupDriver'
    assert records.make_record(nfs, service=nfs, service_metadata='backup').base_image is None


def test_warnings() -> None:
    assert records.make_record().warnings == []
    assert len(records.make_record(deleted=True, status='error').warnings) == 2


def test_with_changes() -> None:
    record = records.make_record(unknown={'new': [1]})
    assert record.with_changes(container='backups') is record
    changed = record.with_changes(container='cinder.backups')
    assert dict(changed.fields) == {**record.fields, 'container': 'cinder.backups'}
    assert list(changed.fields) == list(record.fields)
    assert BackupRecord.decode(records.CEPH, changed.backup_url) == changed
    with pytest.raises(errors.InvalidRecord):
        record.with_changes(size=0)


def test_with_changes_adds_what_was_not_there() -> None:
    fields = records.make_fields()
    del fields['snapshot_id']
    record = BackupRecord.decode(records.CEPH, records.encode(fields))
    assert 'snapshot_id' in record.with_changes(snapshot_id=None).fields


def test_says_the_same_as() -> None:
    record = records.make_record()
    assert record.says_the_same_as(records.make_record(updated_at=None))
    assert not record.says_the_same_as(records.make_record(size=2))


def test_encode_is_what_cinder_makes() -> None:
    url = json.loads((records.DATA / 'records' / 'osc-10.5.json').read_text())['backup_url']
    record = BackupRecord.decode(records.CEPH, url)
    assert BackupRecord.encode(record.fields) == url


def test_is_immutable_and_hashable() -> None:
    record = records.make_record()
    assert hash(record) == hash(records.make_record())
    with pytest.raises(TypeError):
        typing.cast(typing.Any, record.fields)['size'] = 2


@given(st.dictionaries(st.text(st.characters(codec='utf-8'), min_size=1), json_values, max_size=5))
def test_unknown_fields_survive(extra: dict[str, typing.Any]) -> None:
    fields = {**extra, **records.make_fields()}
    record = BackupRecord.decode(records.CEPH, records.encode(fields))
    assert dict(record.fields) == fields
    moved = record.with_changes(container='elsewhere')
    assert dict(moved.fields) == {**fields, 'container': 'elsewhere'}


@given(st.text(max_size=200))
def test_any_text_is_a_record_or_a_clear_error(text: str) -> None:
    with pytest.raises(errors.InvalidRecord):
        BackupRecord.decode(records.CEPH, text)


@given(st.sampled_from(sorted(records.make_fields())), json_values)
def test_any_field_is_right_or_a_clear_error(name: str, value: typing.Any) -> None:
    fields: collections.abc.Mapping[str, typing.Any] = {**records.make_fields(), name: value}
    try:
        record = BackupRecord.decode(records.CEPH, records.encode(fields))
    except errors.InvalidRecord:
        return
    assert record.size >= 1
    assert record.base_image is None or record.base_image
    assert record.num_dependent_backups >= 0
    assert isinstance(record.warnings, list)
