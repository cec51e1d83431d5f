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

"""A raw image in zstd: also several frames one after the other, as pzstd and cat make them.

The frames are walked block by block. The library alone does not tell a file that was cut
behind its data from a whole one, and unpacks a small piece to any size.

Source: RFC 8878, "Zstandard Compression and the 'application/zstd' Media Type".
"""

import struct
from collections.abc import Iterator

from osc_backup_port import errors, model, units
from osc_backup_port.formats import image_formats, packed, stream

_MAGIC = b'\x28\xb5\x2f\xfd'
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_LEVEL = 3
#: What ``zstd -d`` takes without being told to use more memory.
_MAX_WINDOW = 128 * units.MIB
_U32 = struct.Struct('<I')
#: Bytes of the id of the dictionary, and of the content size, by the flags of a frame.
_DICTIONARY_ID = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)
_RLE = 1


class _Zstd(image_formats.OnePoint):
    name = 'zstd'
    suffixes = ('.zst', '.zstd')
    summary = 'a raw image, compressed with zstd'

    def begins(self, head: bytes) -> bool:
        return head.startswith(_MAGIC) or _is_skippable(head[:4])

    def items(self, reader: stream.Reader, size: int) -> Iterator[model.Item]:
        # A frame may tell its own size, and another one may follow: that tells nothing.
        return packed.read(reader, size, _Pieces(_blocks(reader)).take)

    def write(self, writer: stream.Writer, increment: model.Increment) -> None:
        # Not at the top: whoever does not need it does not wait for it.
        import zstandard

        # The checksum is at the end of the frame, of all that was compressed.
        compressor = zstandard.ZstdCompressor(_LEVEL, write_checksum=True)
        packed.write(writer, increment, compressor.compressobj(increment.size))


class _Pieces:
    """Gives as many bytes as are asked for, of pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b''

    def take(self, count: int) -> bytes:
        """Return *count* bytes, fewer only at the end."""
        taken, size = [self._rest], len(self._rest)
        while size < count and (piece := next(self._pieces, None)) is not None:
            taken.append(piece)
            size += len(piece)
        data = b''.join(taken)
        self._rest = data[count:]
        return data[:count]


def _is_skippable(magic: bytes) -> bool:
    return len(magic) == _U32.size and _U32.unpack(magic)[0] in _SKIPPABLE


def _blocks(reader: stream.Reader) -> Iterator[bytes]:
    """Yield what the blocks of all frames unpack to, each of at most 128 KiB."""
    import zstandard

    # A limit of the library: it raises what is beyond, and keeps one window.
    library = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    while reader.peek(1):
        magic = _exactly(reader, 4)
        if _is_skippable(magic):
            _skip(reader, *_U32.unpack(_exactly(reader, 4)))
            continue
        if magic != _MAGIC:
            raise packed.damaged(reader, f'{magic!r} where another frame, or the end, has to be')
        header, has_checksum = _frame_header(reader)
        frame = library.decompressobj()
        try:
            yield frame.decompress(magic + header)
            for block in _compressed(reader):
                yield frame.decompress(block)
            if has_checksum:
                yield frame.decompress(_exactly(reader, 4))
        except zstandard.ZstdError as error:
            raise _refused(reader, error) from error
        if not frame.eof:
            raise packed.damaged(reader, 'the frame has no end where its last block ends')


def _frame_header(reader: stream.Reader) -> tuple[bytes, bool]:
    """Return what follows the magic of a frame, and whether a checksum follows its blocks."""
    descriptor = _exactly(reader, 1)
    flags = descriptor[0]
    is_single = flags >> 5 & 1
    # Of a single segment that tells no size it has one byte, in the place of the window.
    content_size = _CONTENT_SIZE[flags >> 6] or is_single
    header = _exactly(reader, (1 - is_single) + _DICTIONARY_ID[flags & 3] + content_size)
    return descriptor + header, bool(flags >> 2 & 1)


def _compressed(reader: stream.Reader) -> Iterator[bytes]:
    """Yield each block of a frame, with its header."""
    is_last = False
    while not is_last:
        header = _exactly(reader, 3)
        told = int.from_bytes(header, 'little')
        is_last, kind, size = bool(told & 1), told >> 1 & 3, told >> 3
        yield header + _exactly(reader, 1 if kind == _RLE else size)


def _skip(reader: stream.Reader, length: int) -> None:
    for at in range(0, length, packed.PIECE):
        _exactly(reader, min(packed.PIECE, length - at))


def _exactly(reader: stream.Reader, count: int) -> bytes:
    data = reader.read(count)
    if len(data) != count:
        raise packed.cut_short(reader)
    return data


def _refused(reader: stream.Reader, error: Exception) -> errors.InvalidInput:
    if 'memory' in str(error) or 'window' in str(error).lower():
        return errors.InvalidInput(
            f'{reader.name}: needs more than {units.human_size(_MAX_WINDOW)} of memory to be '
            'unpacked; it was compressed with a larger window (zstd --long, --ultra).',
            'Unpack it first, or compress it again without --long: zstd -dc --long=31 <file> |',
        )
    return packed.damaged(reader, error)


FORMAT = _Zstd()
