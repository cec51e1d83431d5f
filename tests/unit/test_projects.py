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

"""The projects of a cloud: which one is meant, and how to log in to it."""

import types
import typing
from unittest import mock

import pytest
from keystoneauth1 import exceptions as keystone_exceptions
from keystoneauth1 import session as keystone_session
from keystoneauth1.identity import generic

from osc_backup_port import errors
from osc_backup_port.cinder import projects, resources

DEMO = {'id': 'd' * 32, 'name': 'demo', 'domain_id': 'default'}
SHOP = {'id': '5' * 32, 'name': 'shop', 'domain_id': 'default'}
OTHER_SHOP = {'id': '6' * 32, 'name': 'shop', 'domain_id': 'b' * 32}
LOGIN = {
    'auth_url': 'http://keystone/v3',
    'username': 'joe',
    'user_domain_id': 'default',
    'password': 'secret',
    'project_name': 'demo',
}

Answers = dict[str, typing.Any]


def make(answers: Answers, **config: typing.Any) -> projects.Projects:
    """Return the projects of a Keystone that gives these answers."""
    session = mock.create_autospec(keystone_session.Session, instance=True)

    def get(path: str, **_kwargs: typing.Any) -> typing.Any:
        if isinstance(answers[path], Exception):
            raise answers[path]
        return types.SimpleNamespace(json=lambda: answers[path])

    session.get.side_effect = get
    session.get_user_id.return_value = 'u' * 32
    session.auth = generic.Password(LOGIN['auth_url'], username='joe', password='secret')
    manager = types.SimpleNamespace(
        session=session,
        region_name='RegionOne',
        interface='public',
        get_configuration=lambda: config,
    )
    return projects.Projects(manager)


def listed(*items: dict[str, str]) -> Answers:
    return {'projects': list(items)}


def test_by_id_name_and_domain() -> None:
    found = make(
        {
            '/auth/projects': listed(DEMO, SHOP, OTHER_SHOP),
            '/domains': {'domains': [{'id': 'b' * 32}]},
        }
    )
    assert found.find('demo').id == DEMO['id']
    assert found.find(SHOP['id']).name == 'shop'
    assert found.find('shop', 'default').id == SHOP['id']
    assert found.find('shop', 'branch').id == OTHER_SHOP['id']
    with pytest.raises(errors.InvalidInput, match='2 projects have the name'):
        found.find('shop')


def test_no_role() -> None:
    found = make({'/auth/projects': listed(DEMO), '/projects': listed(DEMO, SHOP)})
    with pytest.raises(errors.NotPermitted) as caught:
        found.find('shop')
    command = f'openstack role add --project {SHOP["id"]} --user {"u" * 32} admin'
    assert str(caught.value).endswith(command)
    with pytest.raises(errors.NotFound, match='no project with the name or id'):
        found.find('nowhere')
    hidden = make({'/auth/projects': listed(DEMO), '/projects': keystone_exceptions.Forbidden()})
    with pytest.raises(errors.NotFound, match='or none that you have a role in'):
        hidden.find('shop')


def test_names() -> None:
    found = make({'/projects': listed(DEMO, SHOP, OTHER_SHOP)})
    assert found.names() == {DEMO['id']: 'demo'}
    found = make({'/projects': keystone_exceptions.Forbidden(), '/auth/projects': listed(SHOP)})
    assert found.names() == {SHOP['id']: 'shop'}


@pytest.fixture
def no_rescoping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keystone give a token for a password only."""

    def get_token(auth: typing.Any, _session: typing.Any) -> str:
        if isinstance(auth, projects.ProjectAuth):
            raise keystone_exceptions.Forbidden('no token for a token')
        return 'token'

    for kind in (projects.ProjectAuth, generic.Password):
        monkeypatch.setattr(kind, 'get_token', get_token)


PROJECT = resources.Project(DEMO['id'], 'demo', 'u' * 32)


@pytest.mark.usefixtures('no_rescoping')
@pytest.mark.parametrize('auth_type', ['password', 'v3password', None])
def test_with_the_password_where_a_token_does_not_do(auth_type: str | None) -> None:
    auth = make({}, auth_type=auth_type, auth=LOGIN).auth(PROJECT)
    assert isinstance(auth, generic.Password)
    told = auth.get_cache_id_elements().values()
    assert {DEMO['id'], 'joe', 'secret'} <= set(told)
    assert 'demo' not in told


@pytest.mark.usefixtures('no_rescoping')
@pytest.mark.parametrize(
    'config',
    [
        {},
        {'auth_type': 'v3applicationcredential', 'auth': {'application_credential_id': '5'}},
        {'auth_type': 'v3totp', 'auth': LOGIN},
    ],
)
def test_where_nothing_does(config: dict[str, typing.Any]) -> None:
    with pytest.raises(errors.NotPermitted, match='no token for a token') as caught:
        make({}, **config).auth(PROJECT)
    assert 'An application credential is bound to its project' in str(caught.value)
