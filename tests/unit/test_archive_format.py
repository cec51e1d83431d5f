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

"""The document about the format says what the code does; what was written stays readable."""

import json
import pathlib
import re
import textwrap

from osc_backup_port import model
from osc_backup_port.archive import manifest, store
from osc_backup_port.moving import verify_archive
from tests.unit import archives

PAGE = pathlib.Path(__file__).parents[2] / 'doc/source/reference/archive-format.rst'
GOLDEN = pathlib.Path(__file__).parent / 'data' / 'archive'


def test_the_example() -> None:
    (found,) = re.findall(r':caption: archive.json\n\n(.*?)\n\n', PAGE.read_text(), re.S)
    content = textwrap.dedent(found + '\n').encode()
    archive = manifest.decode_archive(content, 'the page')
    assert manifest.encode_archive(archive) == content


def test_every_field_is_told() -> None:
    segment = manifest.Segment('00000.rbd-diff.zst', 1, '0' * 64, 1)
    increment = manifest.Increment(
        'x', 0, None, 'x', 0, (segment,), '0' * 64, None, '2026-11-21T02:00:00+00:00'
    )
    told = PAGE.read_text()
    for document in (
        manifest.encode_increment(increment),
        manifest.encode_image(model.ImageLayout(0)),
    ):
        for key in json.loads(document):
            assert f'``{key}``' in told, key


def test_golden_archive() -> None:
    """Written by the first release: to be read for ever."""
    found = list(verify_archive.run(store.Folder(GOLDEN), archives.SILENT, quick=False))
    assert [verdict.result for verdict in found] == ['good', 'good']
