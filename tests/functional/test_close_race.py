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

"""How long librbd lives when images are open for a moment: tools/close_race.py."""

import pathlib
import subprocess
import sys

import pytest

from tests.functional import ceph, shell

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'close_race.py'

pytestmark = pytest.mark.long


@pytest.mark.parametrize(('options', 'expected'), [((), 0), (('--control',), 1)])
def test_nobody_dies_but_without_the_remedy(
    dst: shell.Cloud, options: tuple[str, ...], expected: int
) -> None:
    pool = ceph.backup_pool(dst)
    # The control begins anew with each that dies.
    count = '60' if options else '2000'
    place = (pool.conf, pool.user, pool.name)
    done = subprocess.run(
        [sys.executable, TOOL, *place, '--increments', count, '--readers', '4', *options],
        stdout=subprocess.PIPE,
        text=True,
        env=shell.plain_environment(),
        cwd=TOOL.parents[1],
        check=False,
    )
    assert done.returncode == expected, done.stdout
    assert ('a reader died' in done.stdout) == bool(options)
