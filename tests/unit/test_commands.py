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

"""Commands in hints work when they are copied."""

import shlex

import pytest

from osc_backup_port.ceph.commands import Commands

ALL = Commands('/etc/ceph/a b.conf', 'cinder-backup', 'backups')


def test_they_reach_the_cluster_that_we_talk_to() -> None:
    where = "-c '/etc/ceph/a b.conf' --id cinder-backup"
    assert ALL.rbd('snap', 'ls', 'x') == f'rbd {where} -p backups snap ls x'
    assert ALL.rados('get', 'x', '-') == f'rados {where} -p backups get x -'
    assert ALL.ceph('df', 'detail') == f'ceph {where} df detail'


def test_what_ceph_finds_by_itself_is_left_out() -> None:
    assert Commands().ceph('status') == 'ceph status'
    assert Commands(pool='backups').rbd('ls') == 'rbd -p backups ls'


@pytest.mark.parametrize('name', ['a b', '$(reboot)', "it's", '-x;y', '*'])
def test_a_name_is_one_word(name: str) -> None:
    assert shlex.split(ALL.rbd('info', name))[-1] == name


def test_what_is_to_be_filled_in_stays() -> None:
    assert Commands(pool='p').rados('put', 'x', '<file>') == 'rados -p p put x <file>'
