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

"""What the log tells of a move, line by line, as ``openstack -v`` shows it."""

import logging
import pathlib
import re

import pytest

from osc_backup_port import units
from osc_backup_port.archive import store
from osc_backup_port.moving import cluster_source, image_session
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains
from tests.unit.fake_cinder import FakeCinder
from tests.unit.test_migrate import Clouds

BASE, IDS = chains.BASE, chains.IDS


def lines(caplog: pytest.LogCaptureFixture) -> str:
    """Return what was told of moving since the last call."""
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith('osc_backup_port.moving') and record.levelno >= logging.INFO
    ]
    caplog.clear()
    return '\n'.join(told)


@pytest.fixture(autouse=True)
def _verbose(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, 'osc_backup_port')


def test_a_migration(caplog: pytest.LogCaptureFixture) -> None:
    clouds = Clouds()
    first, second = clouds.migrate(1, verify=True)
    told = re.sub('after [0-9]+ extents', 'after N extents', lines(caplog))
    clouds.source.close()
    clouds.target.close()
    size = f'an image of {units.GIB} bytes'
    assert told == '\n'.join(
        [
            'Looking: out of pool backups, into pool backups.',
            f'Image {BASE}: 2 of 2 backups to move.',
            f'Backup {IDS[0]}: from nothing to {chains.snapshot(0)}, {size}.',
            f'Backup {IDS[0]}: is complete, after N extents.',
            f'Backup {IDS[0]}: reads as what came in.',
            f'Backup {IDS[0]}: {first.moved} bytes moved, {first.skipped} skipped.',
            f'Backup {IDS[1]}: from {chains.snapshot(0)} to {chains.snapshot(1)}, {size}.',
            f'Backup {IDS[1]}: is complete, after N extents.',
            f'Backup {IDS[1]}: reads as what came in.',
            f'Backup {IDS[1]}: {second.moved} bytes moved, {second.skipped} skipped.',
        ]
    )


def test_a_run_that_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(cluster_source, '_PART', 64 << 20)
    note = image_session.Session._note_parts

    def die(self: image_session.Session, identity: str, mark: int) -> None:
        note(self, identity, mark)
        raise Killed

    clouds = Clouds()
    with monkeypatch.context() as patch:
        patch.setattr(image_session.Session, '_note_parts', die)
        with pytest.raises(Killed):
            clouds.migrate(0)
    caplog.clear()
    clouds.migrate(0)
    told = lines(caplog)
    clouds.source.close()
    clouds.target.close()
    assert f'Image {BASE}.part: what an earlier run left is taken up.' in told
    assert f'Image {BASE}.part: goes on behind mark {64 << 20}.' in told
    assert f'goes on at mark {64 << 20}' in told


def test_an_import_that_is_refused(
    caplog: pytest.LogCaptureFixture, tmp_path: pathlib.Path
) -> None:
    cluster, target = fake_ceph.Cluster(), fake_ceph.Cluster(1)
    chain = chains.make_chain(cluster, 2)
    where = store.Folder(tmp_path)
    archives.create(archives.with_metadata(chain), cluster, where, [IDS[1]])
    last = sorted((tmp_path / BASE / f'1-{IDS[1]}').glob('*.zst'))[-1]
    last.write_bytes(last.read_bytes()[:-1] + b'x')
    caplog.clear()

    planned = archives.import_all(FakeCinder(), target, where)

    told = lines(caplog)
    assert f'Looking: out of archive {tmp_path}, into pool backups.' in told
    assert f'Backup {IDS[0]}: is complete' in told
    assert f'Image {BASE}: nothing of this run stays.' in told
    assert f'Image {BASE}.part: is removed.' in told
    assert f'Image {BASE}: failed: {tmp_path}/{BASE}/1-{IDS[1]}/{last.name}' in told
    assert planned.errors()
    assert not target.images
    cluster.close()
    target.close()
