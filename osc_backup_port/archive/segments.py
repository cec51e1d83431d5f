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

"""Cutting a diff stream into segments, and putting it together again.

All segments of an increment, one after the other, are one rbd diff stream of
version 1: the first begins with its header, the last ends with its end mark.
Cuts lie between records.  Segments are compressed and hashed, fetched and
expanded, by several threads, and go by in their order.

Their part of the peak memory, of which osc_backup_port.transfer.limits has the whole: a
segment that is gathered or read, and what is under way.  A job takes what is compressed, what
it is compressed to, and what zstd needs.  Jobs are begun as long as there is room for one
more in ``_ROOM``; one that takes more than that is alone, and the next segment is not even
gathered, or read, before it is done.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import zstandard

from osc_backup_port import units, workers
from osc_backup_port.archive import manifest, names, sealed

#: Threads that compress or expand; more would only take more memory: each of them
#: holds a segment, and what it becomes.
_WORKERS = min(4, os.cpu_count() or 1)
#: Bytes that jobs side by side may take.
_ROOM = 80 * units.MIB
#: Bytes that one job may take: a lower level of zstd is used where it would be more.
_LARGEST_JOB = 128 * units.MIB

_Job = tuple[int, Callable[[], Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A segment, ready to be stored."""

    segment: manifest.Segment
    content: bytes


def pack(
    records: Iterable[tuple[bytes, ...]],
    level: int | None,
    store: Callable[[Packed], None],
    first: int = 0,
    size: int = manifest.SEGMENT_SIZE,
    in_order: bool = False,
) -> Generator[manifest.Segment, None, None]:
    """Store the segments of a stream; yield what is to be said of them, in order.

    To be closed: then no thread stores anything any more.

    :param records: the stream; a cut may lie between any two of them
    :param level: of zstd; None: not compressed
    :param store: called by several threads at once, unless *in_order*
    :param first: the number of the first of them
    :param size: bytes of records in each
    """

    def work(number: int, pieces: list[bytes]) -> Packed:
        packed = _pack(number, pieces, level)
        # Nobody else holds them: they go before the segment is stored, which takes long.
        pieces.clear()
        if in_order:
            return packed
        store(packed)
        return Packed(packed.segment, b'')

    numbered = enumerate(_gather(records, size), first)
    cost = 2 * size + (0 if level is None else _context_size(_parameters(level, size)))
    jobs = ((cost, functools.partial(work, *item)) for item in numbered)
    with workers.threads(_WORKERS) as pool:
        for packed in _in_order(pool, jobs):
            if in_order:
                store(packed)
            segment = packed.segment
            del packed
            yield segment


def _gather(records: Iterable[tuple[bytes, ...]], limit: int) -> Iterator[list[bytes]]:
    """Gather records up to the size of a segment."""
    pieces: list[bytes] = []
    size = 0
    for record in records:
        length = sum(map(len, record))
        if pieces and size + length > limit:
            yield pieces
            pieces, size = [], 0
        pieces.extend(record)
        size += length
    if pieces:
        yield pieces


def _pack(number: int, pieces: list[bytes], level: int | None) -> Packed:
    size = sum(map(len, pieces))
    content = b''.join(pieces) if level is None else _compress(pieces, size, level)
    name = names.segment(number, level is not None)
    digest = hashlib.sha256(content).hexdigest()
    return Packed(manifest.Segment(name, len(content), digest, size), content)


def _compress(pieces: list[bytes], size: int, level: int) -> bytes:
    """Return one frame, with its size and a checksum, of pieces that are not joined before."""
    parameters = _parameters(level, size)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    packed = [compressor.compress(piece) for piece in pieces]
    return b''.join([*packed, compressor.flush()])


def _parameters(level: int, size: int) -> zstandard.ZstdCompressionParameters:
    """Return those of a level, or of the next lower one for which there is room."""
    for lower in range(level, 0, -1):
        found = zstandard.ZstdCompressionParameters.from_level(
            lower, source_size=size, write_checksum=True
        )
        if lower == 1 or 2 * size + _context_size(found) <= _LARGEST_JOB:
            break
    return found


def _context_size(parameters: zstandard.ZstdCompressionParameters) -> int:
    return int(parameters.estimated_compression_context_size())


def unpack(
    segments: Iterable[manifest.Segment],
    fetch: Callable[[manifest.Segment], bytes | None],
    name: str,
) -> Iterator[bytes]:
    """Yield the stream that was cut, a segment at a time, each checked.

    :param fetch: returns the file of a segment
    :param name: what to call their folder in an error
    :raises InvalidInput: one is missing, or not what was written
    """

    def fetch_and_check(segment: manifest.Segment) -> bytes:
        return check(segment, fetch(segment), name)

    yield from _read_side_by_side(
        (segment.size + segment.raw_size, functools.partial(fetch_and_check, segment))
        for segment in segments
    )


