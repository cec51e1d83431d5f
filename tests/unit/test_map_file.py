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

import os
import pathlib

import pytest

from osc_backup_port import errors
from osc_backup_port.records import map_file


def read(path: pathlib.Path) -> dict[str, str] | None:
    return map_file.read(path, '--key-map')


def test_json_and_yaml(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x'
    path.write_text('{"a": "b"}')
    assert read(path) == {'a': 'b'}
    path.write_text('# old: new\na: b\n"1": c\n')
    assert read(path) == {'a': 'b', '1': 'c'}


@pytest.mark.parametrize(
    'text',
    [
        'x0: &a ["x","x"]\nx1: [*a,*a]\n',
        '[' * 2000,
        '{"a": ' * 2000,
        'a: b\na: c\n',
        'a: 2026-13-45\nb: 1\n',
        'a: !!timestamp x',
        'a: "' + 'x' * 500_000 + '"\nb: [' + 'x,' * 40_000 + ']',
        'a: b\n' * 300_000,
        'a',
        '',
        '\0',
    ],
)
def test_refused_clearly_and_shortly(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'x'
    path.write_text(text)
    with pytest.raises(errors.InvalidInput, match='expected one line each') as caught:
        read(path)
    assert len(str(caught.value)) < 1000


def test_what_is_no_file(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path, tmp_path / 'pipe', tmp_path / 'none'):
        with pytest.raises(errors.InvalidInput):
            read(path)
