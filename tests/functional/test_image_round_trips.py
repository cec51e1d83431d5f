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

"""A volume of any size that looks like an rbd diff: every format, with the stock tools.

What we write ``rbd`` reads, and the other way round; ``rbd export`` computes the checksums.
"""

import collections.abc
import pathlib
import uuid

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

#: No whole number of anything: Cinder calls it 1 GiB.
SIZE = 100 * ceph.MIB + 12345
FORMATS = ('raw', 'rbd', 'rbd-diff')


def disguise(size: int) -> bytes:
    """Return the beginning of a disk that is a whole rbd diff, up to its last byte."""
    header = b'rbd diff v1\n' + b's' + size.to_bytes(8, 'little')
    fill = size - len(header) - 17 - 1
    return header + b'w' + bytes(8) + fill.to_bytes(8, 'little')


@pytest.fixture(scope='module')
def disk(src: shell.Cloud, module_resources: Resources) -> chains.Chain:
    """A backup of such a volume, which Cinder took over from elsewhere."""
    pool, name = ceph.volume_pool(src), f'port-test-{uuid.uuid4()}'
    pool.rbd('create', '--size', f'{SIZE}B', name)
    with pool.open_image(name) as image:
        image.write(disguise(SIZE), 0)
        image.write(b'precious data' * 1000, 9 * ceph.MIB)
        image.write(b'e', SIZE - 1)
    other = module_resources.volume(src)
    host = src.rest('GET', f'/volumes/{other}')['volume']['os-vol-host-attr:host']
    wanted = {'host': host, 'ref': {'source-name': name}, 'name': name}
    volume_id = src.rest('POST', '/os-volume-manage', {'volume': wanted})['volume']['id']
    module_resources.forget_volume(src, volume_id)
    src.wait(f'/volumes/{volume_id}')
    digest = pool.checksum(f'volume-{volume_id}')
    backup = module_resources.backup(src, volume_id)
    return chains.Chain(src, volume_id, name, [backup], [digest])


@pytest.fixture
def scratch(pool: ceph.Pool, disk: chains.Chain) -> collections.abc.Iterator[str]:
    yield f'port-test-{disk.volume_id}'
    pool.clear(disk.volume_id, disk.backups)


@pytest.mark.parametrize(
    'image_format',
    ['raw', *(pytest.param(one, marks=pytest.mark.long) for one in FORMATS if one != 'raw')],
)
def test_every_format_both_ways(
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    disk: chains.Chain,
    scratch: str,
    image_format: str,
    tmp_path: pathlib.Path,
) -> None:
    chains.forget(dst, resources, disk)
    there = ceph.backup_pool(disk.cloud)
    snapshot = there.snapshot_of(disk.image, disk.backups[0])
    ours = chains.export(disk, 0, image_format, tmp_path)
    stock = tmp_path / 'stock'
    if image_format == 'rbd-diff':
        pool.rbd('create', '--size', f'{SIZE}B', scratch)
        pool.rbd('import-diff', '--no-progress', ours.image, scratch)
        there.rbd('export-diff', '--no-progress', snapshot, stock)
    else:
        version = ('--export-format', '2' if image_format == 'rbd' else '1')
        source = disk.image if image_format == 'rbd' else snapshot
        pool.rbd('import', '--no-progress', *version, ours.image, scratch)
        there.rbd('export', '--no-progress', *version, source, stock)
    assert pool.checksum(scratch) == disk.sums[0]

    for arguments in (
        ours.arguments,
        ('--metadata', ours.record, '--file', stock, '--format', image_format),
    ):
        columns = chains.import_image(dst, *arguments)
        assert (columns['result'], columns['size']) == ('imported', SIZE)
        assert columns['format'] == image_format
        assert disk.sums_of(pool) == disk.sums
        assert pool.checksum(disk.image) == disk.sums[0]
        pool.clear(disk.volume_id, disk.backups)


@pytest.mark.long
def test_a_raw_stream_that_looks_like_a_diff_has_to_be_told(
    dst: shell.Cloud, pool: ceph.Pool, disk: chains.Chain, tmp_path: pathlib.Path
) -> None:
    record = tmp_path / 'record.json'
    disk.cloud.openstack(*chains.BACKUP, 'metadata', 'export', disk.backups[0], '--file', record)
    with pool.unchanged():
        process = dst.openstack(
            *chains.BACKUP,
            *('import-image', '--metadata', record),
            stdin=disguise(SIZE),
            check=False,
        )
    assert process.returncode
    assert b'--format raw' in process.stderr
