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

import pytest

from osc_backup_port import errors
from osc_backup_port.osc import failures

MISSING = errors.NotFound('Image x: not there.', 'Look at: rbd ls')


@pytest.mark.parametrize(
    ('is_dry_run', 'is_started', 'expected'),
    [
        (True, False, 'In the way:'),
        (False, False, 'Nothing was migrated:'),
        (False, True, 'Not all backups could be migrated:'),
    ],
)
def test_the_heading_says_what_was_tried(
    is_dry_run: bool, is_started: bool, expected: str
) -> None:
    assert failures.heading('migrated', is_dry_run, is_started) == expected


def test_a_dry_run_says_nothing_of_what_could_not_be_done() -> None:
    error = failures.some_failed(3, [('1', MISSING), ('2', MISSING)], 'added', is_dry_run=True)

    assert str(error).splitlines()[0] == 'In the way:'
    assert 'could not' not in str(error)
