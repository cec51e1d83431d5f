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

"""Streams of the rbd tool: real ones, our own, cut ones and hostile ones."""

import contextlib
import gzip
import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from osc_backup_port import errors, model, units
from osc_backup_port.formats import rbd_diff, rbd_export, stream
from tests.unit.streams import RBD_DATA, as_file, open_any, read_image, reader

SIZE = 4 * units.MIB
F, I1, I2 = 'backup.0f.snap.1.1', 'backup.11.snap.2.2', 'backup.12.snap.3.3'


def golden(name: str) -> bytes:
    return (RBD_DATA / name).read_bytes()


def image(*pieces: tuple[int, int, bytes]) -> bytes:
    whole = bytearray(SIZE)
    for offset, length, byte in pieces:
        whole[offset : offset + length] = byte * length
    return bytes(whole)


#: What data/rbd/make writes.
_FULL = [(0, 100, b'a'), (262144, 4096, b'b'), (1048576, 1000, b'c')]
_NEXT = [*_FULL, (50, 100, b'd'), (262144, 65536, b'\0')]
AT_F, AT_I1 = image(*_FULL), image(*_NEXT)
AT_I2 = image(*_NEXT, (SIZE - 1, 1, b'e'))


class TestWhatTheStockToolWrote:
    def test_a_raw_image(self) -> None:
        raw = gzip.decompress(golden('head.raw.gz'))

        assert read_image(raw, SIZE) == [(None, None, AT_I2)]

    @pytest.mark.parametrize(
        ('name', 'points'),
        [
            ('full.rbd-diff', [(None, F, AT_F)]),
            ('head.rbd-diff', [(None, None, AT_I2)]),
            ('one-snapshot.rbd', [(None, F, AT_F), (F, None, AT_F)]),
            (
                'three-snapshots.rbd',
                [(None, F, AT_F), (F, I1, AT_I1), (I1, I2, AT_I2), (I2, None, AT_I2)],
            ),
            ('no-snapshot.rbd', [(None, None, AT_I2)]),
        ],
    )
    def test_full_streams(self, name: str, points: list[tuple[str | None, str, bytes]]) -> None:
        found = read_image(golden(name))

        assert [point[:2] for point in found] == [point[:2] for point in points]
        assert [point[2] == want[2] for point, want in zip(found, points, strict=True)] == [
            True
        ] * len(points)

    def test_an_increment_holds_what_changed_and_no_more(self) -> None:
        increment = rbd_diff.read(reader(golden('increment.rbd-diff')))

        assert (increment.from_snap, increment.to_snap, increment.size) == (F, I1, SIZE)
        assert list(increment.items) == [model.Data(50, b'd' * 100), model.Zero(262144, 4096)]

    def test_the_layout_of_the_image(self) -> None:
        export = rbd_export.read(reader(golden('three-snapshots.rbd')))

        assert export.layout == model.ImageLayout(0, 16, 1 | 4 | 8 | 16, 65536, 1)
        assert export.count == 4

    def test_the_record_of_protection_lies_about_its_length(self) -> None:
        """The case that a reader must know: it says 8, but one byte follows."""
        lie = b'p' + struct.pack('<Q', 8) + b'\0' + b's' + struct.pack('<QQ', 8, SIZE)

        assert lie in golden('one-snapshot.rbd')

    @pytest.mark.parametrize('name', ['increment.rbd-diff', 'full.rbd-diff'])
    def test_what_we_write_is_what_it_wrote(self, name: str) -> None:
        increment = rbd_diff.read(reader(golden(name)))

        assert b''.join(rbd_diff.encode(increment)) == golden(name)

    def test_what_we_export_is_what_it_exported(self) -> None:
        export = rbd_export.read(reader(golden('three-snapshots.rbd')))

        written = b''.join(rbd_export.encode(export.layout, export.count, export.increments))

        # Of the record of protection we tell the length that it has.
        wrong, right = (b'p' + struct.pack('<QB', length, 0) for length in (8, 1))
        assert wrong in golden('three-snapshots.rbd')
        assert (written == golden('three-snapshots.rbd').replace(wrong, right)) is True


def exhaust(source: stream.Reader, size: int = 300) -> None:
    """Read all and hold nothing of it."""
    for increment in open_any(source, size).increments:
        for _item in increment.items:
            pass


def small_diff(version: int = 1, start: str | None = F, end: str | None = I1) -> bytes:
    items: list[model.Item] = [model.Data(3, b'abc'), model.Zero(10, 20), model.Data(90, b'z')]
    return b''.join(rbd_diff.encode(model.Increment(start, end, 100, iter(items)), version))


