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

"""A backup record: what ``export_record`` gives and ``import_record`` takes.

Cinder hands out two strings: ``backup_service``, the driver that made the
backup, and ``backup_url``, the base64 of a JSON object with every field of
the backup.  Source: ``cinder/objects/backup.py``, ``Backup.encode_record``.
"""

import base64
import binascii
import collections.abc
import dataclasses
import functools
import json
import re
import types
import typing

from osc_backup_port import documents, errors, record_rules, spool, units

#: A record has about thirty short fields, some 2 KiB.  What is larger than
#: this is some other file, perhaps the image itself.
MAX_SIZE = units.MIB

_EXPORT_ANEW = (
    'Export the record anew on the cloud that the backup comes from: '
    'openstack volume backup metadata export <backup>'
)
_WHITESPACE = re.compile(r'[ \t\r\n]+')


@dataclasses.dataclass(frozen=True, slots=True)
class BackupRecord:
    """One backup record: valid, decoded, and as Cinder gave it.

    Make one with :meth:`decode`.

    :ivar backup_service: the driver, ``cinder.backup.drivers.ceph.CephBackupDriver``
        for one; a module in records of Queens and before
    """

    backup_service: str
    _url: spool.Spooled
    # The same thing as the other, so it takes no part in comparing.  None: it is large, and
    # decoded anew whenever it is asked for.
    _fields: collections.abc.Mapping[str, typing.Any] | None = dataclasses.field(
        compare=False, repr=False
    )

    @classmethod
    def decode(
        cls, backup_service: str | None, backup_url: str, source: str = 'The backup record'
    ) -> 'BackupRecord':
        """Decode and check a record.

        It refuses what Cinder refuses, and also what Cinder takes today and
        fails on later: such a backup goes to ``error``, stays ``creating``,
        or can be neither restored nor deleted.

        :param backup_service: None where only the base64 was at hand: the
            ``service`` field inside is taken then
        :param source: what to call the record in an error, a file name best
        :raises errors.InvalidRecord: with every finding, not just the first
        """
        if len(backup_url) > MAX_SIZE:
            found = units.human_size(len(backup_url))
            raise _invalid(source, f'is {found} long; a record has some 2 KiB')
        compact = _WHITESPACE.sub('', backup_url)
        fields = _parse(compact, source)
        if backup_service is None:
            backup_service = fields.get('service')
        findings = record_rules.check(backup_service, fields)
        if findings or backup_service is None:
            raise errors.InvalidRecord(
                f'{source} is not a record that Cinder can use:',
                _EXPORT_ANEW,
                [f'  - {finding}' for finding in findings],
            )
        url = spool.Spooled(compact.encode('ascii'))
        is_light = url.is_in_memory and not any(
            value and isinstance(value, dict | list) for value in fields.values()
        )
        return cls(backup_service, url, types.MappingProxyType(fields) if is_light else None)

    @property
    def backup_url(self) -> str:
        """The base64 string of Cinder itself, but for line ends that a table or mail put in."""
        return self._url.read().decode('ascii')

    @property
    def fields(self) -> collections.abc.Mapping[str, typing.Any]:
        """The decoded JSON, unknown fields and the order kept."""
        return _decode(self._url) if self._fields is None else self._fields

    @classmethod
    def of_fields(
        cls,
        backup_service: str | None,
        fields: collections.abc.Mapping[str, typing.Any],
        source: str = 'The backup record',
    ) -> 'BackupRecord':
        """Encode and check a record of which only the fields are at hand.

        :param backup_service: None: the ``service`` field is taken
        :raises errors.InvalidRecord: with every finding, not just the first
        """
        try:
            url = cls.encode(fields)
        except (ValueError, TypeError, RecursionError) as error:
            raise errors.InvalidRecord(f'{source}: its fields are no JSON ({error}).') from None
        return cls.decode(backup_service, url, source)

    @staticmethod
    def encode(fields: collections.abc.Mapping[str, typing.Any]) -> str:
        """Return the base64 that Cinder would make of *fields*."""
        return base64.b64encode(json.dumps(dict(fields)).encode()).decode('ascii')

    def with_changes(self, **changes: typing.Any) -> 'BackupRecord':
        """Return this record with some fields replaced.

        Nothing is encoded anew when nothing changes.

        :raises errors.InvalidRecord: the change makes the record invalid
        """
        if all(name in self.fields and self.fields[name] == changes[name] for name in changes):
            return self
        fields = {**self.fields, **changes}
        return self.decode(self.backup_service, self.encode(fields), f'Backup {self.id}')

    def says_the_same_as(self, other: 'BackupRecord') -> bool:
        """Tell whether two records of a backup differ at most in ``updated_at``.

        Every export moves that one: Cinder saves the backup while it exports it.
        """
        mine, theirs = ({**item.fields, 'updated_at': None} for item in (self, other))
        return self.backup_service == other.backup_service and mine == theirs

    @property
    def id(self) -> str:
        return str(self.fields['id'])

    @property
    def volume_id(self) -> str:
        return str(self.fields['volume_id'])

    @property
    def parent_id(self) -> str | None:
        return self._text('parent_id')

    @property
    def container(self) -> str | None:
        """Where the backup lies: for Ceph the pool."""
        return self._text('container')

    @property
    def size(self) -> int:
        """Size of the volume in GiB."""
        return int(self.fields['size'])

    def fits(self, image_size: int) -> bool:
        """Tell whether an image of *image_size* bytes can hold the data of this backup.

        Cinder rounds the size of a volume up to whole GiB: an image that it took over with
        ``cinder manage`` may have any size.  Source: ``cinder/volume/drivers/rbd.py``,
        ``manage_existing_get_size``.
        """
        return -(-image_size // units.GIB) == self.size

    @property
    def service(self) -> str | None:
        return self._text('service')

    @property
    def service_metadata(self) -> str | None:
        """A text of the driver's own; JSON for Ceph."""
        return self._text('service_metadata')

    @property
    def base_image(self) -> str | None:
        """The RBD image that a Ceph record names; None in old layouts."""
        if not self.is_ceph or not self.service_metadata:
            return None
        return str(json.loads(self.service_metadata)['base'])

    @property
    def snapshot_id(self) -> str | None:
        return self._text('snapshot_id')

    @property
    def encryption_key_id(self) -> str | None:
        return self._text('encryption_key_id')

    @property
    def num_dependent_backups(self) -> int:
        return int(self.fields.get('num_dependent_backups') or 0)

    @property
    def created_at(self) -> str | None:
        return self._text('created_at')

    @property
    def display_name(self) -> str | None:
        return self._text('display_name')

    @property
    def is_ceph(self) -> bool:
        return record_rules.is_ceph(self.backup_service)

    @property
    def warnings(self) -> list[str]:
        """What is odd in a valid record, one sentence each.

        Cinder drops both fields on import and exports neither kind, so such
        a record was edited, or written by another tool.
        """
        found = []
        if self.fields.get('deleted') or self.fields.get('deleted_at'):
            found.append('the record says that the backup was deleted; its data may be gone')
        status = self.fields.get('status', 'available')
        if status != 'available':
            found.append(f'the record says status {status!r}; its data may not be complete')
        return found

    def _text(self, name: str) -> str | None:
        value = self.fields.get(name)
        return None if value is None else str(value)


@functools.lru_cache(maxsize=1)
def _decode(url: spool.Spooled) -> collections.abc.Mapping[str, typing.Any]:
    """Return the fields of a record that was found valid."""
    return types.MappingProxyType(json.loads(base64.b64decode(url.read())))


def _parse(text: str, source: str) -> dict[str, typing.Any]:
    """Return the JSON object in the base64 *text*.

    :raises errors.InvalidRecord: it is not the base64 of a JSON object
    """
    if not text:
        raise _invalid(source, 'is empty')
    if len(text.rstrip('=')) % 4 == 1 or len(text) % 4:
        raise _invalid(
            source,
            f'has {len(text)} characters, which is no length that base64 has (was it cut off?)',
        )
    try:
        data = base64.b64decode(text.encode('ascii'), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _invalid(source, f'is not base64 (it begins with {text[:20]!r})') from None
    try:
        decoded = data.decode('utf-8')
    except UnicodeDecodeError:
        raise _invalid(source, 'is the base64 of something that is not UTF-8 text') from None
    try:
        fields = documents.read_json(decoded)
        # Half of a surrogate pair passes as JSON and cannot be stored.
        json.dumps(fields, ensure_ascii=False).encode('utf-8')
    except ValueError as error:
        raise _invalid(source, f'is not JSON ({error})') from None
    if not isinstance(fields, dict):
        raise _invalid(source, f'holds a JSON {record_rules.json_type(fields)}')
    return fields


def _invalid(source: str, found: str) -> errors.InvalidRecord:
    return errors.InvalidRecord(
        f'{source}: backup_url {found}, expected the base64 of a JSON object.',
        _EXPORT_ANEW,
    )
