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

"""What stands before every line of a text: its number, a host, the sign of a comment or a diff.

Nobody can list all of these.  But they are the same in each line, but for the numbers in them.
"""

import collections.abc
import re

#: The longest that is looked for.
_MOST = 200
#: A number with what aligns it to the right, or any other character.
_TOKEN = re.compile(rb'[ \t]*\d+|.', re.DOTALL)
_FRAME = re.compile(rb'\|[ \t]*\Z')
#: Where data may begin: JSON, or blanks that mean something in YAML.
_OF_DATA = re.compile(rb'["\'{}\\].*|(?<=[\s-])\s+\Z', re.DOTALL)
#: What tells of a record, and stays in the text.
_LABEL = re.compile(rb'backup[_ -]?(?:url|service)|service_metadata|cinder\.backup\.drivers', re.I)


def remove(text: bytes, at: int) -> collections.abc.Iterator[bytes]:
    """Yield *text* without the mark that the line at *at* and the next one share.

    First with as much of it as cannot be a part of a word that was wrapped into these lines,
    then with signs that a word may have too, then without the blanks at its end.  Nothing, where
    they share none.
    """
    start = text.rfind(b'\n', 0, at) + 1
    end = text.find(b'\n', at) + 1
    if end == 0:
        return
    shared = b''.join(_shared(text[start : start + _MOST], text[end : end + _MOST]))
    shared = _OF_DATA.sub(b'', shared)
    outside = re.sub(rb'[A-Za-z0-9+/=_-]+\Z', b'', shared)
    inside = re.sub(rb'[A-Za-z0-9]+\Z', b'', shared)
    labels = len(_LABEL.findall(text))
    for longest in dict.fromkeys((_FRAME.sub(b'', outside), inside, outside.rstrip())):
        mark = _OF_DATA.sub(b'', longest)
        if mark.strip():
            plain = re.sub(b'(?m)^' + _pattern(mark), b'', text)
            if len(_LABEL.findall(plain)) == labels:
                yield plain


def _shared(line: bytes, following: bytes) -> collections.abc.Iterator[bytes]:
    for one, other in zip(_tokens(line), _tokens(following), strict=False):
        if one != other and not (one[-1:].isdigit() and other[-1:].isdigit()):
            return
        yield one


def _tokens(line: bytes) -> list[bytes]:
    return _TOKEN.findall(line.split(b'\n', 1)[0])


def _pattern(mark: bytes) -> bytes:
    # A number is a whole one: else there would be many ways to match, and all would be tried.
    return b''.join(
        rb'[ \t]*\d+(?!\d)' if token[-1:].isdigit() else re.escape(token)
        for token in _TOKEN.findall(mark)
    )
