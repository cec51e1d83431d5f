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

"""An export has the bytes of the backup that was asked for, in every format."""

import io
import itertools

import pytest

from osc_backup_port import errors, model, units
from osc_backup_port.formats import incoming, stream
from tests.fakes import ceph as fake_ceph
from tests.fakes import rbd
from tests.unit import chains, streams
from tests.unit.chains import BASE, IDS, SIZE

FORMATS = (incoming.RAW, incoming.RBD, incoming.RBD_DIFF)


@pytest.fixture
def chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    made = chains.make_chain(cluster)
    # HEAD is not what anybody asked for.
    cluster.images[BASE].content.write(0, b'HEAD' * 100_000)
    return made


def points_of(file: io.FileIO, size: int = SIZE) -> list[tuple[str | None, str | None, int]]:
    return [point[:3] for point in _read(file, size)]


def contents_of(file: io.FileIO, size: int = SIZE) -> list[chains.Blocks]:
    return [point[3] for point in _read(file, size)]


def _read(file: io.FileIO, size: int) -> list[tuple[str | None, str | None, int, chains.Blocks]]:
    file.seek(0)
    points = []
    there: chains.Blocks = {}
    arriving = streams.open_any(stream.Reader(file, 'x', checksum=False), size)
    for increment in arriving.increments:
        start = there if increment.from_snap else {}
        there = chains.blocks_of(increment.size, list(increment.items), start)
        points.append((increment.from_snap, increment.to_snap, increment.size, there))
    return points


@pytest.mark.parametrize('number', [0, 1, 2])
def test_raw_is_the_backup_and_neither_head_nor_another(chain: chains.Chain, number: int) -> None:
    file, result = chains.export(chain, number, 'raw')

    assert file.seek(0, io.SEEK_END) == SIZE
    assert (chains.blocks_of_file(file) == chain.contents[number]) is True
    assert (result.image, result.snapshot, result.size) == (BASE, chains.snapshot(number), SIZE)
    assert result.stream_size == SIZE


@pytest.mark.parametrize('number', [0, 1, 2])
def test_a_full_diff_is_the_backup(chain: chains.Chain, number: int) -> None:
    file, result = chains.export(chain, number, 'rbd-diff')

    assert points_of(file) == [(None, chains.snapshot(number), SIZE)]
    assert (contents_of(file) == [chain.contents[number]]) is True
    assert result.stream_size == file.seek(0, io.SEEK_END) < 2 * units.MIB


@pytest.mark.parametrize(('base', 'number'), [(0, 1), (1, 2), (0, 2)])
def test_an_increment_leads_from_one_backup_to_another(
    chain: chains.Chain, base: int, number: int
) -> None:
    file, _result = chains.export(chain, number, 'rbd-diff', base)

    file.seek(0)
    arriving = streams.open_any(stream.Reader(file, 'x'), SIZE)
    increment = next(arriving.increments)
    items = list(increment.items)
    assert (increment.from_snap, increment.to_snap) == (
        chains.snapshot(base),
        chains.snapshot(number),
    )
    found = chains.blocks_of(SIZE, items, chain.contents[base])
    assert (found == chain.contents[number]) is True
    # What was given back, which only a record of zeros can tell.
    assert any(isinstance(item, model.Zero) and item.length > units.KIB for item in items)


@pytest.mark.parametrize('number', [0, 1, 2])
def test_rbd_is_the_chain_up_to_the_backup(chain: chains.Chain, number: int) -> None:
    file, _result = chains.export(chain, number, 'rbd')

    names = [None, *(chains.snapshot(at) for at in range(number + 1)), None]
    assert points_of(file) == [(start, end, SIZE) for start, end in itertools.pairwise(names)]
    # After the last snapshot comes HEAD: that is the backup too.
    expected = [*chain.contents[: number + 1], chain.contents[number]]
    assert (contents_of(file) == expected) is True


@pytest.mark.parametrize('image_format', FORMATS)
def test_a_backup_without_a_snapshot_is_the_image(
    cluster: fake_ceph.Cluster, image_format: str
) -> None:
    own = f'volume-{chains.VOLUME}.backup.{IDS[0]}'
    with chains.make_image(cluster, own):
        chains.change(cluster.images[own].content, 0)
    content = cluster.images[own].content.dump()
    chain = chains.Chain(cluster, own, [chains.backup(0, service_metadata=None)], [content])

    file, result = chains.export(chain, 0, image_format)

    assert result.snapshot is None
    assert points_of(file) == [(None, None, SIZE)]
    assert (contents_of(file) == [content]) is True


@pytest.mark.parametrize('image_format', FORMATS)
@pytest.mark.parametrize('trusted', [True, False])
def test_without_an_object_map_that_can_be_trusted(
    chain: chains.Chain, image_format: str, trusted: bool
) -> None:
    # The fake fails whoever asks a map that says of itself that it is wrong.
    chain.cluster.images[BASE].flags = 0 if trusted else rbd.RBD_FLAG_OBJECT_MAP_INVALID

    file, _result = chains.export(chain, 1, image_format)

    assert (contents_of(file)[-1] == chain.contents[1]) is True


