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

"""What is looked at before anything is imported, and whose the backups are then."""

import collections.abc
import json
import pathlib
import typing

import pytest

from osc_backup_port import errors, record
from osc_backup_port.cinder import resources
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.moving import cluster_sink, cluster_source, copy, target_pool
from osc_backup_port.records import import_records, map_file, placement, rewriting, wanted_records
from tests.fakes import ceph as fake_ceph
from tests.unit import archives, chains, records
from tests.unit.fake_cinder import FakeCinder, make_chain

DEMO = resources.Project('d' * 32, 'demo', 'u' * 32)
SHOP = resources.Project('5' * 32, 'shop', 'u' * 32)


@pytest.fixture
def cinder() -> FakeCinder:
    made = FakeCinder()
    made.projects = {project.name: project for project in (DEMO, SHOP)}
    return made


def plan(
    cinder: FakeCinder, items: list[record.BackupRecord], **owner: typing.Any
) -> import_records.Plan:
    options = import_records.Options(owner=placement.Placement(**owner))
    return import_records.plan(cinder, [('x.json', item) for item in items], options)


def refused(cinder: FakeCinder, planned: import_records.Plan) -> str:
    """See that nothing is imported, and return why."""
    with pytest.raises(errors.SomeFailed) as caught:
        import_records.run(planned, import_records.Options())
    assert cinder.calls == []
    return str(caught.value)


def test_all_obstacles_at_once(cinder: FakeCinder) -> None:
    cinder.refuse['check_import'] = errors.NotPermitted('no admin')
    nfs = 'cinder.backup.drivers.nfs.NFSBackupDriver'
    cinder.add(records.make_record(nfs, id=records.OTHER_ID, service=nfs))
    cinder.quota = resources.Room(2, 2)
    told = refused(cinder, plan(cinder, make_chain()))
    assert 'no admin' in told
    assert f'the newest backup of this cloud by {nfs}' in told
    assert '2 more backups, expected 3' in told


def test_what_is_there_needs_nothing() -> None:
    chain = make_chain()
    cinder = FakeCinder(*chain)
    cinder.refuse['check_import'] = errors.NotPermitted('no admin')
    assert plan(cinder, chain).findings() == []


def test_no_service_is_up(cinder: FakeCinder) -> None:
    cinder.refuse['check_import'] = errors.CinderError('Service could not be found. (HTTP 503)')
    assert 'HTTP 503' in refused(cinder, plan(cinder, make_chain()))


def test_token_of_no_project(cinder: FakeCinder) -> None:
    cinder.refuse['check_project'] = errors.NotPermitted('belongs to the system')
    planned = plan(cinder, make_chain())
    assert 'belongs to the system' in refused(cinder, planned)
    assert planned.notes == []


def test_the_cloud_is_named(cinder: FakeCinder) -> None:
    cinder.cloud = resources.Cloud('cloud dst', 'openstack --os-cloud dst')
    cinder.quota = resources.Room(0, 0)
    planned = plan(cinder, make_chain())
    told = refused(cinder, planned)
    assert 'Cloud dst: The quota of this project has room for 0 more' in told
    assert 'openstack --os-cloud dst quota show' in told
    assert planned.notes[0].startswith('Cloud dst: Whether a backup service')
    cinder.leave_placeholder(records.ID)
    [error] = plan(cinder, [records.make_record()]).findings()
    assert str(error).startswith(f'Cloud dst: Backup {records.ID}: an import of it failed')
    assert 'openstack --os-cloud dst volume backup metadata import' in str(error)
    assert str(cinder.cloud.named(error)).count('Cloud dst: ') == 1


def test_into_a_project(cinder: FakeCinder) -> None:
    planned = plan(cinder, make_chain(), project='demo')
    import_records.run(planned, import_records.Options())
    assert {shown.project_id for shown in cinder.list()} == {DEMO.id}


def test_a_project_that_is_not_there(cinder: FakeCinder) -> None:
    assert 'no project nowhere' in refused(cinder, plan(cinder, make_chain(), project='nowhere'))


def test_no_admin_in_the_project(cinder: FakeCinder) -> None:
    cinder.refuse['check_import'] = errors.NotPermitted('Policy does not allow it.')
    told = refused(cinder, plan(cinder, make_chain(), project='demo'))
    assert f'Project demo ({DEMO.id}): Policy' in told
    assert f'openstack role add --project {DEMO.id} --user {DEMO.user_id} admin' in told


