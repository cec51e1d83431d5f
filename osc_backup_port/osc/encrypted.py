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

"""Say of encrypted backups what they need, before their bytes are moved."""

import typing

if typing.TYPE_CHECKING:
    from osc_backup_port import progress, record


def tell(shown: 'progress.Progress', backup: 'record.BackupRecord') -> None:
    """Print a line about the key, if the volume of the backup is encrypted."""
    if backup.encryption_key_id:
        shown.say(
            f'Backup {backup.id}: the volume is encrypted. The image holds ciphertext; it can be '
            f'restored only where the key manager has the key {backup.encryption_key_id}.'
        )
