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

import dataclasses

from osc_backup_port import record


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """How records are changed on their way in.

    :ivar ceph_pool: the pool that the cloud keeps its backups in, if known
    :ivar name_prefix: what their names begin with then
    :ivar volume_id: the volume whose backups they are then
    """

    ceph_pool: str | None = None
    name_prefix: str = ''
    volume_id: str | None = None

    def rewrite(self, item: record.BackupRecord) -> record.BackupRecord:
        """Return the record as the other cloud is to have it."""
        changes: dict[str, object] = {}
        if self.ceph_pool and item.is_ceph:
            # Other drivers have no pool there.
            changes['container'] = self.ceph_pool
        if self.name_prefix:
            changes['display_name'] = f'{self.name_prefix}{item.display_name or ""}'
        if self.volume_id:
            changes['volume_id'] = self.volume_id
        return item.with_changes(**changes) if changes else item


def with_base(item: record.BackupRecord, image: str) -> record.BackupRecord:
    """Let a record of an old layout name the image in which its snapshot lies.

    Without that name Cinder finds the image all the same, but not the snapshot, and
    copies the whole of the image, as it is by then.
    """
    if item.base_image:
        return item
    return item.with_changes(service_metadata=f'{{"base": "{image}"}}')
