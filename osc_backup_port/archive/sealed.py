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

"""JSON documents that carry their own checksum.

``sha256``, the last key, is the hash of the document without it, keys sorted, no
white space, not ASCII-escaped, in UTF-8.  And there is one way only to write a
document, so that a changed bit is found wherever it is, in white space too.
"""

import collections.abc
import hashlib
import json
import typing

from osc_backup_port import documents, errors, units

#: The largest document that is read: one with 400 000 segments or so, each of
#: which takes some 160 bytes.
MAX_SIZE = 64 * units.MIB
#: The largest one that has no list of segments.
MAX_SMALL_SIZE = 64 * units.KIB
#: Bytes that a value takes at the least, on average.  What has more values would
#: take a multiple of the memory, and none of ours has.
_BYTES_PER_VALUE = 16


def seal(document: collections.abc.Mapping[str, typing.Any]) -> bytes:
    """Return a document as the bytes of a file."""
    return write({**document, 'sha256': _digest(document)})


def write(document: collections.abc.Mapping[str, typing.Any]) -> bytes:
    """Return a document that has its checksum as the bytes of a file."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b'\n'


def canonical(document: collections.abc.Mapping[str, typing.Any]) -> bytes:
    """Return a document without its checksum as the bytes that this is computed of."""
    text = json.dumps(document, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
    return text.encode('utf-8', 'surrogatepass')


def unseal(content: bytes, name: str) -> dict[str, typing.Any]:
    """Return the document in a file, which is as it was written.

    :param name: what to call it in an error
    :raises InvalidInput: it is not what :func:`seal` made
    """
    document, expected = read(content, name)
    if expected != _digest(document):
        raise damaged(name, 'its content does not match its own sha256')
    return document


def read(content: bytes, name: str) -> tuple[dict[str, typing.Any], object]:
    """Return the document in a file, which is written as :func:`write` does, and its checksum.

    :raises InvalidInput: it is not
    """
    values = sum(map(content.count, (b'{', b'[', b',')))
    if values > 64 + len(content) // _BYTES_PER_VALUE:
        raise damaged(name, f'has {values} values in {len(content)} bytes, which is too many')
    try:
        document = documents.read_json(content)
    except ValueError as error:
        raise damaged(name, f'is not valid JSON: {error}') from None
    if not isinstance(document, dict):
        raise damaged(name, f'holds {type(document).__name__}, expected an object')
    if list(document)[-1:] != ['sha256'] or not _is_exact(document, content):
        raise damaged(name, 'its content does not match its own sha256')
    return document, document.pop('sha256', None)


def _is_exact(document: dict[str, typing.Any], content: bytes) -> bool:
    try:
        return write(document) == content
    except UnicodeEncodeError:  # half of a surrogate pair, which cannot be written
        return False


def damaged(name: str, problem: str) -> errors.DamagedArchive:
    """Return the error for something in an archive that is not as it was written."""
    return errors.DamagedArchive(
        f'{name}: {problem}.',
        'The archive is damaged there: restore that from another copy of it, or put the backup '
        'into a new archive. '
        'To see all that is wrong: openstack volume backup archive verify <archive>',
    )


def forged(name: str, problem: str) -> errors.ForgedArchive:
    """Return the error for what is whole, and what no writer writes."""
    return errors.ForgedArchive(
        f'{name}: {problem}.',
        'Damage does not look like that: somebody changed the archive, or it is not one of ours. '
        'Do not use it.',
    )


def _digest(document: collections.abc.Mapping[str, typing.Any]) -> str:
    return hashlib.sha256(canonical(document)).hexdigest()
