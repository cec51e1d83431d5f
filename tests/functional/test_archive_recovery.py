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

"""All is lost but the archive."""

import functools
import json
import pathlib
import typing

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.chains import side_by_side
from tests.functional.conftest import Resources
from tests.functional.test_rebuild import forget_volume_image, lose_database

ARCHIVE = (*chains.BACKUP, 'archive')


@pytest.mark.long
@pytest.mark.parametrize('is_pool_lost', [False, True], ids=['database', 'database and pool'])
def test_lost(
    dst: shell.Cloud, resources: Resources, tmp_path: pathlib.Path, is_pool_lost: bool
) -> None:
    """Cinder starts with an empty database; the backups come back, each with its bytes."""
    if dst.sandbox is None:
        pytest.skip('only the database of a sandbox may be lost')
    pool, archive = ceph.backup_pool(dst), tmp_path / 'archive'
    all_chains = [chains.make_chain(dst, resources, length) for length in (5, 1)]
    for chain in all_chains:
        forget_volume_image(dst, resources, chain.volume_id)
        chains.forget(dst, resources, chain)
    sums = {
        backup: expected
        for chain in all_chains
        for backup, expected in zip(chain.backups, chain.sums, strict=True)
    }
    rows = dst.openstack_json(*ARCHIVE, 'create', archive, '--all', '--all-projects')
    assert {row['ID']: row['Result'] for row in rows} == dict.fromkeys(sums, 'added')

    lose_database(dst)
    assert dst.backup_ids() == set()
    if is_pool_lost:
        for chain in all_chains:
            pool.clear(chain.volume_id, chain.backups)
    before = _look(pool, all_chains), pool.contents()
    assert before[0] == {} or not is_pool_lost
    rows = dst.openstack_json(*ARCHIVE, 'import', archive)
    found = 'imported' if is_pool_lost else 'already there'
    assert {row['ID']: (row['Image'], row['Record']) for row in rows} == dict.fromkeys(
        sums, (found, 'imported')
    )
    if not is_pool_lost:
        # Not a byte was moved, and no image was so much as opened to write.
        assert {row['Bytes written'] for row in rows} == {0}
        assert (_look(pool, all_chains), pool.contents()) == before
    for chain in all_chains:
        assert chain.sums_of(pool) == chain.sums
    restored = side_by_side(
        *(functools.partial(chains.restore, dst, resources, backup) for backup in sums)
    )
    assert [volume['checksum'] for volume in restored] == list(sums.values())
    for volume in restored[:5]:
        assert volume['name'] == all_chains[0].volume_name
        assert volume['metadata'].items() >= chains.PROPERTIES.items()
    # Cinder guards the chain again, and each deletion takes only what is its own.
    first = all_chains[0]
    assert dst.openstack(*chains.BACKUP, 'delete', first.backups[0], check=False).returncode
    for chain in all_chains:
        for backup in reversed(chain.backups):
            chains.delete_backup(dst, backup)
        assert chain.image not in pool.images()


def _look(pool: ceph.Pool, all_chains: list[chains.Chain]) -> dict[str, typing.Any]:
    """Return what RBD says of the images, their times and snapshots among it."""
    there = pool.images()
    seen = {}
    for chain in all_chains:
        if chain.image in there:
            info = json.loads(pool.rbd('info', chain.image, '--format', 'json'))
            info.pop('access_timestamp')
            seen[chain.image] = (info, pool.rbd('snap', 'ls', chain.image, '--format', 'json'))
    return seen


