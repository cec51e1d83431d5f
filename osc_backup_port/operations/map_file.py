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

import yaml

from osc_backup_port import errors

_LARGEST = 1 << 20


def read(path: pathlib.Path | None, option: str) -> dict[str, str] | None:
    """Read a mapping from a YAML or JSON file; None where there is no file.

    :param option: that named the file, for the message
    :raises errors.InvalidInput: it cannot be read, or is none
    """
    if path is None:
        return None
    try:
        with path.open(encoding='utf-8') as file:
            found = yaml.safe_load(file.read(_LARGEST))
    except OSError as error:
        raise errors.InvalidInput(f'{path}: {error.strerror or error}.') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(path, option, f'is neither YAML nor JSON ({error})') from error
    if not isinstance(found, dict) or not found:
        raise _invalid(path, option, f'holds {type(found).__name__}')
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, str) or not value:
            raise _invalid(path, option, f'has the line {key!r}: {value!r}')
    return found


def _invalid(path: pathlib.Path, option: str, found: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f'{path}: {found}, expected one line each: "<old>": "<new>".',
        f'Correct the file of {option}; put IDs of digits only between quotes.',
    )
