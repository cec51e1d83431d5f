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

"""Read JSON and YAML that somebody else wrote.

Every document goes through here, so that none of them ends in a traceback or takes
more memory than its size explains.
"""

import json
import typing

#: How deep lists and objects may lie in each other; ours lie six deep at the most.
MAX_DEPTH = 50
#: How many values a YAML document may have: reading them is slow.
MAX_YAML_VALUES = 100_000


def read_json(content: str | bytes) -> typing.Any:
    """Return the value of a JSON document.

    Stricter than the ``json`` module: a name may stand in an object only once, and
    NaN and Infinity, which JSON does not have, are refused.

    :raises ValueError: it is not JSON, or is nested too deep
    """
    try:
        value = json.loads(content, object_pairs_hook=unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_depth(value)
    return value


def read_yaml(text: str) -> typing.Any:
    """Return the value of a YAML document; a time stays the text that it is.

    Anchors and aliases are refused: with them, a few hundred bytes can stand for
    gigabytes.

    :raises ValueError: it is not YAML, or has what is refused
    """
    import yaml  # not needed by most commands

    base = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    try:
        _check_yaml_events(yaml, base, text)
        return yaml.load(text, Loader=_yaml_loader(base))  # noqa: S506 - it is a safe one
    except (yaml.YAMLError, RecursionError, *_OF_CONSTRUCTORS) as error:
        raise ValueError(_first_lines(str(error))) from None


def read_python(text: str) -> typing.Any:
    """Return the value of a literal of Python that JSON could hold as well.

    :raises ValueError: it is none
    """
    import ast  # only for files that hold such a thing

    try:
        tree = ast.parse(text, mode='eval')
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                unique([(ast.dump(key) if key else '', None) for key in node.keys])
        value = ast.literal_eval(tree)
        is_json = json.loads(json.dumps(value, allow_nan=False)) == value
    except (SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(f'it is no literal of Python ({type(error).__name__})') from None
    if not is_json:
        raise ValueError('JSON cannot hold it')
    check_depth(value)
    return value


def check_depth(value: object) -> None:
    """:raises ValueError: lists and objects lie too deep in each other"""
    level = [value]
    for _depth in range(MAX_DEPTH + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
        if not inner:
            return
        level = inner
    raise ValueError(_TOO_DEEP)


def unique(pairs: list[tuple[str, typing.Any]]) -> dict[str, typing.Any]:
    """Return the pairs of an object as a dict.

    :raises ValueError: a name stands there twice
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError('a name stands in an object twice')
    return result


# Values with a tag of their own, "!!int x" for one, reach code that expects better.
_OF_CONSTRUCTORS = (ArithmeticError, AttributeError, LookupError, TypeError)
_TOO_DEEP = f'it is nested more than {MAX_DEPTH} deep'


def _no_constant(text: str) -> typing.Any:
    raise ValueError(f'{text} is not a JSON number')


def _first_lines(text: str) -> str:
    # A parser may quote the line, and the line may be the whole file.
    return text if len(text) <= 300 else f'{text[:300]}...'


def _check_yaml_events(yaml: typing.Any, base: typing.Any, text: str) -> None:
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=base)):
        if number > MAX_YAML_VALUES:
            raise ValueError(f'it has more than {MAX_YAML_VALUES} values')
        if getattr(event, 'anchor', None) is not None:
            raise ValueError('anchors (&) and aliases (*) of YAML are not allowed')
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(_TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _yaml_loader(base: typing.Any) -> typing.Any:
    class Loader(base):  # type: ignore[misc]
        pass

    def construct_mapping(loader: typing.Any, node: typing.Any) -> dict[str, typing.Any]:
        return unique(loader.construct_pairs(node, deep=True))

    Loader.add_constructor('tag:yaml.org,2002:map', construct_mapping)
    # It would not be the same text when it is written again.
    Loader.yaml_implicit_resolvers = {
        first: [one for one in resolvers if one[0] != 'tag:yaml.org,2002:timestamp']
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    return Loader
