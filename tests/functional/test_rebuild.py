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

"""The database of Cinder is lost, and nobody exported the records."""

import functools
import json
import pathlib
import subprocess
import sys

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.chains import BACKUP, side_by_side
from tests.functional.conftest import Resources


def lose_database(cloud: shell.Cloud) -> None:
    """Replace the database of Cinder by an empty one."""
    command = [sys.executable, shell.SANDBOX, 'rebuild-cinder-database', cloud.sandbox or '']
    subprocess.run(command, check=True, capture_output=True)


def forget_volume_image(cloud: shell.Cloud, resources: Resources, volume_id: str) -> None:
    """Remove the image of a volume that Cinder will not know any more."""
    volumes, image = ceph.volume_pool(cloud), f'volume-{volume_id}'

    def remove() -> None:
        if image in volumes.images():
            for snapshot in volumes.snapshots(image):
                if snapshot.startswith('snapshot-'):
                    volumes.rbd('snap', 'unprotect', f'{image}@{snapshot}')
            volumes.rbd('snap', 'purge', '--no-progress', image)
            volumes.rbd('rm', '--no-progress', image)

    resources.callback(remove)


@pytest.mark.long
def test_every_backup_comes_back(
    dst: shell.Cloud, resources: Resources, tmp_path: pathlib.Path
) -> None:
    if dst.sandbox is None:
        pytest.skip('only the database of a sandbox may be lost')
    pool = ceph.backup_pool(dst)
    chain = chains.make_chain(dst, resources, length=5)
    old = chains.make_old_chain(chain, resources, tmp_path)
    forget_volume_image(dst, resources, chain.volume_id)
    chains.forget(dst, resources, chain)

    single, _ = chains.make_volume(dst, resources)
    forget_volume_image(dst, resources, single)
    ceph.write_state(ceph.volume_pool(dst), f'volume-{single}', 0)
    single_sum = ceph.volume_pool(dst).checksum(f'volume-{single}')
    snapshot = resources.snapshot(dst, single)
    head = resources.backup(dst, single, snapshot_id=snapshot)
    resources.callback(pool.clear, single, [head])
    wanted = {
        **dict(zip(chain.backups, chain.sums, strict=True)),
        **dict(zip(old.backups, chain.sums, strict=True)),
        head: single_sum,
    }

    lose_database(dst)
    assert dst.backup_ids() == set()
    before = pool.contents()
    records = tmp_path / 'rebuilt'
    for volume_id in (chain.volume_id, old.volume_id, single):
        dst.openstack(
            *BACKUP, 'metadata', 'rebuild', '--volume', volume_id, '--directory', records
        )
    assert {path.stem for path in records.iterdir()} == set(wanted)
    pool.expect(before)
    told = json.loads((records / f'{chain.backups[4]}.json').read_text())['backup']
    assert told['parent_id'] == chain.backups[3]
    assert told['project_id'] == dst.project_id
    assert chains.import_records(dst, records) == dict.fromkeys(wanted, 'imported')

    # The doctor has nothing against them, but for the one without a snapshot.
    process = dst.openstack(*BACKUP, 'image', 'check', '-f', 'json', check=False)
    found = [one for one in json.loads(process.stdout) if one['Backup ID'] in wanted]
    assert [(one['Code'], one['Backup ID']) for one in found] == [('head-only', head)]

    restored = side_by_side(
        *(functools.partial(chains.restore, dst, resources, backup) for backup in wanted)
    )
    assert [volume['checksum'] for volume in restored] == list(wanted.values())
    for volume in restored[:5]:
        assert volume['name'] == chain.volume_name
        assert volume['metadata'].items() >= chains.PROPERTIES.items()

    # Cinder guards the chain again, and each deletion takes only what is its own.
    assert dst.openstack(*BACKUP, 'delete', chain.backups[0], check=False).returncode
    for backup in [*reversed(chain.backups), *reversed(old.backups), head]:
        chains.delete_backup(dst, backup)
    gone = [chain.image, old.image, f'volume-{single}.backup.base']
    assert not set(gone) & set(pool.images())