def small_export() -> bytes:
    increments = [
        model.Increment(None, F, 100, iter([model.Data(0, b'one')])),
        model.Increment(F, I1, 120, iter([model.Zero(1, 1), model.Data(110, b'two')])),
        model.Increment(I1, None, 120, iter([])),
    ]
    layout = model.ImageLayout(120, 20, 61, 65536, 4)
    return b''.join(rbd_export.encode(layout, len(increments), increments))


_STREAMS: dict[str, Callable[[], bytes]] = {
    'rbd-diff v1': small_diff,
    'rbd-diff v1, full': lambda: small_diff(1, None, None),
    'rbd-diff v2': lambda: small_diff(2),
    'rbd': small_export,
    'rbd of the stock tool': lambda: golden('one-snapshot.rbd'),
    'rbd-diff of the stock tool': lambda: golden('increment.rbd-diff'),
}


@pytest.mark.parametrize('name', _STREAMS)
@pytest.mark.parametrize('piped', [False, True])
def test_a_stream_cut_anywhere_is_never_taken_for_a_whole_one(name: str, piped: bool) -> None:
    whole = _STREAMS[name]()
    read_image(whole, SIZE, piped)

    for end in range(len(whole)):
        with pytest.raises(errors.TruncatedStream):
            read_image(whole[:end], SIZE, piped)


@pytest.mark.parametrize('name', _STREAMS)
@pytest.mark.parametrize('more', [b'\0', b'e', b'rbd diff v1\n'])
def test_nothing_may_follow_the_end(name: str, more: bytes) -> None:
    with pytest.raises(errors.InvalidInput, match='more bytes follow the end mark'):
        read_image(_STREAMS[name]() + more)


@st.composite
def increments(draw: st.DrawFn) -> model.Increment:
    size = draw(st.integers(1, 2000))
    names = st.none() | st.text(st.characters(exclude_categories=['C']), min_size=1, max_size=20)
    items: list[model.Item] = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, size - 1))
        data = draw(st.binary(min_size=1, max_size=50))[: size - start]
        items.append(
            model.Data(start, data) if draw(st.booleans()) else model.Zero(start, len(data))
        )
    return model.Increment(draw(names), draw(names), size, iter(items))


@given(increment=increments(), version=st.sampled_from([1, 2]))
def test_an_increment_comes_back_as_it_was(increment: model.Increment, version: int) -> None:
    items = list(increment.items)
    whole = model.Increment(increment.from_snap, increment.to_snap, increment.size, iter(items))

    found = rbd_diff.read(reader(b''.join(rbd_diff.encode(whole, version))))

    assert (found.from_snap, found.to_snap, found.size) == (
        increment.from_snap,
        increment.to_snap,
        increment.size,
    )
    assert list(found.items) == items


