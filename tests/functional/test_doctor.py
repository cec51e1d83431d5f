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

"""``image list``, ``image check`` and ``metadata rebuild`` against a real pool.

Every finding is provoked on purpose, found, and gone when what provoked it is
taken back. Only findings that name something of the test's own count: the pool
may hold other things.
"""

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import typing
import uuid

import pytest

from osc_backup_port import record
from tests.functional import ceph, chains, shell
from tests.functional.chains import BACKUP
from tests.functional.conftest import Resources

# Minutes, all of them together.
pytestmark = pytest.mark.long

CEPH = 'cinder.backup.drivers.ceph.CephBackupDriver'


@pytest.fixture(scope='module')
def chain(dst: shell.Cloud, module_resources: Resources) -> chains.Chain:
    """Three backups of one volume."""
    return chains.make_chain(dst, module_resources)


@pytest.fixture
def pool(dst: shell.Cloud) -> ceph.Pool:
    """Where dst keeps its backups."""
    return ceph.backup_pool(dst)


def check(cloud: shell.Cloud, *options: object, code: int = 0) -> list[dict[str, typing.Any]]:
    """Run ``image check`` and return its findings.

    :param code: the exit code that what the test did calls for; the rest of the
        pool may call for a higher one
    """
    process = cloud.openstack(*BACKUP, 'image', 'check', *options, '-f', 'json', check=False)
    assert process.returncode in {0, 2, 3}, process.stderr.decode()
    assert process.returncode >= code
    return list(json.loads(process.stdout))


def of(found: list[dict[str, typing.Any]], *ours: str) -> set[tuple[str, str]]:
    """Return code and target of the findings that name one of *ours*."""
    return {
        (one['Code'], one['Target'])
        for one in found
        if any(name in f'{one["Target"]} {one["Found"]}' for name in ours)
    }


def backups(code: str, *ids: str) -> set[tuple[str, str]]:
    return {(code, f'backup {identity}') for identity in ids}


class TestHealthy:
    def test_a_chain(self, dst: shell.Cloud, chain: chains.Chain) -> None:
        found = check(dst, '--severity', 'info', '--heads')
        assert of(found, chain.volume_id, *chain.backups) == set()

    def test_a_backup_of_a_snapshot_and_a_failed_one_beside_it(
        self, dst: shell.Cloud, pool: ceph.Pool, resources: Resources
    ) -> None:
        volume_id = resources.volume(dst)
        snapshot_id = resources.snapshot(dst, volume_id)
        good = resources.backup(dst, volume_id, snapshot_id=snapshot_id)
        assert of(check(dst), volume_id, good) == set()

        body = {'volume_id': volume_id, 'snapshot_id': snapshot_id, 'name': 'port-test-second'}
        bad = dst.rest('POST', '/backups', {'backup': body})['backup']['id']
        with contextlib.suppress(AssertionError):
            dst.wait(f'/backups/{bad}')
        legacy = f'volume-{volume_id}.backup.base'
        found = [one for one in check(dst, code=3) if one['Backup ID'] == bad]
        assert [one['Code'] for one in found] == ['base-collision']

        # What it says mends it: the failed one goes, the good one stays.
        aside, delete, back = found[0]['Mend'].replace('when it is gone: ', '').split('; ')
        rbd = f'rbd -c {pool.conf} --id {pool.user} -p {pool.name}'
        assert aside == f'{rbd} rename {legacy} {legacy}.aside'
        assert delete == f'openstack volume backup delete {bad}'
        assert back == f'{rbd} rename {legacy}.aside {legacy}'
        pool.rbd('rename', legacy, f'{legacy}.aside')
        chains.delete_backup(dst, bad)
        pool.rbd('rename', f'{legacy}.aside', legacy)
        assert of(check(dst), volume_id, good) == set()

    def test_a_backup_in_the_making(
        self, dst: shell.Cloud, resources: Resources, chain: chains.Chain
    ) -> None:
        volume_id = resources.volume(dst)
        body = {'volume_id': volume_id, 'name': 'port-test-now'}
        new = dst.rest('POST', '/backups', {'backup': body})['backup']['id']
        resources.forget_backup(dst, new)
        try:
            for _ in range(3):
                assert of(check(dst), volume_id, new) == set()
        finally:
            dst.wait(f'/backups/{new}')

    def test_for_people(self, dst: shell.Cloud, chain: chains.Chain) -> None:
        process = dst.openstack(*BACKUP, 'image', 'check', check=False)
        assert b'Pool ' in process.stdout.splitlines()[-1]


