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

import typing
from collections.abc import Callable

import pytest

from osc_backup_port import documents

Reader = Callable[[str], typing.Any]
READERS: list[Reader] = [documents.read_json, documents.read_yaml]


@pytest.mark.parametrize('read', [*READERS, documents.read_python])
def test_the_same_value(read: Reader) -> None:
    assert read('{"a": [1, "x", {}]}') == {'a': [1, 'x', {}]}


@pytest.mark.parametrize('read', [*READERS, documents.read_python])
@pytest.mark.parametrize(
    'text',
    [
        '[' * 60 + ']' * 60,
        '{"a":' * 1000 + '1' + '}' * 1000,
        '[' * 1_000_000,
        '{"a": 1, "a": 2}',
        '{"a"',
        '9' * 5000,
    ],
)
def test_refused_clearly(read: Reader, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize('text', ['NaN', '[Infinity]', '-Infinity'])
def test_json_has_no_such_numbers(text: str) -> None:
    with pytest.raises(ValueError, match='is not a JSON number'):
        documents.read_json(text)


def test_aliases_are_refused() -> None:
    lines = ['x0: &x0 ["x","x","x","x","x","x","x","x","x","x"]']
    lines += [f'x{n}: &x{n} [{",".join([f"*x{n - 1}"] * 10)}]' for n in range(1, 8)]
    with pytest.raises(ValueError, match='aliases'):
        documents.read_yaml('\n'.join(lines))


@pytest.mark.parametrize(
    'text',
    [
        'a: !!int x', 'a: !!int ""', 'a: !!timestamp x', 'a: !!float ""', '? [a]\n: b',
        'a: !!set {[a]}', 'a: !!python/object:os.system x', 'a: [' + '[],' * 200_000 + ']',
    ],
)  # fmt: skip
def test_yaml_that_fails_late(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        documents.read_yaml(text)
    assert len(str(caught.value)) < 500


def test_a_time_in_yaml_is_a_text() -> None:
    assert documents.read_yaml('a: 2026-01-31T12:00:00Z') == {'a': '2026-01-31T12:00:00Z'}


@pytest.mark.parametrize('text', ['(1, 2)', '{1: 2}', 'open("x")', "b'x'", '{"a", "b"}', '1e999'])
def test_python_that_json_cannot_hold(text: str) -> None:
    with pytest.raises(ValueError):
        documents.read_python(text)