def test_quota_of_the_project(cinder: FakeCinder) -> None:
    cinder.quota = resources.Room(2, None)
    told = refused(cinder, plan(cinder, make_chain(), project='demo'))
    assert f'The quota of project demo ({DEMO.id})' in told
    assert f'--backup-gigabytes <GiB> {DEMO.id}' in told


def test_keep_projects(cinder: FakeCinder) -> None:
    one = records.make_record(project_id=DEMO.id)
    other = records.make_record(id=records.OTHER_ID, project_id=SHOP.id)
    planned = plan(cinder, [one, other], keep_projects=True)
    import_records.run(planned, import_records.Options())
    assert cinder.get(one.id).project_id == DEMO.id
    assert cinder.get(other.id).project_id == SHOP.id


def test_keep_a_project_that_is_not_recorded(cinder: FakeCinder) -> None:
    item = records.make_record(project_id=None)
    told = refused(cinder, plan(cinder, [item], keep_projects=True))
    assert 'does not say which project' in told


def test_project_map(cinder: FakeCinder) -> None:
    one = records.make_record(project_id='a' * 32)
    other = records.make_record(id=records.OTHER_ID, project_id='b' * 32)
    chosen = {'a' * 32: 'demo', 'b' * 32: SHOP.id}
    planned = plan(cinder, [one, other], project_map=chosen)
    import_records.run(planned, import_records.Options())
    assert cinder.get(one.id).project_id == DEMO.id
    assert cinder.get(other.id).project_id == SHOP.id
    told = refused(FakeCinder(), plan(FakeCinder(), [one], project_map={'b' * 32: 'demo'}))
    assert f'belongs to project {"a" * 32}, which the file of --project-map does not name' in told


def test_project_map_by_names(cinder: FakeCinder) -> None:
    item = records.make_record(project_id='a' * 32)
    names = {'a' * 32: 'old-shop'}
    planned = plan(cinder, [item], project_map={'old-shop': 'shop'}, old_names=names)
    import_records.run(planned, import_records.Options())
    assert cinder.get(item.id).project_id == SHOP.id
    # An id is the surer of the two.
    both = {'old-shop': 'shop', 'a' * 32: 'demo'}
    owner = placement.Placement(project_map=both, old_names=names)
    assert owner.project_of(item) == 'demo'
    told = refused(
        FakeCinder(), plan(FakeCinder(), [item], project_map={'x': 'y'}, old_names=names)
    )
    assert f'belongs to project {"a" * 32} or old-shop, which' in told


def test_there_in_another_project(cinder: FakeCinder) -> None:
    item = records.make_record()
    cinder.add(item, project_id=SHOP.id)
    [error] = plan(cinder, [item], project='demo').findings()
    assert f'is here in project {SHOP.id}, expected {DEMO.id}' in str(error)
    assert plan(cinder, [item], project='shop').findings() == []


def test_a_parent_that_is_missing_is_told(cinder: FakeCinder) -> None:
    chain = make_chain()
    planned = plan(cinder, chain[1:])
    assert planned.findings() == []
    assert any(f'its parent {chain[0].id} is neither in this' in note for note in planned.notes)


def test_some_without_a_project_do_not_hide_what_else_is_found(cinder: FakeCinder) -> None:
    one = records.make_record(project_id='a' * 32)
    other = records.make_record(id=records.OTHER_ID, project_id='b' * 32)
    cinder.quota = resources.Room(0, 0)
    told = refused(cinder, plan(cinder, [one, other], project_map={'a' * 32: 'demo'}))
    assert f'belongs to project {"b" * 32}' in told
    assert '0 more backups, expected 1' in told


MODULE = 'cinder.backup.drivers.ceph'


@pytest.mark.parametrize(('there', 'comes'), [(records.CEPH, MODULE), (MODULE, records.CEPH)])
def test_the_driver_by_its_old_name(cinder: FakeCinder, there: str, comes: str) -> None:
    cinder.add(records.make_record(there, id=records.OTHER_ID, service=there))
    planned = plan(cinder, [records.make_record(comes, service=comes)])
    assert (planned.findings(), planned.notes) == ([], [])


def test_what_cannot_be_found_out_is_told_and_in_nobodys_way(cinder: FakeCinder) -> None:
    item = records.make_record()
    [note] = plan(cinder, [item]).notes
    assert 'No backup is there yet that could tell.' in note
    cinder.refuse['driver'] = errors.NotPermitted('Policy says no.')
    cinder.refuse['room'] = errors.CinderError('No such thing.')
    planned = plan(cinder, [item])
    assert planned.findings() == []
    first, second = planned.notes
    assert first.endswith('in error. Policy says no.')
    assert second.endswith('is not known. No such thing.')
    # Who may not import has other worries.
    cinder.refuse['check_import'] = errors.NotPermitted('no admin')
    planned = plan(cinder, [item])
    assert [str(error) for error in planned.findings()] == ['no admin']
    assert planned.notes == []


