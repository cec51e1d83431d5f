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

"""What of a backup is told otherwise to the cloud that it goes to."""

import collections.abc
import dataclasses
import json

from osc_backup_port import documents, errors, record, record_rules

Map = collections.abc.Mapping[str, str]

REFUSE, REPLACE, KEEP = 'refuse', 'replace', 'keep'


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """How records and volume metadata are changed on their way in.

    :ivar ceph_pool: the pool that the cloud keeps its backups in, if known
    :ivar name_prefix: what their names begin with then
    :ivar volume_id: the volume whose backups they are then
    :ivar keys: ids of the keys of encrypted volumes, by those of the other cloud
    :ivar volume_types: the same of volume types
    :ivar wide_characters: what becomes of characters that not every database can hold:
        ``refuse``, ``replace``, or ``keep``
    """

    ceph_pool: str | None = None
    name_prefix: str = ''
    volume_id: str | None = None
    keys: Map | None = None
    volume_types: Map | None = None
    wide_characters: str = REFUSE

    def rewrite(self, item: record.BackupRecord) -> record.BackupRecord:
        """Return the record as the other cloud is to have it.

        :raises errors.InvalidInput: its key is not mapped, or it becomes one that Cinder would
            not take
        """
        changes: dict[str, object] = {}
        if self.ceph_pool and item.is_ceph:
            # Other drivers have no pool there.
            changes['container'] = self.ceph_pool
        if self.name_prefix:
            changes['display_name'] = f'{self.name_prefix}{item.display_name or ""}'
        if self.volume_id:
            changes['volume_id'] = self.volume_id
        if self.keys is not None and item.encryption_key_id:
            changes['encryption_key_id'] = _mapped(
                self.keys, item.encryption_key_id, f'Backup {item.id}', '--key-map'
            )
        if changes:
            item = item.with_changes(**changes)
        return _replace_wide(item) if self.wide_characters == REPLACE else item

    def rewrite_metadata(self, backup_id: str, content: bytes | None) -> bytes | None:
        """Return the content of a ``.meta`` object as the other cloud is to have it.

        Cinder gives a restored volume the key that stands there, and refuses the restore of an
        encrypted one into a volume of another type than the one that stands there
        (``cinder/backup/driver.py``, ``_restore_vol_encryption_meta``).

        :raises errors.InvalidInput: its key or its type is not mapped
        """
        if content is None or (self.keys is None and self.volume_types is None):
            return content
        where = f'Backup {backup_id}: its volume metadata'
        try:
            whole = documents.read_json(content)
            base = whole['volume-base-metadata']
            key, kind = base.get('encryption_key_id'), base.get('volume_type_id')
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise errors.InvalidInput(f'{where} is not what Cinder writes.') from error
        if self.keys is not None and key:
            base['encryption_key_id'] = _mapped(self.keys, key, where, '--key-map')
        if self.volume_types is not None and kind and (key or kind in self.volume_types):
            # Of a volume that is not encrypted nobody asks for the type.
            base['volume_type_id'] = _mapped(self.volume_types, kind, where, '--volume-type-map')
        return json.dumps(whole).encode()


def _replace_wide(item: record.BackupRecord) -> record.BackupRecord:
    """Replace, in what people wrote, the characters that not every database can hold."""
    changes: dict[str, object] = {
        name: record_rules.replace_unstorable(item.fields[name])
        for name in ('display_name', 'display_description')
        if item.fields.get(name)
    }
    old = item.fields.get('metadata')
    if old:
        new = {
            record_rules.replace_unstorable(key): record_rules.replace_unstorable(value)
            for key, value in old.items()
        }
        if len(new) != len(old):
            raise errors.InvalidInput(
                f'Backup {item.id}: two of its properties have the same name when the characters '
                'that not every database can hold are replaced.',
                'Rename one of them, and export the record again.',
            )
        changes['metadata'] = new
    return item.with_changes(**changes) if changes else item


def _mapped(known: Map, old: str, where: str, option: str) -> str:
    if old not in known:
        raise errors.InvalidInput(
            f'{where}: names {old}, which the file of {option} does not.',
            f'Add a line to it: "{old}": "<ID in this cloud>"',
        )
    return known[old]
