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

"""What the fields of a backup record have to be.

Cinder checks little of it.  A record that it takes and should not ends in
one of three ways: the backup goes to ``error``; it stays ``creating`` for good,
because the service fails on a value after the last place where it would
notice; or it is ``available`` and can be neither restored nor deleted.
Source: ``cinder/backup/manager.py``, ``BackupManager.import_record``, and the
columns of ``cinder/db/sqlalchemy/models.py``.
"""

import collections.abc
import datetime
import json
import re
import typing

from osc_backup_port import documents

#: What Cinder writes as volume_id while an import is under way, or failed.
NO_VOLUME = '00000000-0000-0000-0000-000000000000'

_UNSTORABLE = re.compile('[\0\U00010000-\U0010ffff]')
_UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_CLASS_PATH = re.compile(r'[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\.[A-Z]\w*', re.ASCII)

_DRIVERS = 'cinder.backup.drivers'
# The drivers in Cinder's tree, over all releases.  Cinder compares by prefix,
# so a name that is cut off works until it meets a second driver.
_KNOWN = {
    'ceph': 'CephBackupDriver',
    'gcs': 'GoogleBackupDriver',
    'glusterfs': 'GlusterfsBackupDriver',
    'google': 'GoogleBackupDriver',
    'nfs': 'NFSBackupDriver',
    'posix': 'PosixBackupDriver',
    's3': 'S3BackupDriver',
    'swift': 'SwiftBackupDriver',
    'tsm': 'TSMBackupDriver',
}

_MAX_INT = 0x7FFFFFFF
# Columns of 255 characters; MariaDB refuses what is longer.
_MAX_TEXT = 255

# Cinder refuses an import without these, after it has made the backup.
_REQUIRED = (
    'container',
    'display_description',
    'display_name',
    'object_count',
    'service_metadata',
)
_TEXTS = (
    'availability_zone',
    'container',
    'display_description',
    'display_name',
    'host',
    'service',
)
_UUIDS = (
    'encryption_key_id',
    'parent_id',
    'restore_volume_id',
    'snapshot_id',
    'temp_snapshot_id',
    'temp_volume_id',
)
# What every release writes, and what later ones added to it, in their order.  Source: the
# history of versions in ``cinder/objects/backup.py``.
_OF_ALL_RELEASES = frozenset({
    'availability_zone',
    'container',
    'created_at',
    'deleted',
    'deleted_at',
    'display_description',
    'display_name',
    'fail_reason',
    'host',
    'id',
    'object_count',
    'parent_id',
    'project_id',
    'service',
    'service_metadata',
    'size',
    'status',
    'updated_at',
    'user_id',
    'volume_id',
})  # fmt: skip
_ADDED = (
    ('temp_snapshot_id', 'temp_volume_id'),
    ('num_dependent_backups',),
    ('data_timestamp', 'snapshot_id'),
    ('restore_volume_id',),
    ('metadata',),
    ('encryption_key_id',),
)
# So many of them were there when Liberty began to write driver_info.
_WITH_DRIVER_INFO = 2
_NUMBERS = ('num_dependent_backups', 'object_count')
_TIMES = ('created_at', 'data_timestamp', 'updated_at')


def check(backup_service: object, fields: collections.abc.Mapping[str, typing.Any]) -> list[str]:
    """Return every finding, each with what was found and what was expected."""
    findings = [
        *_check_service(backup_service, fields),
        *_check_id(fields, 'id'),
        *_check_id(fields, 'volume_id'),
        *_check_size(fields),
    ]
    for name in _REQUIRED:
        if name not in fields:
            findings.append(f'{name} is missing; Cinder would leave the backup in error')
    for name in _UUIDS:
        if fields.get(name) is not None:
            findings += _check_id(fields, name)
    for name in _TEXTS:
        findings += _check_text(fields, name)
    for name in _NUMBERS:
        value = fields.get(name)
        if value is not None and not _is_number(value, 0):
            findings.append(f'{name} is {_show(value)}, expected a number from 0 on, or null')
    for name in _TIMES:
        findings += _check_time(fields, name)
    findings += _check_properties(fields)
    findings += _check_service_metadata(backup_service, fields)
    return findings


