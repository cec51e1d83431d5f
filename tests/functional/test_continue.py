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

"""An imported chain goes on in the other cloud, with that cloud's own backups."""

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

BACKUP = chains.BACKUP


@pytest.mark.long
def test_the_next_increment_is_of_the_restored_volume(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
) -> None:
    chains.forget(dst, resources, filled)
    volumes, newest = ceph.volume_pool(dst), filled.backups[2]
    volume_id = resources.volume(dst)
    image = f'volume-{volume_id}'
    migrate = (*BACKUP, 'migrate', newest, '--to-cloud', dst.name, '--for-volume', volume_id)
    src.openstack(*migrate)
    dst.rest('POST', f'/backups/{newest}/restore', {'restore': {'volume_id': volume_id}})
    dst.wait(f'/backups/{newest}')
    dst.wait(f'/volumes/{volume_id}')
    assert volumes.checksum(image) == filled.sums[2]
    for state in ('can be continued', 'could be continued already'):
        told = dst.openstack_json(*BACKUP, 'continue', newest)
        assert told['result'] == state
    assert volumes.snapshots(image) == [told['snapshot']]

    with volumes.open_image(image) as opened:
        opened.write(b'new' * 5000, 100 * ceph.MIB + 5)
        opened.discard(64 * ceph.MIB, 4 * ceph.MIB)
        opened.flush()
    expected = [*filled.sums, volumes.checksum(image)]
    own = resources.backup(dst, volume_id, incremental=True)
    assert dst.rest('GET', f'/backups/{own}')['backup']['is_incremental']
    assert len(pool.snapshots(filled.image)) == 4
    restored = [chains.restore(dst, resources, backup) for backup in [*filled.backups, own]]
    assert [volume['checksum'] for volume in restored] == expected
    checked = dst.openstack(*BACKUP, 'image', 'check', '--heads', check=False)
    assert checked.returncode == 0, checked.stdout.decode()

    # Again tomorrow; it is a chain of this cloud now, which has gone on without src.
    rows = src.openstack_json(*migrate)
    assert {row['Record'] for row in rows} == {'already there'}
    chains.delete_backup(dst, own)
    assert chains.restore(dst, resources, newest)['checksum'] == filled.sums[2]
    for backup in reversed(filled.backups):
        chains.delete_backup(dst, backup)


@pytest.mark.long
def test_a_volume_that_is_not_what_was_restored(
    src: shell.Cloud, dst: shell.Cloud, resources: Resources, filled: chains.Chain
) -> None:
    chains.forget(dst, resources, filled)
    volume_id = resources.volume(dst)
    options = ('--to-cloud', dst.name, '--for-volume', volume_id)
    src.openstack(*BACKUP, 'migrate', filled.backups[0], *options)
    process = dst.openstack(*BACKUP, 'continue', filled.backups[0], check=False)
    assert process.returncode == 1
    assert b'is not as backup' in process.stderr
    assert ceph.volume_pool(dst).snapshots(f'volume-{volume_id}') == []
