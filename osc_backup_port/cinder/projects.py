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

"""Projects, and a way to log in to another one than the caller's.

In Cinder an imported backup belongs to the project of the token.
"""

import collections
import collections.abc
import contextlib
import logging
import typing

from keystoneauth1 import exceptions as keystone_exceptions
from keystoneauth1 import identity
from keystoneauth1.identity import generic

from osc_backup_port import errors
from osc_backup_port.cinder import resources

LOG = logging.getLogger(__name__)

_LIST = 'openstack project list'

_BY_PASSWORD = (None, 'password', 'v3password')
_USER = (
    'user_id',
    'username',
    'user_domain_id',
    'user_domain_name',
    'default_domain_id',
    'default_domain_name',
    'password',
)


class ProjectAuth(generic.Token):
    """Logs in to a project with the token of another login.

    That one is asked for its token each time, so that the work may last longer than
    one token does, however the caller has logged in.
    """

    def __init__(self, caller: typing.Any, project_id: str) -> None:
        super().__init__(caller.auth_url, '', project_id=project_id)
        self._caller = caller

    def get_auth_ref(self, session: typing.Any, **kwargs: typing.Any) -> typing.Any:
        self._token = self._caller.get_token(session)
        self._plugin = None
        return super().get_auth_ref(session, **kwargs)


class Projects:
    """The projects of one cloud, as far as the caller may see them.

    :param client_manager: the one that OSC hands to commands
    """

    def __init__(self, client_manager: typing.Any) -> None:
        self._session = client_manager.session
        self._config = client_manager.get_configuration()
        self._where = {
            'service_type': 'identity',
            'region_name': client_manager.region_name,
            'interface': client_manager.interface,
            'min_version': '3',
            'max_version': '3.latest',
        }

    def find(self, name_or_id: str, domain: str | None = None) -> resources.Project:
        """Return a project that the caller has a role in.

        :param domain: name or id of the domain that it is in
        :raises errors.NotFound: there is none
        :raises errors.InvalidInput: several have that name
        :raises errors.NotPermitted: the caller has no role in it
        """
        with _as_errors(f'look for project {name_or_id}'):
            domain_id = self._domain_id(domain) if domain else None
            own = self._matching('/auth/projects', {}, name_or_id, domain_id)
            if len(own) > 1:
                ids = ', '.join(sorted(item['id'] for item in own))
                raise errors.InvalidInput(
                    f'{len(own)} projects have the name {name_or_id!r}: {ids}.',
                    'Give one of these ids, or --project-domain <domain>.',
                )
            if own:
                return self._project(own[0])
            raise self._refusal(name_or_id, domain_id)

    def names(self) -> dict[str, str]:
        """Return the names of all projects that the caller may see, by their ids.

        A name that several projects have is left out.
        """
        with _as_errors('list the projects'):
            try:
                found = self._get('/projects', {})['projects']
            except keystone_exceptions.Forbidden:
                found = self._get('/auth/projects', {})['projects']
            names = collections.Counter(item['name'] for item in found)
            return {item['id']: item['name'] for item in found if names[item['name']] == 1}

    def auth(self, project: resources.Project) -> identity.BaseIdentityPlugin:
        """Return what logs in to a project.

        With the caller's token, which does for every way to log in; with the password
        where Keystone gives no token for another one (``allow_rescope_scoped_token``).

        :raises errors.NotPermitted: the caller's way to log in is bound to a project
        """
        with _as_errors(f'log in to project {project.name}'):
            found = ProjectAuth(self._session.auth, project.id)
            try:
                found.get_token(self._session)
                LOG.info('Keystone: logged in to project %s by token.', project.label)
                return found
            except (keystone_exceptions.Forbidden, keystone_exceptions.Unauthorized):
                by_password = self._password_auth(project)
                if by_password is None:
                    raise
                by_password.get_token(self._session)
                LOG.info('Keystone: logged in to project %s by password.', project.label)
                return by_password

    def _password_auth(self, project: resources.Project) -> identity.BaseIdentityPlugin | None:
        login = self._config.get('auth') or {}
        if self._config.get('auth_type') not in _BY_PASSWORD or not login.get('password'):
            return None
        who = {name: login[name] for name in _USER if login.get(name)}
        return generic.Password(login['auth_url'], project_id=project.id, **who)

    def _refusal(self, name_or_id: str, domain_id: str | None) -> errors.PortError:
        there = []
        with contextlib.suppress(keystone_exceptions.Forbidden):
            there = self._matching('/projects', {'name': name_or_id}, name_or_id, domain_id)
            # By its name it is not found under its id.
            there = there or self._matching('/projects', {}, name_or_id, domain_id)
        if not there:
            return errors.NotFound(
                f'There is no project with the name or id {name_or_id!r}, or none that you have a '
                'role in.',
                f'See what is there: {_LIST}',
            )
        project = self._project(there[0])
        return errors.NotPermitted(
            f'Project {project.name} ({project.id}): you have no role there, so nothing can be '
            'imported into it.',
            f'Add the role, and run this command again: {project.add_role}',
        )

    def _matching(
        self, path: str, query: dict[str, str], name_or_id: str, domain_id: str | None
    ) -> list[dict[str, typing.Any]]:
        found = self._get(path, query)['projects']
        by_id = [item for item in found if item['id'] == name_or_id]
        return by_id or [
            item
            for item in found
            if item['name'] == name_or_id and domain_id in (None, item['domain_id'])
        ]

    def _domain_id(self, domain: str) -> str:
        if domain == 'default':
            return domain
        try:
            found = self._get('/domains', {'name': domain})['domains']
        except keystone_exceptions.Forbidden:
            # Then it has to be an id.
            return domain
        return str(found[0]['id']) if found else domain

    def _project(self, item: collections.abc.Mapping[str, typing.Any]) -> resources.Project:
        return resources.Project(item['id'], item['name'], self._session.get_user_id())

    def _get(self, path: str, query: dict[str, str]) -> typing.Any:
        return self._session.get(path, params=query, endpoint_filter=self._where).json()


@contextlib.contextmanager
def _as_errors(action: str) -> collections.abc.Iterator[None]:
    try:
        yield
    except errors.NoAnswer as error:
        raise errors.NoAnswer(f'Cannot {action}: {error.problem}', error.hint) from error
    except (keystone_exceptions.Forbidden, keystone_exceptions.Unauthorized) as error:
        raise errors.NotPermitted(
            f'Cannot {action}: {error}',
            'An application credential is bound to its project, and some clouds give no token '
            'for another token: log in with a password, or with an application credential of '
            'that project. Your roles there: openstack role assignment list --names --user '
            '<user> --project <project>',
        ) from error
    except keystone_exceptions.ClientException as error:
        raise errors.CinderError(
            f'Cannot {action}: {error}', 'Look at: openstack catalog show identity'
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.CinderError(
            f'Cannot {action}: the answer is not one of the Identity service '
            f'({type(error).__name__}: {error}).',
            'Look at: openstack catalog show identity',
        ) from error