class TestAList:
    def test_rows(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        arguments = (*BACKUP, 'image', 'list', '--volume', chain.volume_id)
        rows = dst.openstack_json(*arguments, '--long')
        assert [row['Backup ID'] for row in rows] == chain.backups
        for row in rows:
            assert row['Image'] == chain.image
            assert row['Status'] == 'available'
            assert row['Volume Metadata'] is True
            assert row['Size'] == 1 << 30
            assert row['Project ID'] == dst.project_id
        usage = json.loads(pool.rbd('du', '--format', 'json', chain.image))['images']
        used = {one.get('snapshot'): one['used_size'] for one in usage}
        assert [row['Used'] for row in rows] == [used[row['Snapshot']] for row in rows]

        tree = dst.openstack(*arguments, '--long').stdout.decode()
        for identity in chain.backups:
            assert identity in tree
        assert '└── ' in tree
        table = dst.openstack(*arguments, '--no-used').stdout.decode()
        assert chain.image in table


@contextlib.contextmanager
def aside(pool: ceph.Pool, chain: chains.Chain) -> collections.abc.Iterator[str]:
    """Take the image of a chain away for a while."""
    away = f'port-test-{chain.volume_id}.aside'
    pool.rbd('rename', chain.image, away)
    try:
        yield away
    finally:
        if chain.image in pool.images():
            pool.rbd('rm', '--no-progress', chain.image)
        pool.rbd('rename', away, chain.image)


def empty(pool: ceph.Pool, name: str, size: str = '1G') -> None:
    pool.rbd('create', '--size', size, name)


class TestAChainThatWasTamperedWith:
    """Each test takes back what it did."""

    @pytest.fixture(autouse=True)
    def _clean(self, dst: shell.Cloud, chain: chains.Chain) -> collections.abc.Iterator[None]:
        yield
        assert of(check(dst), chain.volume_id, *chain.backups) == set()

    def test_missing_image(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        with aside(pool, chain):
            found = of(check(dst, code=3), *chain.backups)
        assert found == backups('missing-image', *chain.backups)

    def test_head_only(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        with aside(pool, chain):
            empty(pool, chain.image)
            found = of(check(dst, code=3), *chain.backups)
        assert found == backups('head-only', *chain.backups)

    def test_base_collision(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        legacy = f'volume-{chain.volume_id}.backup.base'
        with aside(pool, chain):
            empty(pool, legacy)
            found = of(check(dst, code=3), *chain.backups)
            pool.rbd('rm', '--no-progress', legacy)
        assert found == backups('base-collision', *chain.backups)

    def test_missing_snapshot(
        self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain
    ) -> None:
        middle = chain.backups[1]
        snapshot = pool.snapshot_of(chain.image, middle)
        pool.rbd('snap', 'rename', snapshot, f'{chain.image}@port-test')
        found = of(check(dst, code=3), *chain.backups)
        pool.rbd('snap', 'rename', f'{chain.image}@port-test', snapshot)
        assert found == backups('missing-snapshot', middle)

    def test_duplicate_snapshot(
        self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain
    ) -> None:
        spare = f'{chain.image}@backup.{chain.backups[0]}.snap.1.5'
        pool.rbd('snap', 'create', '--no-progress', spare)
        found = of(check(dst, code=3), chain.volume_id, *chain.backups)
        pool.rbd('snap', 'rm', '--no-progress', spare)
        assert found == backups('duplicate-snapshot', chain.backups[0])

    def test_stray_snapshot(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        legacy = f'volume-{chain.volume_id}.backup.base'
        point = f'{legacy}@backup.{chain.backups[0]}.snap.1.5'
        empty(pool, legacy)
        pool.rbd('snap', 'create', '--no-progress', point)
        found = of(check(dst, code=2), chain.volume_id, *chain.backups)
        pool.rbd('snap', 'purge', '--no-progress', legacy)
        pool.rbd('rm', '--no-progress', legacy)
        assert found == {('stray-snapshot', f'snapshot {point}')}

    def test_leaked_snapshot(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        unknown = str(uuid.uuid4())
        point = f'{chain.image}@backup.{unknown}.snap.1.5'
        pool.rbd('snap', 'create', '--no-progress', point)
        found = of(check(dst, code=2), chain.volume_id, *chain.backups)
        pool.rbd('snap', 'rm', '--no-progress', point)
        assert found == {('leaked-snapshot', f'snapshot {point}')}

    def test_missing_metadata(
        self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain
    ) -> None:
        name = f'backup.{chain.backups[2]}.meta'
        content = pool.rados('get', name, '-')
        pool.rados('rm', name)
        found = of(check(dst, code=2), *chain.backups)
        pool.rados('put', name, '-', stdin=content)
        assert found == backups('missing-metadata', chain.backups[2])

    def test_head_drifted(self, dst: shell.Cloud, pool: ceph.Pool, chain: chains.Chain) -> None:
        with pool.open_image(chain.image) as opened:
            opened.write(b'x' * 4096, 500 * ceph.MIB)
        found = of(check(dst, '--heads', code=2), chain.volume_id)
        pool.rbd(
            'snap', 'rollback', '--no-progress', pool.snapshot_of(chain.image, chain.backups[2])
        )
        assert found == {('head-drifted', f'image {chain.image}')}
        assert of(check(dst, '--heads'), chain.volume_id) == set()


@dataclasses.dataclass
class Scene:
    """Backups that never were: records and images made to fit, or not to."""

    cloud: shell.Cloud
    pool: ceph.Pool
    resources: Resources
    folder: pathlib.Path
    ids: list[str] = dataclasses.field(default_factory=list)

    def record(
        self,
        image: bool = True,
        image_size: str = '1G',
        shared: bool = False,
        **fields: typing.Any,
    ) -> str:
        """Import a record made up; return the id of its backup."""
        identity, volume_id = fields.get('id') or str(uuid.uuid4()), str(uuid.uuid4())
        name = f'volume-{volume_id}.backup.{"base" if shared else identity}'
        self.resources.callback(self.pool.clear, volume_id, [identity])
        if image:
            self.image(name, identity, image_size)
        self.pool.rados('put', f'backup.{identity}.meta', '-', stdin=b'{"version": 2}')
        values = {
            'id': identity,
            'volume_id': volume_id,
            'container': self.pool.name,
            'size': 1,
            'display_name': f'port-test-{identity}',
            'display_description': None,
            'service_metadata': json.dumps({'base': name}),
            'service': CEPH,
            'object_count': 0,
            'parent_id': None,
            'num_dependent_backups': 0,
            'created_at': '2026-01-01T00:00:00Z',
            **fields,
        }
        url = record.BackupRecord.encode(values)
        body = {'backup-record': {'backup_service': CEPH, 'backup_url': url}}
        self.cloud.rest('POST', '/backups/import_record', body)
        self.cloud.wait(f'/backups/{identity}')
        self.resources.forget_backup(self.cloud, identity)
        self.ids.append(identity)
        return identity

    def image(self, name: str, identity: str | None, size: str = '1G') -> None:
        empty(self.pool, name, size)
        if identity:
            self.pool.rbd(
                'snap', 'create', '--no-progress', f'{name}@backup.{identity}.snap.1700000000.5'
            )


@pytest.fixture
def scene(
    dst: shell.Cloud, pool: ceph.Pool, resources: Resources, tmp_path: pathlib.Path
) -> Scene:
    return Scene(dst, pool, resources, tmp_path)


class TestRecordsThatDoNotFit:
    def test_all_at_once(self, dst: shell.Cloud, scene: Scene) -> None:
        good = scene.record()
        expected = {
            *backups('wrong-container', scene.record(container='port-test-elsewhere')),
            *backups('size-mismatch', scene.record(image_size='2G')),
            *backups('dependents-drifted', scene.record(num_dependent_backups=5)),
        }
        other = scene.record(image=False, container='port-test-elsewhere')
        assert of(check(dst, code=3), good, *scene.ids) == expected
        found = of(check(dst, '--severity', 'info'), *scene.ids)
        assert found == {*expected, *backups('other-container', other)}
        found = of(check(dst, '--severity', 'error'), *scene.ids)
        assert {code for code, _ in found} == {'wrong-container'}

    def test_a_record_that_cinder_should_not_have_taken(
        self, dst: shell.Cloud, scene: Scene
    ) -> None:
        bad = scene.record(image=False, data_timestamp=None, object_count=-7)
        assert of(check(dst, code=3), bad) >= backups('invalid-record', bad)

    def test_a_parent_that_is_not_here(self, dst: shell.Cloud, scene: Scene) -> None:
        parent = str(uuid.uuid4())
        child = scene.record(shared=True, service_metadata=None, parent_id=parent)
        assert of(check(dst, code=3), child) == backups('missing-parent', child)
        # What it says mends it, and without it the child could not be deleted.
        assert scene.record(id=parent, service_metadata=None, num_dependent_backups=1) == parent
        assert of(check(dst), child) == set()
        for backup in (child, parent):
            chains.delete_backup(dst, backup)

    def test_an_old_layout(self, dst: shell.Cloud, scene: Scene) -> None:
        # Not by the quick way, but Cinder finds it.
        old = scene.record(service_metadata=None)
        assert of(check(dst), old) == set()


class TestLeftInThePool:
    def test_leaked_image(
        self, dst: shell.Cloud, pool: ceph.Pool, scene: Scene, tmp_path: pathlib.Path
    ) -> None:
        volume_id, identity = str(uuid.uuid4()), str(uuid.uuid4())
        scene.resources.callback(pool.clear, volume_id, [identity])
        name = f'volume-{volume_id}.backup.{identity}'
        scene.image(name, identity)
        pool.rados('put', f'backup.{identity}.meta', '-', stdin=b'{"version": 2}')
        assert of(check(dst, code=2), volume_id) == {('leaked-image', f'image {name}')}
        rows = dst.openstack_json(*BACKUP, 'image', 'list', '--volume', volume_id)
        assert [(row['Backup ID'], row['Status']) for row in rows] == [(identity, 'unknown')]

        # What it says gives the backup back.
        rebuild = (*BACKUP, 'metadata', 'rebuild', '--volume', volume_id)
        dst.openstack(*rebuild, '--directory', tmp_path)
        scene.resources.forget_backup(dst, identity)
        assert chains.import_records(dst, tmp_path) == {identity: 'imported'}
        assert of(check(dst), volume_id, identity) == set()

    def test_orphan_metadata(
        self, dst: shell.Cloud, pool: ceph.Pool, resources: Resources, tmp_path: pathlib.Path
    ) -> None:
        identity = str(uuid.uuid4())
        name = f'backup.{identity}.meta'
        content = json.dumps({'version': 2, 'volume-base-metadata': {'id': identity}}).encode()
        resources.callback(pool.clear, identity, [identity])
        pool.rados('put', name, '-', stdin=content)
        assert of(check(dst, code=2), identity) == {('orphan-metadata', f'object {name}')}
        assert of(check(dst, '--quick'), identity) == set()

        fix = (*BACKUP, 'image', 'check', '--fix', 'orphan-metadata')
        refused = dst.openstack(*fix, check=False)
        assert refused.returncode == 1
        assert b'--keep' in refused.stderr
        before = pool.contents()
        rows = dst.openstack_json(*fix, '--dry-run')
        assert f'object {name}' in [row['Target'] for row in rows]
        pool.expect(before)
        rows = dst.openstack_json(*fix, '--keep', tmp_path / 'kept')
        assert any(row['Result'].startswith(f'{name}: removed') for row in rows)
        assert (tmp_path / 'kept' / name).read_bytes() == content
        pool.expect(before - {name})
        assert of(check(dst), identity) == set()

    def test_partial_import(
        self, dst: shell.Cloud, pool: ceph.Pool, resources: Resources, chain: chains.Chain
    ) -> None:
        volume_id = str(uuid.uuid4())
        image = f'volume-{volume_id}.backup.{uuid.uuid4()}'
        lock = f'osc-backup-port.{image}.lock'
        resources.callback(pool.clear, volume_id, [])
        empty(pool, f'{image}.part')
        pool.rados('put', lock, '-', stdin=b'')
        # It changed just now: that import may be running.
        assert of(check(dst), volume_id) == set()
        pool.rados('rm', lock)
        assert of(check(dst, code=2), volume_id) == {('partial-import', f'image {image}.part')}

        rows = dst.openstack_json(*BACKUP, 'image', 'check', '--fix', 'partial-import')
        assert any(f'{image}.part' in row['Result'] for row in rows)
        assert f'{image}.part' not in pool.images()
        assert of(check(dst), volume_id) == set()

    def test_nothing_else_can_be_fixed(self, dst: shell.Cloud) -> None:
        process = dst.openstack(*BACKUP, 'image', 'check', '--fix', 'leaked-image', check=False)
        assert process.returncode == 1
        assert b'orphan-metadata, partial-import' in process.stderr


class TestWhoMay:
    def test_a_member_is_refused(self, dst_member: shell.Cloud, dst: shell.Cloud) -> None:
        config = dst.config
        options = (
            '--ceph-conf', config['backup_ceph_conf'],
            '--ceph-user', config['backup_ceph_user'],
            '--ceph-pool', config['backup_ceph_pool'],
        )  # fmt: skip
        for command in ('check', 'list'):
            process = dst_member.openstack(*BACKUP, 'image', command, *options, check=False)
            assert process.returncode == 1
            assert b'admin' in process.stderr

    def test_a_dead_backup_service_is_no_finding(
        self, dst: shell.Cloud, chain: chains.Chain
    ) -> None:
        if dst.sandbox is None:
            pytest.skip('only a sandbox has services that may be stopped')
        dst.service('cinder-backup', 'stop')
        try:
            dst.wait_for_backup_service('down')
            process = dst.openstack(*BACKUP, 'image', 'check', check=False)
        finally:
            dst.service('cinder-backup', 'start')
            dst.wait_for_backup_service('up')
        assert process.returncode == 1
        assert process.stdout == b''