def lost_fields(fields: collections.abc.Mapping[str, typing.Any]) -> list[str]:
    """Return which fields are not there and have to be, after those that are.

    Cinder does without most of them, so this tells only whether something was lost of a
    record on its way.
    """
    expected = set(_OF_ALL_RELEASES)
    for added in _ADDED[: _release(fields)]:
        expected.update(added)
    return sorted(expected - fields.keys())


def _release(fields: collections.abc.Mapping[str, typing.Any]) -> int:
    """Return how much of what was added, over the years, a record has to have."""
    known = _OF_ALL_RELEASES.union(('driver_info',), *_ADDED)
    # Stein began to tell the image, after all of these.  A name that is not known is of a
    # later release still, or was made of two that were cut.
    if not fields.keys() <= known or '"base"' in str(fields.get('service_metadata')):
        return len(_ADDED)
    there = [number for number, added in enumerate(_ADDED, 1) if fields.keys() & set(added)]
    return max([_WITH_DRIVER_INFO if 'driver_info' in fields else 0, *there])


def is_ceph(backup_service: object) -> bool:
    """Tell whether *backup_service* is Cinder's Ceph driver, class or module."""
    return _driver_module(backup_service) == f'{_DRIVERS}.ceph'


def is_same_driver(one: object, other: object) -> bool:
    """Tell whether two names are of one driver.

    Queens and before named it by its module, later releases by its class.  Source:
    ``cinder/backup/manager.py``, ``BackupManager._is_our_backup``.
    """
    return _driver_module(one) == _driver_module(other)


def unstorable(
    fields: collections.abc.Mapping[str, typing.Any],
) -> collections.abc.Iterator[tuple[str, str]]:
    """Return what not every database can hold, of the texts that an import writes there.

    A MariaDB or MySQL as Cinder sets it up has the character set ``utf8mb3``, which ends at
    U+FFFF; a PostgreSQL holds no NUL.  The service fails on them after the last place where it
    would notice: the backup stays ``creating`` for good.  Host, availability zone and service
    are overwritten before.

    :return: the name of each field, with its first such character
    """
    for name in ('display_name', 'display_description', 'container', 'service_metadata'):
        yield from _unstorable(name, fields.get(name))
    for key, value in (fields.get('metadata') or {}).items():
        yield from _unstorable('a key of metadata', key)
        yield from _unstorable(f'metadata {key!a}', value)


def replace_unstorable(text: str) -> str:
    """Return a text with ``?`` for each character that not every database can hold."""
    return _UNSTORABLE.sub('?', text)


def _unstorable(name: str, text: object) -> collections.abc.Iterator[tuple[str, str]]:
    found = _UNSTORABLE.search(text) if isinstance(text, str) else None
    if found:
        yield name, f'U+{ord(found[0]):04X}'