def describe(name: str, content: bytes, path: str) -> tuple[manifest.Segment, bytes]:
    """Return what a manifest says of a segment, and the stream in it.

    :raises InvalidInput: it is not whole
    """
    raw = expand(content, name, manifest.MAX_SEGMENT_SIZE, path)
    digest = hashlib.sha256(content).hexdigest()
    return manifest.Segment(name, len(content), digest, len(raw)), raw


def describe_all(
    pairs: Iterable[tuple[str, bytes]], where: str
) -> Iterator[tuple[manifest.Segment, bytes]]:
    """Do :func:`describe` with several segments at once; results in order.

    :param pairs: name and content of each
    """

    def jobs() -> Iterator[_Job]:
        for name, content in pairs:
            cost = len(content) + _raw_size(name, content)
            job = functools.partial(describe, name, content, f'{where}/{name}')
            del content
            yield cost, job
            del job

    yield from _read_side_by_side(jobs())


def _raw_size(name: str, content: bytes) -> int:
    """Return what a segment takes when it is expanded, at most."""
    if not names.is_compressed(name):
        return 0
    try:
        size = zstandard.frame_content_size(content)
    except zstandard.ZstdError:
        size = -1
    return size if 0 <= size <= manifest.MAX_SEGMENT_SIZE else manifest.MAX_SEGMENT_SIZE


def check(segment: manifest.Segment, content: bytes | None, name: str) -> bytes:
    """Return what is in the file of a segment, if it is what was written.

    :raises InvalidInput: it is not
    """
    name = f'{name}/{segment.name}'
    if content is None:
        raise sealed.damaged(name, 'is missing')
    if len(content) != segment.size:
        raise sealed.damaged(name, f'has {len(content)} bytes, expected {segment.size}')
    if hashlib.sha256(content).hexdigest() != segment.sha256:
        raise sealed.damaged(name, 'its content does not match its sha256')
    raw = expand(content, segment.name, segment.raw_size, name)
    if len(raw) != segment.raw_size:
        raise sealed.damaged(name, f'expands to {len(raw)} bytes, expected {segment.raw_size}')
    return raw


def expand(content: bytes, segment_name: str, limit: int, name: str) -> bytes:
    """Return the stream in the file of a segment, of at most *limit* bytes.

    :raises InvalidInput: it is more, or not one whole zstd frame
    """
    if not names.is_compressed(segment_name):
        return content
    try:
        size = zstandard.frame_content_size(content)
        if size > limit:
            raise sealed.damaged(name, f'expands to {size} bytes, expected at most {limit}')
        # In one go: a frame that comes in parts is copied three times on its way.
        raw: bytes = zstandard.ZstdDecompressor().decompress(
            content, max_output_size=limit, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise sealed.damaged(name, f'is not one whole zstd frame: {error}') from None
    return raw


def _read_side_by_side(jobs: Iterable[_Job]) -> Iterator[Any]:
    """Run jobs that change nothing in threads; results in order."""
    pool = concurrent.futures.ThreadPoolExecutor(_WORKERS)
    try:
        yield from _in_order(pool, jobs)
    finally:
        # Not waited for: after an error the garbage collector may end this, in any thread
        # and even while that one starts another, and whoever joins a thread then hangs.
        pool.shutdown(wait=False, cancel_futures=True)


def _in_order(pool: concurrent.futures.ThreadPoolExecutor, jobs: Iterable[_Job]) -> Iterator[Any]:
    """Run jobs as far ahead of the consumer as there is room; results in order.

    :param jobs: each with the bytes that it takes
    """
    running: collections.deque[tuple[int, concurrent.futures.Future[Any]]] = collections.deque()
    for cost, job in jobs:
        running.append((cost, pool.submit(job)))
        # It holds a segment.
        del job
        while running and (len(running) >= _WORKERS or _taken(running) + cost > _ROOM):
            yield running.popleft()[1].result()
    while running:
        yield running.popleft()[1].result()


def _taken(running: Iterable[tuple[int, object]]) -> int:
    return sum(cost for cost, _future in running)


class Chunks(io.RawIOBase):
    """Pieces of bytes, to be read as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b'')

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        # What io would make of readinto() copies everything twice.
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b''
            self._rest = memoryview(piece)
        taken = self._rest if count < 0 else self._rest[:count]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)
