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

"""The Block Storage room: the client it makes, and what becomes of its failures."""

import json
import types
import typing
from unittest import mock

import pytest
from cinderclient import exceptions as cinder_exceptions
from cinderclient.v3 import client as v3_client
from keystoneauth1 import discover
from keystoneauth1 import exceptions as keystone_exceptions
from keystoneauth1 import session as keystone_session
from keystoneauth1.identity import generic

from osc_backup_port import errors
from osc_backup_port.cinder import backups, client, faults
from tests.unit import records


def manager(
    newest: tuple[int, int] | None = (3, 71), asked: str = '3', **config: str
) -> types.SimpleNamespace:
    session = mock.create_autospec(keystone_session.Session, instance=True)
    data = mock.create_autospec(discover.EndpointData, instance=True)
    data.max_microversion = newest
    session.get_endpoint_data.return_value = data
    return types.SimpleNamespace(
        session=session,
        region_name='RegionOne',
        interface='public',
        get_configuration=lambda: config,
        _api_version={'volume': asked},
    )


@pytest.mark.parametrize(
    ('newest', 'asked', 'spoken'),
    [
        ((3, 71), '3', '3.64'),
        ((3, 71), '', '3.64'),
        ((3, 27), '3', '3.27'),
        ((3, 0), '3', '3.0'),
        (None, '3', '3.0'),
        ((3, 71), '3.50', '3.50'),
    ],
)
def test_version(newest: tuple[int, int] | None, asked: str, spoken: str) -> None:
    made = client.connect(manager(newest, asked))
    assert made.api_version.get_string() == spoken


def test_version_that_is_not_ours() -> None:
    for asked in ('2', '1.0', '3.x'):
        with pytest.raises(errors.CinderError, match='version'):
            client.connect(manager(asked=asked))


def test_no_version_document() -> None:
    clouds = manager()
    clouds.session.get_endpoint_data.side_effect = keystone_exceptions.DiscoveryFailure()
    assert client.connect(clouds).api_version.get_string() == '3.0'


def test_where_the_service_is() -> None:
    made = client.connect(manager()).client
    assert (made.service_type, made.region_name, made.interface) == (
        'block-storage',
        'RegionOne',
        'public',
    )
    assert made.endpoint_override is None
    clouds = manager(volume_endpoint_override='http://volume', volumev3_interface='internal')
    made = client.connect(clouds).client
    assert (made.endpoint_override, made.interface) == ('http://volume', 'internal')
    clouds = manager(
        volume_endpoint_override='http://volume', block_storage_endpoint_override='http://block'
    )
    assert client.connect(clouds).client.endpoint_override == 'http://block'


def http(code: int, message: str = 'told') -> Exception:
    response = types.SimpleNamespace(status_code=code, headers={}, reason='because')
    error: Exception = cinder_exceptions.from_response(response, {'x': {'message': message}})
    return error


