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

"""Archives between real clouds, judged by the stock tools."""

import functools
import pathlib
import subprocess
import sys

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

ARCHIVE = (*chains.BACKUP, 'archive')


@pytest.fixture
def archive(filled: chains.Chain, tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / 'archive'
    rows = filled.cloud.openstack_json(*ARCHIVE, 'create', root, filled.backups[2])
    assert [row['Result'] for row in rows] == ['added'] * 3
    return root


def test_there_and_back(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
    archive: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    chains.forget(dst, resources, filled)
    rows = src.openstack_json(*ARCHIVE, 'verify', '--against-cluster', archive)
    assert [row['Result'] for row in rows] == ['good'] * 3
    file = tmp_path / 'middle.raw'
    src.openstack(*ARCHIVE, 'extract', archive, filled.backups[1], '--file', file)
    with file.open('rb') as raw:
        assert ceph.checksum_of(raw) == filled.sums[1]
    rows = dst.openstack_json(*ARCHIVE, 'import', '--verify', archive)
    assert {(row['Image'], row['Record']) for row in rows} == {('imported', 'imported')}
    assert filled.sums_of(pool) == filled.sums
    assert chains.restore(dst, resources, filled.backups[2])['checksum'] == filled.sums[2]
    rows = dst.openstack_json(*ARCHIVE, 'import', archive)
    assert {(row['Image'], row['Record']) for row in rows} == {('already there',) * 2}


@pytest.mark.long
def test_by_hand(pool: ceph.Pool, filled: chains.Chain, archive: pathlib.Path) -> None:
    name = f'port-test-{filled.volume_id}'
    pool.rbd('create', '--size', '1G', name)
    try:
        for number, backup in enumerate(filled.backups):
            pieces = sorted((archive / filled.image / f'{number}-{backup}').glob('*.zst'))
            raw = subprocess.run(
                ['zstd', '-dc'],
                input=b''.join(piece.read_bytes() for piece in pieces),
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            pool.rbd('import-diff', '--no-progress', '-', name, stdin=raw)
            assert pool.checksum(pool.snapshot_of(name, backup)) == filled.sums[number]
    finally:
        pool.clear(filled.volume_id, ())


def test_a_chain_that_was_moved_by_hand(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
    tmp_path: pathlib.Path,
) -> None:
    """It lies in volume-V.backup.base, and its records name the image of its first backup.

    With such records Cinder restores the newest bytes for each of them.
    """
    chains.forget(dst, resources, filled)
    there, archive = ceph.backup_pool(src), tmp_path / 'archive'
    legacy = f'volume-{filled.volume_id}.backup.base'
    there.rbd('rename', filled.image, legacy)
    try:
        src.openstack(*ARCHIVE, 'create', archive, filled.backups[2])
    finally:
        there.rbd('rename', legacy, filled.image)
    dst.openstack(*ARCHIVE, 'import', archive)
    restored = chains.side_by_side(
        *(functools.partial(chains.restore, dst, resources, backup) for backup in filled.backups)
    )
    assert [volume['checksum'] for volume in restored] == filled.sums


def test_piped_from_cloud_to_cloud(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
) -> None:
    chains.forget(dst, resources, filled)
    create = src.command(*ARCHIVE, 'create', '-', filled.backups[2])
    with subprocess.Popen(
        create, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=src.environment
    ) as source:
        subprocess.run(
            dst.command(*ARCHIVE, 'import', '--verify', '-'),
            stdin=source.stdout,
            env=dst.environment,
            check=True,
            timeout=120,
        )
    assert source.returncode == 0
    assert filled.sums_of(pool) == filled.sums
    assert chains.restore(dst, resources, filled.backups[1])['checksum'] == filled.sums[1]


@pytest.mark.long
def test_three_nights_and_a_delete(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    tmp_path: pathlib.Path,
) -> None:
    there, archive = ceph.volume_pool(src), tmp_path / 'archive'
    volume_id, name = chains.make_volume(src, resources)
    backups, sums, written = [], [], []
    for night in range(3):
        ceph.write_state(there, f'volume-{volume_id}', night)
        sums.append(there.checksum(f'volume-{volume_id}'))
        backups.append(resources.backup(src, volume_id, incremental=night > 0))
        rows = src.openstack_json(*ARCHIVE, 'create', archive, '--volume', volume_id)
        written.append(sum(row['Bytes written'] for row in rows))
        assert [row['Result'] for row in rows][:-1] == ['already there'] * night
    assert written[0] > 40 * ceph.MIB
    assert max(written[1:]) < 12 * ceph.MIB
    # The newest goes, and another one is made. Its bytes need not be the volume's:
    # Cinder makes it on top of those of the deleted one, which nothing takes back.
    chains.delete_backup(src, backups[2])
    with there.open_image(f'volume-{volume_id}') as volume:
        volume.discard(72 * ceph.MIB, 8 * ceph.MIB)
    backups.append(resources.backup(src, volume_id, incremental=True))
    src.openstack(*ARCHIVE, 'create', archive, '--volume', volume_id)

    chain = chains.Chain(src, volume_id, name, backups, sums)
    chains.forget(dst, resources, chain)
    source = ceph.backup_pool(src)
    sums.append(source.checksum(source.snapshot_of(chain.image, backups[3])))
    dst.openstack(*ARCHIVE, 'import', archive)
    assert chain.sums_of(pool) == sums


@pytest.mark.long
def test_an_object_store(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
) -> None:
    """S3, by the gateway of Ceph itself."""
    s3fs = pytest.importorskip('s3fs')
    if src.sandbox is None:
        pytest.skip('only a sandbox has a gateway')
    command = [sys.executable, str(shell.SANDBOX), 'rgw', src.sandbox]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    keys = dict(line.removeprefix('export ').split('=', 1) for line in printed.splitlines())
    store = s3fs.S3FileSystem(
        key=keys['AWS_ACCESS_KEY_ID'],
        secret=keys['AWS_SECRET_ACCESS_KEY'],
        endpoint_url=keys['AWS_ENDPOINT_URL'],
    )
    bucket = f'port-test-{filled.volume_id}'
    store.mkdir(bucket)
    chains.forget(dst, resources, filled)
    try:
        url = f's3://{bucket}/some/where'
        create = (*ARCHIVE, 'create', url)
        src.openstack(*create, filled.backups[1], environment=keys)
        rows = src.openstack_json(*create, filled.backups[2], environment=keys)
        assert [row['Result'] for row in rows] == ['already there', 'already there', 'added']
        rows = src.openstack_json(*ARCHIVE, 'verify', url, environment=keys)
        assert [row['Result'] for row in rows] == ['good'] * 3
        dst.openstack(*ARCHIVE, 'import', url, environment=keys)
        assert filled.sums_of(pool) == filled.sums
        assert not [name for name in store.find(bucket) if name.endswith('lock.json')]
    finally:
        store.rm(bucket, recursive=True)
