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

"""What was written is compared with what came in."""

import random

import pytest

from osc_backup_port import errors, model, progress, units
from osc_backup_port.moving import read_back
from osc_backup_port.transfer import limits, writing
from tests.fakes import ceph as fake_ceph

SIZE = 4 * units.MIB
BOUNDS = limits.Limits(requests=4, request_size=64 * units.KIB, window=6)


def items() -> list[model.Item]:
    noise = random.Random(5)
    return [
        model.Data(0, noise.randbytes(150_000)),
        model.Data(150_000, noise.randbytes(150_000)),
        model.Zero(300_000, 500_000),
        # Zeros in it, and over the border of a request.
        model.Data(units.MIB + 777, noise.randbytes(100_000) + bytes(200_000) + b'end'),
        # Again the same place: the last one counts.
        model.Data(100, noise.randbytes(50_000)),
        # Backwards, as stock rbd writes an image with striping, and zeros over data.
        model.Data(3 * units.MIB, noise.randbytes(100_000)),
        model.Data(2 * units.MIB + 500_000, noise.randbytes(100_000)),
        model.Zero(2 * units.MIB + 550_000, 10_000),
    ]


def compare(
    cluster: fake_ceph.Cluster, written: list[model.Item], more: model.Data | None = None
) -> errors.InvalidInput | None:
    witness = read_back.Witness(from_nothing=True)
    list(witness.watch(iter(items())))
    pool = cluster.pool()
    pool.create('image', model.ImageLayout(SIZE, order=18))
    with pool.open('image', writable=True) as image:
        writing.write_items(image, written + ([more] if more else []))
        return witness.compare(image, BOUNDS, progress.Silent())


def test_what_was_written_as_it_came_passes(cluster: fake_ceph.Cluster) -> None:
    assert compare(cluster, items()) is None


@pytest.mark.parametrize('offset', [200_000, 299_999, units.MIB + 777, 3 * units.MIB])
def test_one_wrong_byte_of_data_is_found(cluster: fake_ceph.Cluster, offset: int) -> None:
    found = compare(cluster, items(), model.Data(offset, b'?'))
    assert 'does not read as what was written' in str(found)


@pytest.mark.parametrize('offset', [400_000, 2 * units.MIB, 2 * units.MIB + 555_000])
def test_data_where_there_should_be_a_hole_is_found(
    cluster: fake_ceph.Cluster, offset: int
) -> None:
    found = compare(cluster, items(), model.Data(offset, b'?'))
    assert 'at offset' in str(found)


def test_what_is_missing_is_found(cluster: fake_ceph.Cluster) -> None:
    assert 'at offset' in str(compare(cluster, items()[:3]))


@pytest.mark.parametrize(
    ('from_nothing', 'kept', 'is_good'),
    [
        (False, [], False),
        (False, [model.Zero(8192, 4096)], False),
        (False, [model.Zero(4096, 8192)], True),
        (False, [model.Zero(4096, 4096), model.Data(8192, bytes(4096))], True),
        (True, [], True),
    ],
)
def test_zeros_of_an_increment_have_to_be_there_too(
    from_nothing: bool, kept: list[model.Item], is_good: bool
) -> None:
    """Without them, what the point before had there comes back."""
    witness = read_back.Witness(from_nothing)
    data = model.Data(20_000, b'data')
    list(witness.watch(iter([model.Zero(4096, 8192), data])))

    found = witness.compare_items('the file', iter([*kept, data]), progress.Silent())

    assert (found is None) is is_good
    assert is_good or 'at offset 4096' in str(found)