@pytest.mark.parametrize(
    ('raised', 'kind', 'told'),
    [
        (http(400), errors.CinderError, 'told (HTTP 400)'),
        (http(400, 'Backup already exists in database.'), errors.Conflict, 'already exists'),
        (http(401), errors.NotPermitted, 'openstack token issue'),
        (http(403), errors.NotPermitted, 'admin role. The rule is backup:get in'),
        (http(404), errors.NotFound, 'See what is there: list them'),
        (http(413, 'Maximum number'), errors.CinderError, 'openstack quota set --backups'),
        (http(500), errors.OutcomeUnknown, 'openstack volume service list'),
        (http(504), errors.OutcomeUnknown, 'openstack volume service list'),
        (http(503, 'Service Unavailable'), errors.OutcomeUnknown, 'Unavailable (HTTP 503)'),
        (http(429), errors.OutcomeUnknown, 'told (HTTP 429)'),
        (errors.NoAnswer('the cloud did not answer'), errors.NoAnswer, 'the cloud did not answer'),
        (http(503, 'could not be found'), errors.CinderError, 'openstack volume service list'),
        (http(400, 'x' * 5000), errors.CinderError, 'xx ... xx'),
        (keystone_exceptions.ConnectFailure('refused'), errors.OutcomeUnknown, 'does not answer'),
        (keystone_exceptions.ConnectTimeout('late'), errors.OutcomeUnknown, 'does not answer'),
        (keystone_exceptions.SSLError('bad'), errors.OutcomeUnknown, 'does not answer'),
        (keystone_exceptions.EndpointNotFound('none'), errors.CinderError, 'catalog list'),
        (keystone_exceptions.Unauthorized('who'), errors.NotPermitted, 'credentials'),
        (keystone_exceptions.DiscoveryFailure('what'), errors.CinderError, 'what'),
        (TypeError("'NoneType' object"), errors.OutcomeUnknown, 'not one of the Block Storage'),
        (KeyError('backup'), errors.OutcomeUnknown, 'not one of the Block Storage'),
    ],
)
def test_failures(raised: Exception, kind: type[Exception], told: str) -> None:
    with (
        pytest.raises(errors.PortError) as caught,
        faults.as_errors('show backup 5', 'backup:get', 'list them'),
    ):
        raise raised
    assert type(caught.value) is kind
    assert str(caught.value).startswith('Cannot show backup 5: ')
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000


def make_service(*shown: dict[str, typing.Any]) -> tuple[backups.BackupService, typing.Any]:
    made = mock.create_autospec(v3_client.Client, instance=True)
    made.backups = mock.create_autospec(
        v3_client.volume_backups.VolumeBackupManager, instance=True
    )
    items = [v3_client.volume_backups.VolumeBackup(made.backups, item) for item in shown]
    made.backups.list.return_value = items
    made.backups.get.side_effect = items
    return backups.BackupService(made), made


def test_backup_of_an_old_release() -> None:
    service, _ = make_service({'id': records.ID, 'status': 'available', 'size': 1})
    backup = service.get(records.ID)
    assert (backup.size, backup.project_id, backup.encryption_key_id) == (1, None, None)


def test_list_asks_for_other_projects_only_when_told() -> None:
    service, made = make_service()
    made.client = types.SimpleNamespace(auth=None, session=types.SimpleNamespace(auth=None))
    service.list()
    made.backups.list.assert_called_with(search_opts={})
    service.list('5', all_projects=True)
    made.backups.list.assert_called_with(search_opts={'volume_id': '5', 'all_tenants': 1})


@pytest.mark.parametrize('answer', [http(400, 'Invalid filters'), [{'id': '5', 'status': 'x'}]])
def test_who_is_no_admin_is_not_shown_a_part(answer: typing.Any) -> None:
    service, made = make_service()
    made.backups.list.side_effect = [answer]
    with pytest.raises(errors.NotPermitted, match='shows only those of the own project'):
        service.list(all_projects=True)
    assert made.backups.list.call_count == 1


def with_token(**access: typing.Any) -> backups.BackupService:
    service, made = make_service()
    shown: dict[str, typing.Any] = {
        'username': 'ops',
        'expires': '2026-11-21T02:00:00Z',
        'project_name': None,
        'project_id': None,
        'domain_id': None,
        'domain_name': None,
        'system_scoped': False,
    }
    auth = mock.create_autospec(generic.Password, instance=True)
    auth.get_access.return_value = types.SimpleNamespace(**{**shown, **access})
    made.client = types.SimpleNamespace(auth=None, session=types.SimpleNamespace(auth=auth))
    return service


@pytest.mark.parametrize(
    ('access', 'told'),
    [
        ({}, 'belongs to neither a project nor a domain'),
        ({'system_scoped': True}, 'belongs to the system, and to no project'),
        ({'domain_id': '5', 'domain_name': 'shop'}, 'belongs to domain shop, and to no project'),
    ],
)
def test_token_of_no_project(access: dict[str, typing.Any], told: str) -> None:
    service = with_token(**access)
    with pytest.raises(errors.NotPermitted, match=told) as caught:
        service.check_project()
    assert '--project <project>' in str(caught.value)
    with pytest.raises(errors.NotPermitted, match='belongs to'):
        service.list()
    with_token(project_id='5').check_project()


