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

"""The documents of an archive, those with very many segments too."""

import dataclasses
import hashlib
import random

import pytest

from osc_backup_port import errors
from osc_backup_port.archive import manifest, sealed
from tests.unit import chains
from tests.unit.chains import IDS


def increment(count: int) -> manifest.Increment:
    noise = random.Random(count)
    segments = tuple(
        manifest.Segment(
            f'{number:05}.rbd-diff{".zst" if noise.random() < 0.8 else ""}',
            noise.randrange(1 << 26),
            noise.randbytes(32).hex(),
            noise.randrange(1 << 26),
        )
        for number in range(count)
    )
    digest = hashlib.sha256(b'record').hexdigest()
    return manifest.Increment(
        IDS[0],
        3,
        None,
        chains.snapshot(0),
        1 << 40,
        segments,
        digest,
        None,
        '2026-01-01T00:00:00Z',
    )


@pytest.mark.parametrize('count', [0, 1, 2, 7])
def test_an_increment_is_sealed_as_any_other_document(count: int) -> None:
    info = increment(count)
    assert manifest.encode_increment(info) == sealed.seal(dataclasses.asdict(info))


@pytest.mark.parametrize('largest', [0, 1 << 20])
def test_what_was_written_is_read(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, '_LARGEST_PLAIN', largest or 1000)
    info = increment(7)
    found = manifest.decode_increment(manifest.encode_increment(info), 'the document')
    assert found == info
    assert found.segments[2:4] == info.segments[2:4]
    assert found.segments[-1] == info.segments[-1]
    assert manifest.encode_increment(found) == manifest.encode_increment(info)


def test_a_changed_byte_anywhere_in_a_large_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, '_LARGEST_PLAIN', 1000)
    content = manifest.encode_increment(increment(8))
    for at in range(len(content)):
        for spoilt in (content[at] ^ 1, content[at] ^ 4, ord(' ')):
            if spoilt == content[at]:
                continue
            changed = content[:at] + bytes([spoilt]) + content[at + 1 :]
            with pytest.raises(errors.InvalidInput):
                manifest.decode_increment(changed, 'the document')
    for cut in (content[:-1], content + b' ', content[: len(content) // 2], content * 2):
        with pytest.raises(errors.InvalidInput):
            manifest.decode_increment(cut, 'the document')


def test_the_seal_is_the_last_key() -> None:
    content = sealed.seal({'a': 1})
    first = content.splitlines(keepends=True)
    moved = first[0] + first[2].replace(b'\n', b',\n') + first[1].replace(b',', b'') + first[3]
    assert sealed.unseal(content, 'the document') == {'a': 1}
    with pytest.raises(errors.DamagedArchive):
        sealed.unseal(moved, 'the document')