def test_snapshots_of_others_are_not_exported(cluster: fake_ceph.Cluster) -> None:
    chain = chains.make_chain(cluster, 1)
    with rbd.Image(cluster.connect(), BASE) as image:
        image.create_snap('taken-by-hand')
        image.create_snap(chains.snapshot(1))
    chain.backups.append(chains.backup(1))

    file, _result = chains.export(chain, 1, 'rbd')

    assert [end for _, end, _ in points_of(file)] == [chains.snapshot(0), chains.snapshot(1), None]


@pytest.mark.parametrize('image_format', FORMATS)
def test_a_volume_that_grew(cluster: fake_ceph.Cluster, image_format: str) -> None:
    chain = chains.make_chain(cluster, 1)
    stored = cluster.images[BASE]
    with rbd.Image(cluster.connect(), BASE) as image:
        image.resize(2 * SIZE)
        stored.content.write(2 * SIZE - 5, b'grown')
        image.create_snap(chains.snapshot(1))
    chain.backups.append(chains.backup(1, size=2))
    chain.contents.append(stored.content.dump())

    for number, size in ((0, SIZE), (1, 2 * SIZE)):
        file, result = chains.export(chain, number, image_format)
        assert result.size == size
        assert points_of(file, size)[-1][2] == size
        assert (contents_of(file, size)[-1] == chain.contents[number]) is True


def test_an_increment_from_a_newer_backup_is_refused(chain: chains.Chain) -> None:
    for base in (1, 2):
        with pytest.raises(errors.InvalidInput, match='is not older than backup'):
            chains.export(chain, 1, 'rbd-diff', base)


def test_an_increment_from_a_backup_that_is_not_there_is_refused(chain: chains.Chain) -> None:
    with pytest.raises(errors.InvalidInput, match=f'Backup {IDS[4]} has no snapshot') as caught:
        chains.export(chain, 1, 'rbd-diff', 4)

    assert chains.snapshot(0) in str(caught.value)


@pytest.mark.parametrize(
    ('image_format', 'total'), [('raw', SIZE), ('rbd-diff', SIZE), ('rbd', 2 * SIZE)]
)
def test_progress_adds_up(chain: chains.Chain, image_format: str, total: int) -> None:
    shown = chains.Shown()

    _file, result = chains.export(chain, 1, image_format, shown=shown)

    assert sum(size or 0 for _what, size in shown.begun) == total
    assert shown.moved + shown.skipped == total
    assert (result.moved, result.skipped) == (shown.moved, shown.skipped)
    assert 0 < result.moved < 2 * units.MIB


def test_a_failing_read_ends_it(chain: chains.Chain) -> None:
    counted: list[str] = []

    def hook(what: str) -> int:
        counted.append(what)
        return 5 if what.startswith('aio_read') and len(counted) > 6 else 0

    chain.cluster.hook = hook

    with pytest.raises(errors.CephError, match='Input/output error'):
        chains.export(chain, 1, 'raw')


def test_nothing_in_the_pool_is_changed(chain: chains.Chain) -> None:
    before = chain.cluster.dump()

    for image_format in FORMATS:
        chains.export(chain, 1, image_format)

    assert (chain.cluster.dump() == before) is True
    assert not chain.cluster.images[BASE].watchers


@pytest.mark.parametrize('damage', [(1,), (2,), (0, 1, 2), (None,)])
@pytest.mark.parametrize('image_format', ['raw', 'rbd', 'rbd-diff'])
def test_lost_object_maps_change_no_byte(
    cluster: fake_ceph.Cluster, image_format: str, damage: tuple[int | None, ...]
) -> None:
    """Those of snapshots by their number, or that of the image as it is now."""
    chain = chains.make_chain(cluster)
    stored = cluster.images[chains.BASE]
    for number in damage:
        snapshot = '' if number is None else f'.{stored.snapshots[number].id:016x}'
        cluster.connect().remove_object(f'rbd_object_map.{stored.id}{snapshot}')
    file = chains.export(chain, 2, image_format)[0]
    if image_format == 'raw':
        assert chains.blocks_of_file(file) == chain.contents[2]
    else:
        target = fake_ceph.Cluster()
        chains.import_(target, chain.backups[2], file)
        content = target.dump_image(chains.BASE)['snapshots'][chains.snapshot(2)][1]
        assert content == chain.contents[2]
        target.close()


@pytest.mark.parametrize('points', [0, 1, 2])
def test_room_is_asked_for_each_point(
    chain: chains.Chain, monkeypatch: pytest.MonkeyPatch, points: int
) -> None:
    """The first point of a chain may be the smallest."""
    free = iter([SIZE] * points + [4096] * 3)
    monkeypatch.setattr(stream.Writer, 'free', lambda self: next(free))

    with pytest.raises(errors.Conflict, match=r'there is room for 4.0 KiB'):
        chains.export(chain, 2, 'rbd')

    assert len(list(free)) == 2