@pytest.mark.long
def test_five_backups_with_deletes_between(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    tmp_path: pathlib.Path,
) -> None:
    """The newest is deleted twice; the archive keeps what was deleted, and what came after."""
    there, source, archive = ceph.volume_pool(src), ceph.backup_pool(src), tmp_path / 'archive'
    volume_id, name = chains.make_volume(src, resources)
    backups: list[str] = []
    sums: list[str] = []
    for step in range(5):
        ceph.write_state(there, f'volume-{volume_id}', step % 3)
        backups.append(resources.backup(src, volume_id, incremental=step > 0))
        image = f'volume-{volume_id}.backup.{backups[0]}'
        # Of the backup as Cinder made it: after a delete it need not be the volume.
        sums.append(source.checksum(source.snapshot_of(image, backups[-1])))
        rows = src.openstack_json(*ARCHIVE, 'create', archive, '--volume', volume_id)
        assert [row['Result'] for row in rows if row['ID'] == backups[-1]] == ['added']
        assert sum(row['Result'] == 'added' for row in rows) == 1
        if step in (1, 3):
            chains.delete_backup(src, backups[-1])
    chain = chains.Chain(src, volume_id, name, backups, sums)
    chains.forget(dst, resources, chain)
    rows = src.openstack_json(*ARCHIVE, 'verify', archive)
    assert [row['Result'] for row in rows] == ['good'] * 5
    rows = dst.openstack_json(*ARCHIVE, 'import', archive)
    assert {(row['Image'], row['Record']) for row in rows} == {('imported',) * 2}
    assert chain.sums_of(pool) == sums
    restored = side_by_side(
        *(functools.partial(chains.restore, dst, resources, backup) for backup in backups)
    )
    assert [volume['checksum'] for volume in restored] == sums


@pytest.mark.long
def test_one_broken_chain_among_several(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
    tmp_path: pathlib.Path,
) -> None:
    """It is named, the exit code is 1, and the others are there."""
    source, archive = ceph.backup_pool(src), tmp_path / 'archive'
    whole, broken, spoilt = (chains.make_chain(src, resources, 2) for _ in range(3))
    # --all has the chain that all tests share, too.
    for chain in (whole, broken, spoilt, filled):
        chains.forget(dst, resources, chain)
    source.rbd('rename', broken.image, f'aside.{broken.image}')
    try:
        process = src.openstack(*ARCHIVE, 'create', archive, '--all', '-f', 'json', check=False)
    finally:
        source.rbd('rename', f'aside.{broken.image}', broken.image)
    assert process.returncode == 1
    assert f'Backup {broken.backups[0]}: its image is not in pool' in process.stderr.decode()
    added = {row['ID']: row['Result'] for row in json.loads(process.stdout)}
    assert added.items() >= dict.fromkeys([*whole.backups, *spoilt.backups], 'added').items()
    assert not added.keys() & set(broken.backups)
    path = archive / spoilt.image / f'1-{spoilt.backups[1]}' / 'increment.json'
    path.write_bytes(path.read_bytes()[:-5])

    process = dst.openstack(*ARCHIVE, 'import', archive, '-f', 'json', check=False)
    assert process.returncode == 1
    assert str(path) in process.stderr.decode()
    assert whole.sums_of(pool) == whole.sums
    assert dst.backup_ids() >= set(whole.backups)
    assert not dst.backup_ids() & {*broken.backups, *spoilt.backups}
    assert spoilt.image not in pool.images()
    for words in (('list',), ('show',), ('verify',), ('verify', '--against-cluster')):
        process = src.openstack(*ARCHIVE, *words, archive, check=False)
        assert process.returncode == 1
        assert str(path) in process.stderr.decode()
        assert whole.backups[1] in process.stdout.decode()
    # What is whole of the damaged chain can be asked for, and the rest put in anew.
    dst.openstack(*ARCHIVE, 'import', archive, spoilt.backups[0])
    assert chains.restore(dst, resources, spoilt.backups[0])['checksum'] == spoilt.sums[0]
    again = tmp_path / 'again'
    src.openstack(*ARCHIVE, 'create', again, *broken.backups, *spoilt.backups)
    dst.openstack(*ARCHIVE, 'import', again)
    for chain in (broken, spoilt):
        assert chain.sums_of(pool) == chain.sums
