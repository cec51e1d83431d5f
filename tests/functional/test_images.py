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

"""Images of backups from cloud to cloud, by the four commands alone.

What a backup has to be elsewhere is what its volume was when it was made: the
stock ``rbd`` tool computes both checksums.
"""

import collections.abc
import dataclasses
import functools
import pathlib
import subprocess

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.chains import side_by_side
from tests.functional.conftest import Resources

BACKUP = chains.BACKUP


@pytest.fixture
def chain(filled: chains.Chain) -> chains.Chain:
    """Three backups of one volume, each with content of its own."""
    return filled


@pytest.fixture
def scratch(pool: ceph.Pool, chain: chains.Chain) -> collections.abc.Iterator[str]:
    """The name of an image that is none of Cinder's."""
    name = f'port-test-{chain.volume_id}'
    yield name
    pool.clear(chain.volume_id, ())


class TestAChain:
    def test_each_restores_to_its_own_and_goes_by_itself(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        diffs: list[chains.Export],
    ) -> None:
        chains.forget(dst, resources, chain)
        with pool.unchanged():
            for diff in diffs:
                assert chains.import_image(dst, *diff.arguments)['result'] == 'imported'
            records = [diff.record for diff in diffs]
            imported = chains.import_records(dst, *records)
            assert imported == dict.fromkeys(chain.backups, 'imported')

            volumes = side_by_side(
                *(
                    functools.partial(chains.restore, dst, resources, backup)
                    for backup in chain.backups
                )
            )
            assert [volume['checksum'] for volume in volumes] == chain.sums
            for volume in volumes:
                assert volume['name'] == chain.volume_name
                assert volume['metadata'].items() >= chains.PROPERTIES.items()
                assert volume['bootable'] == 'true'
                image_properties = volume['volume_image_metadata']
                assert image_properties.items() >= chains.IMAGE_PROPERTIES.items()

            chains.delete_backup(dst, chain.backups[2])
            restored = chains.restore(dst, resources, chain.backups[1])
            assert restored['checksum'] == chain.sums[1]
            chains.delete_backup(dst, chain.backups[1])
            restored = chains.restore(dst, resources, chain.backups[0])
            assert restored['checksum'] == chain.sums[0]
            chains.delete_backup(dst, chain.backups[0])

    @pytest.mark.long
    def test_records_first_and_images_newest_first(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        raws: list[chains.Export],
    ) -> None:
        chains.forget(dst, resources, chain)
        middle, newest, full = chain.backups[1], chain.backups[2], chain.backups[0]
        chains.import_records(dst, *(raws[number].record for number in (2, 0, 1)))
        for backup, file in ((newest, raws[2]), (middle, raws[1]), (full, raws[0])):
            assert chains.import_image(dst, backup, '--file', file.image)['result'] == 'imported'
        assert chain.sums_of(pool) == chain.sums
        # The next incremental backup would build on this one.
        assert pool.checksum(chain.image) == chain.sums[2]
        assert chains.restore(dst, resources, middle)['checksum'] == chain.sums[1]

    @pytest.mark.long
    def test_images_first_and_records_newest_first(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        raws: list[chains.Export],
        whole: chains.Export,
    ) -> None:
        chains.forget(dst, resources, chain)
        # The middle one alone; then all, of which it is not taken twice.
        chains.import_image(dst, *raws[1].arguments)
        assert len(pool.snapshots(chain.image)) == 1
        chains.import_image(dst, *whole.arguments)
        assert chain.sums_of(pool) == chain.sums
        for number in (2, 0, 1):
            chains.import_records(dst, raws[number].record)
        assert chains.restore(dst, resources, chain.backups[2])['checksum'] == chain.sums[2]
        assert chains.restore(dst, resources, chain.backups[0])['checksum'] == chain.sums[0]

    @pytest.mark.long
    @pytest.mark.parametrize('image_format', ['raw', 'rbd-diff'])
    def test_the_middle_one_alone(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        image_format: str,
        tmp_path: pathlib.Path,
    ) -> None:
        chains.forget(dst, resources, chain)
        middle = chains.export(chain, 1, image_format, tmp_path)
        with pool.unchanged():
            chains.import_image(dst, *middle.arguments)
            chains.import_records(dst, middle.record)
            restored = chains.restore(dst, resources, chain.backups[1])
            assert restored['checksum'] == chain.sums[1]
            chains.delete_backup(dst, chain.backups[1])

    def test_through_a_pipe(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        diffs: list[chains.Export],
    ) -> None:
        chains.forget(dst, resources, chain)
        export = chain.cloud.command(
            *BACKUP, 'export-image', chain.backups[2], '--format', 'rbd-diff'
        )
        import_ = dst.command(
            *BACKUP, 'import-image', '--metadata', diffs[2].record, '--format', 'rbd-diff'
        )
        with subprocess.Popen(
            export, stdout=subprocess.PIPE, env=chain.cloud.environment
        ) as source:
            subprocess.run(import_, stdin=source.stdout, env=dst.environment, check=True)
        assert source.returncode == 0
        snapshot = pool.snapshot_of(chain.image, chain.backups[2])
        assert pool.checksum(snapshot) == chain.sums[2]


