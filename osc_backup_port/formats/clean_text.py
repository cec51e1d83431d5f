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

"""Make plain text of what terminals, editors and shells leave in a file.

The result is in UTF-8, without marks of encodings, without the sequences that colour
a terminal, and without characters that nobody sees.  All of it is done in pieces, so
that the memory is that of the file and its copy.
"""

import codecs
import collections.abc
import re

_PIECE = 1 << 20

_MARKS = (
    (codecs.BOM_UTF32_LE, 'utf-32-le'),
    (codecs.BOM_UTF32_BE, 'utf-32-be'),
    (codecs.BOM_UTF16_LE, 'utf-16-le'),
    (codecs.BOM_UTF16_BE, 'utf-16-be'),
)
_INVISIBLE = re.compile(
    rb"""
      \x1b\[[0-?]*[ -/]*[@-~]                   # colour, and where the cursor goes
    | \x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)       # the title of the window, a link
    | \x1b[ -/]*[0-Z\\^-~]                      # the other sequences of a terminal
    | \x08\x20\x08 | \x07 | \x0e | \x0f         # rubbed out; a bell; another alphabet
    | \xef\xbb\xbf                              # the mark of UTF-8, wherever it is
    | \xe2\x80[\x8b-\x8f\xaa-\xae]              # no width; from which side to read
    | \xe2\x81[\xa0-\xa4] | \xc2\xad            # joiners; where a word may be broken
    """,
    re.VERBOSE,
)
_MAY_BE_INVISIBLE = re.compile(rb'[\x07\x08\x0e\x0f\x1b]|\xef\xbb\xbf|\xe2[\x80\x81]|\xc2\xad')


def clean(data: bytes) -> bytes:
    """Return *data* as plain text in UTF-8; bytes that are no UTF-8 stay as they are."""
    encoding = _encoding(data)
    if encoding:
        data = b''.join(_decoded(data, encoding))
    if not _MAY_BE_INVISIBLE.search(data):
        return data
    return b''.join(_INVISIBLE.sub(b'', piece) for piece in _pieces(data))


def _encoding(data: bytes) -> str | None:
    """Return the encoding if each character takes several bytes, None for all others."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    # PowerShell writes UTF-16, and some editors without a mark: most characters have a
    # zero then, all of them on the same side.
    even, odd = data[::2].count(0), data[1::2].count(0)
    least = len(data) // 4
    if odd > max(least, 8 * even):
        return 'utf-16-le'
    if even > max(least, 8 * odd):
        return 'utf-16-be'
    return None


def _decoded(data: bytes, encoding: str) -> collections.abc.Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors='replace')
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        text = decoder.decode(piece, final=start + _PIECE >= len(data))
        yield text.encode('utf-8', 'replace')


def _pieces(data: bytes) -> collections.abc.Iterator[bytes]:
    """Yield *data* in pieces that no sequence reaches out of."""
    start = 0
    while start < len(data):
        end = start + _PIECE
        if end < len(data):
            # No sequence goes on in the next line, and each begins with an escape.
            last = max(data.rfind(b'\n', start, end), data.rfind(b'\x1b', start, end))
            end = last if last > start else end
        yield data[start:end]
        start = end
