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

"""Records for tests."""

import base64
import json
import pathlib
import typing

from osc_backup_port.record import BackupRecord

DATA = pathlib.Path(__file__).parent / 'data'

CEPH = 'cinder.backup.drivers.ceph.CephBackupDriver'
ID = '46944373-9ffe-4730-a3f6-8136fd3f9035'
VOLUME_ID = '5172626d-c23c-4563-8493-f34e86758634'
OTHER_ID = '34fbd72a-6516-43e4-b1cb-27017bb9cfb2'
THIRD_ID = '8d49b720-e2ee-41c6-b9c8-a7e292e02962'


def make_fields(**changes: typing.Any) -> dict[str, typing.Any]:
    """Return what Cinder 29 exports for a full backup of an RBD volume."""
    fields = {
        'driver_info': {},
        'id': ID,
        'user_id': '16339a1dfc8d42ea9cf6952af1d875f9',
        'project_id': '94f9c76811674889b9b33a53e8cf8986',
        'volume_id': VOLUME_ID,
        'host': 'src',
        'availability_zone': 'nova',
        'container': 'backups',
        'parent_id': None,
        'status': 'available',
        'fail_reason': None,
        'size': 1,
        'display_name': 'nightly',
        'display_description': None,
        'service_metadata': json.dumps({'base': f'volume-{VOLUME_ID}.backup.{ID}'}),
        'service': CEPH,
        'object_count': 0,
        'temp_volume_id': None,
        'temp_snapshot_id': None,
        'num_dependent_backups': 1,
        'snapshot_id': None,
        'data_timestamp': '2026-11-21T00:56:39Z',
        'restore_volume_id': None,
        'metadata': {},
        'encryption_key_id': None,
        'created_at': '2026-11-21T00:56:39Z',
        'updated_at': '2026-11-21T00:56:50Z',
        'deleted_at': None,
        'deleted': False,
    }
    return {**fields, **changes}


def encode(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def make_record(driver: str = CEPH, /, **changes: typing.Any) -> BackupRecord:
    return BackupRecord.decode(driver, encode(make_fields(**changes)))