def test_another_of_several_services_may_have_the_driver(cinder: FakeCinder) -> None:
    nfs = 'cinder.backup.drivers.nfs.NFSBackupDriver'
    cinder.add(records.make_record(nfs, id=records.OTHER_ID, service=nfs))
    item = records.make_record()
    assert 'Set up a service with that driver' in refused(cinder, plan(cinder, [item]))
    cinder.is_only_service = False
    planned = plan(cinder, [item])
    assert planned.findings() == []
    assert f'The newest backup was made by {nfs}' in planned.notes[0]


def test_another_pool_than_that_of_the_backups_there(cinder: FakeCinder) -> None:
    cinder.add(records.make_record(id=records.OTHER_ID, container='cinder.backups'))
    planned = plan(cinder, [records.make_record(container='backups')])
    assert planned.findings() == []
    [note] = planned.notes
    assert "in the pool 'backups'; the newest backup of this cloud lies in 'cinder.b" in note


@pytest.fixture
def chain(cluster: fake_ceph.Cluster) -> chains.Chain:
    return chains.make_chain(cluster)


@pytest.fixture
def target() -> collections.abc.Iterator[fake_ceph.Cluster]:
    made = fake_ceph.Cluster()
    yield made
    made.close()


@pytest.mark.parametrize('room', [0, 1])
@pytest.mark.parametrize('there', [0, 1])
def test_a_stream_that_is_refused_leaves_nothing(
    chain: chains.Chain, target: fake_ceph.Cluster, cinder: FakeCinder, room: int, there: int
) -> None:
    source = archives.with_metadata(chain)
    if there:
        only_first = archives.create_stream(source, chain.cluster, [chains.IDS[0]])
        archives.import_stream_(cinder, target, only_first)
    before, calls = target.dump(), list(cinder.calls)
    cinder.quota = resources.Room(room, None)
    stream = archives.create_stream(source, chain.cluster, [chains.IDS[2]])
    with pytest.raises(errors.CinderError, match=f'has room for {room} more backups'):
        archives.import_stream_(cinder, target, stream)
    assert target.dump() == before
    assert cinder.calls == calls


def test_migrate_looks_at_an_image_that_is_in_the_way(
    chain: chains.Chain, target: fake_ceph.Cluster, cinder: FakeCinder
) -> None:
    chains.make_image(target, chains.BASE).close()
    source = archives.with_metadata(chain)
    cinder.quota = resources.Room(0, 0)
    records = wanted_records.read(source, [chains.IDS[2]])
    origin = cluster_source.Source(source, chain.cluster.pool(), records)
    planned = copy.plan(
        origin, cluster_sink.Sink(target.pool(), cinder, archives.OPTIONS), all_or_nothing=True
    )
    told = '\n'.join(str(error) for error in planned.errors())
    assert 'is there, without the snapshot of any backup' in told
    assert '0 more backups, expected 3' in told


def test_import_image_tells_all_at_once(chain: chains.Chain, target: fake_ceph.Cluster) -> None:
    chains.make_image(target, chains.BASE).close()
    target.objects[f'backup.{chains.IDS[0]}.meta'] = b'{"version": 2}'
    file, _ = chains.export(chain, 0, 'rbd')
    before = target.dump()
    with pytest.raises(errors.SomeFailed) as caught:
        chains.import_(target, chain.backups[0], file, volume_metadata=archives.META)
    assert 'is there with other content' in str(caught.value)
    assert 'is there, without the snapshot of any backup' in str(caught.value)
    assert target.dump() == before


def test_name_prefix_and_pool() -> None:
    item = records.make_record(display_name='night')
    changed = rewriting.Rewriting('elsewhere', 'old-').rewrite(item)
    assert (changed.display_name, changed.container) == ('old-night', 'elsewhere')
    assert rewriting.Rewriting().rewrite(item) is item


def test_in_image() -> None:
    """The record names the image in which the snapshot lies, whatever it said before."""
    legacy = f'volume-{records.VOLUME_ID}.backup.base'
    old = records.make_record(service_metadata=None)
    assert ceph_driver.in_image(old, legacy).base_image == legacy
    other = records.make_record(service_metadata='{"base": "volume-x", "more": 1}')
    assert ceph_driver.in_image(other, legacy).service_metadata == (
        f'{{"base": "{legacy}", "more": 1}}'
    )
    named = ceph_driver.in_image(old, legacy)
    assert ceph_driver.in_image(named, legacy) is named


