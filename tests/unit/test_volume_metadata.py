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

"""The file with the metadata of a volume, whatever lies in its place."""

import os
import pathlib

import pytest

from osc_backup_port import errors
from osc_backup_port.moving import volume_metadata


@pytest.mark.parametrize('required', [True, False])
@pytest.mark.parametrize(
    'content',
    [b'', b'[]', b'{"version": 3}', b'[' * 5000, b'{"version": 2}' + b' ' * (1 << 20)],
    ids=['empty', 'list', 'version', 'deep', 'large'],
)
def test_what_is_no_metadata(tmp_path: pathlib.Path, content: bytes, required: bool) -> None:
    path = tmp_path / 'file'
    path.write_bytes(content)
    with pytest.raises(errors.InvalidInput):
        volume_metadata.read_file(path, required)


def test_a_pipe_that_nobody_named_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / 'file')
    with pytest.raises(errors.InvalidInput, match='is not a file'):
        volume_metadata.read_file(tmp_path / 'file', required=False)


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    assert volume_metadata.read_file(tmp_path / 'file', required=False) is None
    with pytest.raises(FileNotFoundError):
        volume_metadata.read_file(tmp_path / 'file', required=True)