class TestOtherChains:
    @pytest.mark.long
    def test_a_backup_of_a_snapshot(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        tmp_path: pathlib.Path,
    ) -> None:
        snapshot = resources.snapshot(src, chain.volume_id)
        backup = resources.backup(src, chain.volume_id, snapshot_id=snapshot)
        lonely = dataclasses.replace(chain, backups=[backup], sums=chain.sums[2:])
        chains.forget(dst, resources, lonely)
        with pool.unchanged():
            file = chains.export(lonely, 0, 'raw', tmp_path)
            chains.import_image(dst, *file.arguments)
            chains.import_records(dst, file.record)
            assert chains.restore(dst, resources, backup)['checksum'] == lonely.sums[0]
            chains.delete_backup(dst, backup)

    @pytest.mark.long
    def test_a_second_full_beside_the_chain(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        diffs: list[chains.Export],
        tmp_path: pathlib.Path,
    ) -> None:
        backup = resources.backup(src, chain.volume_id)
        second = dataclasses.replace(chain, backups=[backup], sums=chain.sums[2:])
        chains.forget(dst, resources, second)
        chains.forget(dst, resources, chain)
        with pool.unchanged():
            file = chains.export(second, 0, 'rbd', tmp_path)
            chains.import_image(dst, *diffs[0].arguments)
            chains.import_image(dst, *file.arguments)
            chains.import_records(dst, diffs[0].record, file.record)
            assert chains.restore(dst, resources, backup)['checksum'] == second.sums[0]
            chains.delete_backup(dst, backup)
            restored = chains.restore(dst, resources, chain.backups[0])
            assert restored['checksum'] == chain.sums[0]
            chains.delete_backup(dst, chain.backups[0])

    @pytest.mark.long
    def test_a_volume_that_grew(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        tmp_path: pathlib.Path,
    ) -> None:
        grown = chains.make_chain(src, resources, 2, grows=True)
        chains.forget(dst, resources, grown)
        with pool.unchanged():
            full = chains.export(grown, 0, 'rbd-diff', tmp_path)
            increment = chains.export(grown, 1, 'rbd-diff', tmp_path, since=0)
            chains.import_image(dst, *full.arguments)
            chains.import_image(dst, *increment.arguments)
            chains.import_records(dst, full.record, increment.record)
            volumes = side_by_side(
                *(functools.partial(chains.restore, dst, resources, b) for b in grown.backups)
            )
            assert [volume['size'] for volume in volumes] == [1, 2]
            assert [volume['checksum'] for volume in volumes] == grown.sums
            chains.delete_backup(dst, grown.backups[1])
            chains.delete_backup(dst, grown.backups[0])

    @pytest.mark.long
    def test_the_layout_of_rocky_and_before(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        tmp_path: pathlib.Path,
    ) -> None:
        old = chains.make_old_chain(chain, resources, tmp_path)
        chains.forget(dst, resources, old)
        with pool.unchanged():
            files = side_by_side(
                *(
                    functools.partial(chains.export, old, number, image_format, tmp_path / 'files')
                    for number, image_format in ((1, 'rbd-diff'), (0, 'raw'), (2, 'raw'))
                )
            )
            for file in files:
                chains.import_image(dst, *file.arguments)
            assert old.sums_of(pool) == old.sums
            chains.import_records(dst, *(file.record for file in files))
            volumes = side_by_side(
                *(functools.partial(chains.restore, dst, resources, b) for b in old.backups)
            )
            assert [volume['checksum'] for volume in volumes] == old.sums
            assert {volume['name'] for volume in volumes} == {old.volume_name}
            for backup in reversed(old.backups):
                chains.delete_backup(dst, backup)


