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

"""Backups of encrypted volumes, as far as Cinder looks at keys and types.

No volume is encrypted here, which would take qemu-img: the record and the metadata say so, and
Cinder then does with them what it does for one that is.
"""

import base64
import json
import pathlib
import time
import uuid

import pytest

from tests.functional import chains, shell
from tests.functional.conftest import Resources

BACKUP = chains.BACKUP
#: The one key of the key manager of the sandbox, ``ConfKeyManager``.
KEY_HERE = '00000000-0000-0000-0000-000000000000'


@pytest.mark.long
@pytest.mark.parametrize('is_mapped', [True, False], ids=['of this cloud', 'of the other'])
def test_keys_and_types_of_the_other_cloud(
    dst: shell.Cloud,
    resources: Resources,
    filled: chains.Chain,
    tmp_path: pathlib.Path,
    is_mapped: bool,
) -> None:
    if dst.sandbox is None:
        pytest.skip('needs a cloud whose one key is known')
    chains.forget(dst, resources, filled)
    backup = filled.backups[0]
    files = chains.export(filled, 0, 'rbd-diff', tmp_path)
    key, kind = str(uuid.uuid4()), str(uuid.uuid4())
    encrypt(files.record, files.image.with_name(f'backup.{backup}.meta'), key, kind)
    keys, kinds = tmp_path / 'keys.yaml', tmp_path / 'types.yaml'
    keys.write_text(f'"{key}": "{KEY_HERE}"\n')
    default = dst.rest('GET', '/types/default')['volume_type']['id']
    kinds.write_text(f'"{kind}": "{default}"\n')
    # With a key that nobody has here, the backup could not even be deleted.
    maps = ('--key-map', keys, *(('--volume-type-map', kinds) if is_mapped else ()))

    process = dst.openstack(*BACKUP, 'import-image', *files.arguments, *maps)
    assert key in process.stderr.decode()
    process = dst.openstack(*BACKUP, 'metadata', 'import', files.record, *maps)
    assert KEY_HERE in process.stderr.decode()
    if is_mapped:
        restored = chains.restore(dst, resources, backup)
        assert restored['checksum'] == filled.sums[0]
        return
    answer = dst.rest('POST', f'/backups/{backup}/restore', {'restore': {}})
    volume_id = answer['restore']['volume_id']
    resources.forget_volume(dst, volume_id)
    deadline = time.monotonic() + 60
    while dst.rest('GET', f'/volumes/{volume_id}')['volume']['status'] != 'error_restoring':
        assert time.monotonic() < deadline
        time.sleep(0.2)


def encrypt(record: pathlib.Path, metadata: pathlib.Path, key: str, kind: str) -> None:
    """Let a record and the metadata of its volume name a key and a type."""
    whole = json.loads(record.read_text())
    fields = json.loads(base64.b64decode(whole['backup_url']))
    url = base64.b64encode(json.dumps({**fields, 'encryption_key_id': key}).encode()).decode()
    record.write_text(json.dumps({'backup_service': whole['backup_service'], 'backup_url': url}))
    told = json.loads(metadata.read_text())
    told['volume-base-metadata'].update(encryption_key_id=key, volume_type_id=kind)
    metadata.write_text(json.dumps(told))