def is_uuid(value: object) -> bool:
    """Tell whether *value* is an id the way Cinder writes it, in lower case."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def json_type(value: object) -> str:
    """Return what JSON calls the type of *value*."""
    if value is None:
        return 'null'
    names = {bool: 'boolean', int: 'number', float: 'number', str: 'string', list: 'list'}
    return names.get(type(value), 'object')


def _driver_module(service: object) -> str | None:
    """Return the module of a driver given as a class path or as a module."""
    if not isinstance(service, str):
        return None
    module = service.rpartition('.')[0] if _CLASS_PATH.fullmatch(service) else service
    # Cinder renamed this one and knows both names.
    return f'{_DRIVERS}.gcs' if module == f'{_DRIVERS}.google' else module


def _is_driver(service: object) -> bool:
    if not isinstance(service, str):
        return False
    for name, class_name in _KNOWN.items():
        module = f'{_DRIVERS}.{name}'
        if service in (module, f'{module}.{class_name}'):
            return True
        if service.startswith(f'{module}.'):
            return False
    return _CLASS_PATH.fullmatch(service) is not None


def _check_service(service: object, fields: collections.abc.Mapping[str, typing.Any]) -> list[str]:
    if not _is_driver(service):
        found = _show(service)
        wanted = f'the whole path of a driver class ({_DRIVERS}.ceph.CephBackupDriver for Ceph)'
        return [f'backup_service is {found}, expected {wanted}']
    inside = fields.get('service')
    if inside is not None and _driver_module(inside) != _driver_module(service):
        found = f'backup_service is {_show(service)} and service in backup_url {_show(inside)}'
        return [f'{found}, expected the same driver in both']
    return []


def _check_id(fields: collections.abc.Mapping[str, typing.Any], name: str) -> list[str]:
    if name not in fields:
        return [f'{name} is missing, expected a UUID']
    if not is_uuid(fields[name]):
        return [f'{name} is {_show(fields[name])}, expected a UUID in lower case']
    return []


def _check_size(fields: collections.abc.Mapping[str, typing.Any]) -> list[str]:
    if 'size' not in fields:
        return ['size is missing, expected the size of the volume in GiB']
    if not _is_number(fields['size'], 1):
        return [f'size is {_show(fields["size"])}, expected a whole number of GiB from 1 on']
    return []


def _check_text(fields: collections.abc.Mapping[str, typing.Any], name: str) -> list[str]:
    value = fields.get(name)
    if value is None or (isinstance(value, str) and len(value) <= _MAX_TEXT):
        return []
    found = f'{len(value)} characters long' if isinstance(value, str) else _show(value)
    return [f'{name} is {found}, expected a text of at most {_MAX_TEXT} characters, or null']


def _check_time(fields: collections.abc.Mapping[str, typing.Any], name: str) -> list[str]:
    value = fields.get(name)
    if value is None:
        return []
    try:
        # Python 3.10 does not know the Z that Cinder ends its times with.
        datetime.datetime.fromisoformat(re.sub('Z$', '+00:00', value))
    except (TypeError, ValueError):
        return [f'{name} is {_show(value)}, expected a time such as 2026-01-31T12:00:00Z']
    return []


def _check_properties(fields: collections.abc.Mapping[str, typing.Any]) -> list[str]:
    value = fields.get('metadata')
    if value is None:
        return []
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        return [f'metadata is {_show(value)}, expected an object whose values are texts']
    longest = max((len(text) for pair in value.items() for text in pair), default=0)
    if longest > _MAX_TEXT:
        return [f'metadata has a text of {longest} characters, expected at most {_MAX_TEXT}']
    return []


def _check_service_metadata(
    service: object, fields: collections.abc.Mapping[str, typing.Any]
) -> list[str]:
    value = fields.get('service_metadata')
    if value is not None and not isinstance(value, str):
        return [f'service_metadata is {_show(value)}, expected a text or null']
    if value and len(value) > _MAX_TEXT:
        return [f'service_metadata has {len(value)} characters, expected at most {_MAX_TEXT}']
    # Every other driver keeps a text of its own there.
    if not is_ceph(service):
        return []
    if not value:
        if fields.get('volume_id') == NO_VOLUME:
            return [f'volume_id is {NO_VOLUME}, and service_metadata names no RBD image either']
        return []
    try:
        base = documents.read_json(value)['base']
    except (ValueError, KeyError, TypeError):
        base = None
    if isinstance(base, str) and base:
        return []
    wanted = '{"base": "<RBD image>"}, or Cinder can neither restore nor delete the backup'
    return [f'service_metadata is {_show(value)}, expected {wanted}']


def _is_number(value: object, least: int) -> bool:
    # True is an int in Python, not in JSON.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MAX_INT


def _show(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