@pytest.mark.parametrize(
    ('method', 'told'), [('token', 'has expired, or was revoked'), ('password', 'token issue')]
)
def test_credentials_that_are_not_accepted(method: str, told: str) -> None:
    body = json.dumps({'auth': {'identity': {'methods': [method]}}}).encode()
    response = types.SimpleNamespace(request=types.SimpleNamespace(body=body))
    with pytest.raises(errors.NotPermitted, match=told), faults.as_errors('log in'):
        raise keystone_exceptions.Unauthorized('no', response=response)


def test_room() -> None:
    service, made = make_service()
    made.client = mock.create_autospec(v3_client.client.SessionClient, instance=True)
    made.client.get_project_id.return_value = '5'
    made.quotas = mock.create_autospec(v3_client.quotas.QuotaSetManager, instance=True)

    def room(backups: object, gigabytes: object) -> tuple[int | None, int | None]:
        shown = {'backups': backups, 'backup_gigabytes': gigabytes}
        made.quotas.get.return_value = v3_client.quotas.QuotaSet(made.quotas, shown)
        left = service.room()
        return left.backups, left.gigabytes

    used = {'limit': 10, 'in_use': 3, 'reserved': 2}
    assert room(used, {**used, 'limit': 4}) == (5, 0)
    assert room({**used, 'limit': -1}, None) == (None, None)
    made.quotas.get.assert_called_with('5', usage=True)


def test_wait() -> None:
    states = ['creating', 'creating', 'available']
    service, _ = make_service(*({'id': '5', 'status': status} for status in states))
    assert service.wait('5', 10, pause=0).status == 'available'
    service, _ = make_service(*({'id': '5', 'status': 'creating'} for _ in range(2)))
    assert service.wait('5', 0, pause=0.01).status == 'creating'


def test_delete_that_fails() -> None:
    service, made = make_service(
        {'id': '5', 'status': 'deleting'}, {'id': '5', 'status': 'error_deleting'}
    )
    with pytest.raises(errors.CinderError, match='error_deleting'):
        service.delete('5', 10, pause=0)
    made.backups.delete.assert_called_once_with('5')


def test_export_of_two_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, 'EXPORT_PAUSE', 0)
    item = records.make_record()
    answer = {'backup_service': item.backup_service, 'backup_url': item.backup_url}
    other = http(
        400,
        'Invalid backup: Export record aborted, the backup service currently configured '
        '[cinder.backup.drivers.nfs.NFSBackupDriver] is not the backup service that was used to '
        'create this backup [cinder.backup.drivers.ceph.CephBackupDriver].',
    )
    service, made = make_service()
    made.backups.export_record.side_effect = [other, other, answer]
    assert service.export_record(records.ID).id == records.ID
    made.backups.export_record.side_effect = [other] * 99
    with pytest.raises(errors.CinderError, match=r'was made by .*CephBackupDriver, and') as caught:
        service.export_record(records.ID)
    assert 'that has cinder.backup.drivers.nfs.NFSBackupDriver' in str(caught.value)
    made.backups.export_record.side_effect = [http(400, 'Export backup aborted')]
    with pytest.raises(errors.CinderError, match='Export backup aborted'):
        service.export_record(records.ID)


def test_export_of_what_is_no_record() -> None:
    service, made = make_service()
    made.backups.export_record.return_value = {'backup_service': 'c', 'backup_url': 'abcd'}
    with pytest.raises(errors.InvalidRecord, match=f'Backup {records.ID}: what Cinder exported'):
        service.export_record(records.ID)
    made.backups.export_record.return_value = {}
    with pytest.raises(errors.CinderError):
        service.export_record(records.ID)