@pytest.mark.parametrize('version', [1, 2])
def test_large_data_comes_in_pieces(version: int) -> None:
    data = bytes(range(256)) * (9 * units.MIB // 256)
    whole = model.Increment(None, None, len(data), iter([model.Data(0, data)]))

    found = list(rbd_diff.read(reader(b''.join(rbd_diff.encode(whole, version)))).items)

    assert [item.length for item in found] == [4 * units.MIB, 4 * units.MIB, units.MIB]
    assert b''.join(item.data for item in found if isinstance(item, model.Data)) == data


def record(tag: bytes, body: bytes, length: int | None = None, version: int = 1) -> bytes:
    if version == 1:
        return tag + body
    return tag + struct.pack('<Q', len(body) if length is None else length) + body


def diff(*records: bytes, size: int | None = 100, version: int = 1) -> bytes:
    sized = b'' if size is None else record(b's', struct.pack('<Q', size), version=version)
    return rbd_diff.BANNERS[version] + sized + b''.join(records) + b'e'


def name_record(tag: bytes, name: bytes, length: int | None = None, version: int = 1) -> bytes:
    count = len(name) if length is None else length
    return record(tag, struct.pack('<I', count) + name, version=version)


def place(tag: bytes, offset: int, length: int, data: bytes = b'', version: int = 1) -> bytes:
    return record(tag, struct.pack('<QQ', offset, length) + data, version=version)


@pytest.mark.parametrize(
    ('hostile', 'message'),
    [
        (diff(size=None), 'size of the image is missing'),
        (diff(place(b'w', 0, 1, b'x'), size=None), 'size of the image is missing'),
        (diff(place(b'w', 100, 1, b'x')), '1 bytes at offset 100 lies outside'),
        (diff(place(b'w', 99, 2, b'xx')), '2 bytes at offset 99 lies outside'),
        (diff(place(b'z', 0, 101)), 'lies outside of the image'),
        (diff(place(b'z', 2**64 - 1, 2)), 'lies outside of the image'),
        (diff(place(b'w', 2**64 - 1, 2, b'xx')), 'lies outside of the image'),
        (diff(place(b'w', 0, 2**64 - 1)), 'lies outside of the image'),
        (diff(place(b'w', 0, 2**62), size=2**63), 'ends after'),
        (diff(name_record(b'f', b'')), 'the name of a snapshot has 0 bytes'),
        (diff(name_record(b't', b'x', 2**32 - 1)), 'the name of a snapshot has 4294967295 bytes'),
        (diff(name_record(b't', b'x' * 4097)), 'the name of a snapshot has 4097 bytes'),
        (diff(name_record(b't', b'\xff\xfe')), 'is not UTF-8'),
        (diff(record(b'x', b'')), "unknown record b'x'"),
        (diff(place(b'w', 0, 1, b'x'), record(b's', struct.pack('<Q', 5))), "unknown record b's'"),
        (diff(record(b'q', b'', 2**64 - 1, 2), version=2), 'ends after'),
        (b'rbd diff v1\n', 'ends after 12 bytes'),
    ],
)
def test_a_stream_that_contradicts_itself(hostile: bytes, message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message) as caught:
        exhaust(reader(hostile))

    assert 'the-stream' in str(caught.value)


def test_unknown_records_of_version_2_are_passed_over() -> None:
    known = place(b'w', 1, 2, b'xy', version=2)
    unknown = record(b'?', b'whatever', version=2)

    ((_, _, found),) = read_image(diff(unknown, known, unknown, version=2))

    assert found == b'\0xy' + bytes(97)


def export(*records: bytes, count: int = 1, diffs: bytes | None = None) -> bytes:
    return b''.join(
        [
            rbd_export.BANNER,
            *records,
            b'E',
            b'rbd image diffs v2\n',
            struct.pack('<Q', count),
            diff(version=2) if diffs is None else diffs,
        ]
    )


def number(tag: bytes, value: int) -> bytes:
    return record(tag, struct.pack('<Q', value), version=2)


@pytest.mark.parametrize(
    ('hostile', 'message'),
    [
        (export(number(b'O', 11)), 'the object order is 11, expected 12 to 25'),
        (export(number(b'O', 26)), 'the object order is 26'),
        (export(number(b'O', 2**64 - 1)), 'the object order is 18446744073709551615'),
        (export(record(b'O', b'\x16', version=2)), 'the order of the image has 1 bytes'),
        (export(record(b'M', b'', 2**40, version=2)), 'says that it has 1099511627776 bytes'),
        (export(count=0), 'says that it holds 0 increments'),
        (export(count=2**64 - 1), 'says that it holds 18446744073709551615 increments'),
        (export(count=2), 'ends after'),
        (export(diffs=b'rbd diff v3\ne'), 'begins with'),
        (export().replace(b'diffs v2', b'diffs v9'), 'expected b.rbd image diffs v2'),
    ],
)
def test_an_export_that_contradicts_itself(hostile: bytes, message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        exhaust(reader(hostile))


def test_metadata_of_an_image_is_passed_over() -> None:
    whole = export(record(b'M', b'\x03\0\0\0key\x05\0\0\0value', version=2), number(b'O', 20))

    assert read_image(whole) == [(None, None, bytes(100))]


def read_quietly(content: bytes) -> None:
    """Read all; whatever is wrong must be an error of ours."""
    with contextlib.suppress(errors.PortError):
        exhaust(stream.Reader(as_file(content), 'x', False))


@given(st.binary(max_size=400))
@example(b'')
@settings(deadline=None)
def test_random_bytes_raise_nothing_but_our_errors(random_bytes: bytes) -> None:
    for banner in (b'', *rbd_diff.BANNERS.values(), rbd_export.BANNER):
        read_quietly(banner + random_bytes)


@given(
    base=st.sampled_from([small_diff(), small_diff(2), small_export()]),
    changes=st.lists(
        st.tuples(st.integers(0, 1000), st.binary(min_size=0, max_size=9)), min_size=1, max_size=4
    ),
)
@settings(deadline=None, max_examples=400)
def test_damaged_streams_raise_nothing_but_our_errors(
    base: bytes, changes: list[tuple[int, bytes]]
) -> None:
    damaged = bytearray(base)
    for at, new in changes:
        start = at % len(damaged)
        damaged[start : start + max(len(new), 1)] = new
        if not damaged:
            break
    read_quietly(bytes(damaged))