def test_space() -> None:
    cluster = fake_ceph.Cluster()
    cluster.free = 5
    assert target_pool.check_space(cluster.pool(), {'new': 5}) == []
    [error] = target_pool.check_space(cluster.pool(), {'new': 6})
    assert 'has room for 5' in str(error)
    cluster.close()


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('[a, b]', 'holds list'),
        ('', 'holds NoneType'),
        ('a: [', 'is neither YAML nor JSON'),
        ('a: 1', "has the line 'a': 1"),
        ('1: a', "has the line 1: 'a'"),
    ],
)
def test_a_file_that_is_no_map(tmp_path: pathlib.Path, text: str, told: str) -> None:
    path = tmp_path / 'map'
    path.write_text(text)
    with pytest.raises(errors.InvalidInput, match=told) as caught:
        map_file.read(path, '--project-map')
    assert str(caught.value).startswith(str(path))


def test_map_files(tmp_path: pathlib.Path) -> None:
    path = tmp_path / 'map'
    path.write_text('{"a": "b"}')
    assert map_file.read(path, '--project-map') == {'a': 'b'}
    path.write_text('a: b\nc: d\n')
    assert map_file.read(path, '--project-map') == {'a': 'b', 'c': 'd'}
    assert map_file.read(None, '--project-map') is None
    with pytest.raises(errors.InvalidInput, match='No such file'):
        map_file.read(tmp_path / 'none', '--project-map')


def test_backups_of_several_volumes_for_one(cinder: FakeCinder) -> None:
    one = records.make_record()
    other = records.make_record(id=records.OTHER_ID, volume_id=records.OTHER_ID)
    options = import_records.Options(changes=rewriting.Rewriting(volume_id=records.OTHER_ID))
    planned = import_records.plan(cinder, [('x', one), ('y', other)], options)
    assert 'These are backups of 2 volumes' in refused(cinder, planned)
    planned = import_records.plan(cinder, [('x', one)], options)
    assert planned.findings() == []
    assert planned.steps[0].record.volume_id == records.OTHER_ID


KEY, NEW_KEY, KIND, NEW_KIND = (
    f'{number}d49b720-e2ee-41c6-b9c8-a7e292e02962' for number in range(4)
)


def meta(key: str | None) -> bytes:
    base = {'encryption_key_id': key, 'volume_type_id': KIND, 'display_name': 'v'}
    return json.dumps({'version': 2, 'volume-base-metadata': base}).encode()


def test_keys_and_types_are_mapped() -> None:
    changes = rewriting.Rewriting(keys={KEY: NEW_KEY}, volume_types={KIND: NEW_KIND})
    item = records.make_record(encryption_key_id=KEY)
    assert changes.rewrite(item).encryption_key_id == NEW_KEY
    assert changes.rewrite(records.make_record()).encryption_key_id is None
    for key, expected in ((KEY, NEW_KEY), (None, None)):
        changed = changes.rewrite_metadata(item.id, meta(key))
        assert changed is not None
        base = json.loads(changed)['volume-base-metadata']
        assert base == {
            'encryption_key_id': expected,
            'volume_type_id': NEW_KIND,
            'display_name': 'v',
        }
    assert changes.rewrite_metadata(item.id, None) is None


def test_without_maps_not_a_byte_changes() -> None:
    assert rewriting.Rewriting().rewrite_metadata(records.ID, b'no JSON') == b'no JSON'


def test_what_is_not_mapped(cinder: FakeCinder) -> None:
    changes = rewriting.Rewriting(keys={'other': 'x'}, volume_types={'other': 'x'})
    item = records.make_record(encryption_key_id=KEY)
    options = import_records.Options(changes=changes)
    planned = import_records.plan(cinder, [('x', item)], options)
    assert f'names {KEY}, which the file of --key-map does not' in refused(cinder, planned)
    for keys, told in ((None, '--volume-type-map'), ({'other': 'x'}, '--key-map')):
        one = rewriting.Rewriting(keys=keys, volume_types={'other': 'x'})
        with pytest.raises(errors.InvalidInput, match=told):
            one.rewrite_metadata(item.id, meta(KEY))
        # The type of a volume that is not encrypted is nobody's concern.
        assert one.rewrite_metadata(item.id, meta(None)) is not None
    with pytest.raises(errors.InvalidInput, match='is not what Cinder writes'):
        changes.rewrite_metadata(item.id, b'no JSON')
