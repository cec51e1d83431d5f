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

"""Files that say what something is to be called on the other side."""

import pathlib

from osc_backup_port import documents, errors, input_file

_LARGEST = 1 << 20
# What is wrong is shown up to here.
_LONGEST = 200


def read(path: pathlib.Path | None, option: str) -> dict[str, str] | None:
    """Read a mapping from a YAML or JSON file; None where there is no file.

    :param option: that named the file, for the message
    :raises errors.InvalidInput: it cannot be read, or is none
    """
    if path is None:
        return None
    try:
        content = input_file.read(path, _LARGEST + 1)
        if len(content) > _LARGEST:
            raise _invalid(path, option, f'has more than {_LARGEST} bytes')
        found = documents.read_yaml(content.decode('utf-8-sig'))
    except FileNotFoundError as error:
        raise errors.InvalidInput(f'{path}: {error.strerror}.') from error
    except ValueError as error:
        raise _invalid(path, option, f'is neither YAML nor JSON ({_short(error)})') from error
    if not isinstance(found, dict) or not found:
        raise _invalid(path, option, f'holds {type(found).__name__}')
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str) or not value:
            raise _invalid(path, option, f'has the line {_short(key)}: {_short(value)}')
    return found


def _short(value: object) -> str:
    text = ' '.join(str(value).split()) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


def _invalid(path: pathlib.Path, option: str, found: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{path}: {found}, expected one line each: "<old>": "<new>".',
        f'Correct the file of {option}; put IDs of digits only between quotes.',
    )