class TestStockTools:
    """``rbd`` reads what we write, and the other way round."""

    def test_rbd_import(
        self, pool: ceph.Pool, chain: chains.Chain, raws: list[chains.Export], scratch: str
    ) -> None:
        pool.rbd('import', '--no-progress', raws[1].image, scratch)
        assert pool.checksum(scratch) == chain.sums[1]

    def test_rbd_import_with_snapshots(
        self, pool: ceph.Pool, chain: chains.Chain, whole: chains.Export, scratch: str
    ) -> None:
        pool.rbd('import', '--no-progress', '--export-format', '2', whole.image, scratch)
        assert chain.sums_of(pool, scratch) == chain.sums
        assert pool.checksum(scratch) == chain.sums[2]

    def test_rbd_import_diff(
        self, pool: ceph.Pool, chain: chains.Chain, diffs: list[chains.Export], scratch: str
    ) -> None:
        pool.rbd('create', '--size', '1G', scratch)
        for diff in diffs:
            pool.rbd('import-diff', '--no-progress', diff.image, scratch)
        assert chain.sums_of(pool, scratch) == chain.sums

    def test_rbd_export(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        raws: list[chains.Export],
        tmp_path: pathlib.Path,
    ) -> None:
        chains.forget(dst, resources, chain)
        there = ceph.backup_pool(src)
        for number in (1, 2):
            snapshot = there.snapshot_of(chain.image, chain.backups[number])
            file = tmp_path / f'{number}'
            there.rbd('export', '--no-progress', snapshot, file)
            chains.import_image(dst, '--metadata', raws[number].record, '--file', file)
        snapshots = [pool.snapshot_of(chain.image, backup) for backup in chain.backups[1:]]
        assert [pool.checksum(snapshot) for snapshot in snapshots] == chain.sums[1:]

    def test_rbd_export_with_snapshots(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        raws: list[chains.Export],
        tmp_path: pathlib.Path,
    ) -> None:
        chains.forget(dst, resources, chain)
        there, file = ceph.backup_pool(src), tmp_path / 'all'
        there.rbd('export', '--no-progress', '--export-format', '2', chain.image, file)
        chains.import_image(dst, '--metadata', raws[0].record, '--file', file)
        assert chain.sums_of(pool) == chain.sums
        assert pool.snapshots(chain.image) == there.snapshots(chain.image)

    @pytest.mark.long
    def test_rbd_export_diff(
        self,
        src: shell.Cloud,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        raws: list[chains.Export],
        tmp_path: pathlib.Path,
    ) -> None:
        chains.forget(dst, resources, chain)
        there = ceph.backup_pool(src)
        since: list[str] = []
        for backup, known in zip(chain.backups, raws, strict=True):
            snapshot = there.snapshot_of(chain.image, backup)
            file = tmp_path / backup
            there.rbd('export-diff', '--no-progress', *since, snapshot, file)
            chains.import_image(dst, '--metadata', known.record, '--file', file)
            since = ['--from-snap', snapshot.partition('@')[2]]
        assert chain.sums_of(pool) == chain.sums


#: What writes a file of a format as a raw image.
UNPACKED_BY = {
    'qcow2': 'qemu-img convert -f qcow2 -O raw {file} {raw}',
    'gzip': 'gzip -dc {file} > {raw}',
    'zstd': 'zstd -q -dc {file} > {raw}',
}
#: And the other way round.
PACKED_BY = {
    'qcow2': 'qemu-img convert -f raw -O qcow2 -c {raw} {file}',
    'gzip': 'gzip -1 -c {raw} > {file}',
    'zstd': 'zstd -q -c {raw} > {file}',
}


class TestFormatsOfOthers:
    """Their own tools read what we write, and the other way round."""

    @pytest.mark.long
    @pytest.mark.parametrize('image_format', list(UNPACKED_BY))
    def test_there_and_back(
        self,
        dst: shell.Cloud,
        pool: ceph.Pool,
        resources: Resources,
        chain: chains.Chain,
        tmp_path: pathlib.Path,
        image_format: str,
    ) -> None:
        chains.forget(dst, resources, chain)
        exported = chains.export(chain, 1, image_format, tmp_path)
        raw, packed = tmp_path / 'raw', tmp_path / f'stock.{image_format}'
        unpack = UNPACKED_BY[image_format].format(file=exported.image, raw=raw)
        subprocess.run(unpack, shell=True, check=True)
        with raw.open('rb') as file:
            assert ceph.checksum_of(file) == chain.sums[1]
        pack = PACKED_BY[image_format].format(file=packed, raw=raw)
        subprocess.run(pack, shell=True, check=True)

        of_stock = ('--metadata', exported.record, '--file', packed, '--format', image_format)
        for arguments in (exported.arguments, of_stock):
            columns = chains.import_image(dst, *arguments, '--verify')
            assert (columns['result'], columns['format']) == ('imported', image_format)
            snapshot = pool.snapshot_of(chain.image, chain.backups[1])
            assert pool.checksum(snapshot) == chain.sums[1]
            pool.clear(chain.volume_id, chain.backups)
