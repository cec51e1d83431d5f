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

"""Keystone, and the projects, users and endpoints in it."""

from typing import Any

from . import database, wsgi
from .errors import SandboxError
from .files import ini, is_done, mark_done, write
from .model import REGION, Cloud
from .process import Daemon, launch, run
from .progress import say
from .rest import Admin, RestError


def daemon(cloud: Cloud) -> Daemon:
    """Return Keystone's API."""
    return wsgi.daemon(
        cloud,
        'keystone',
        cloud.ports['keystone'],
        OS_KEYSTONE_CONFIG_DIR=str(cloud.root / 'keystone'),
        OS_KEYSTONE_CONFIG_FILES='keystone.conf',
    )


def start(cloud: Cloud) -> None:
    """Start Keystone, with everything in it that the cloud needs. Its database runs."""
    _configure(cloud)
    made = cloud.root / 'keystone' / 'bootstrapped'
    if not is_done(made):
        _bootstrap(cloud)
    started = launch(daemon(cloud))
    if not is_done(made):
        try:
            _populate(cloud)
        except RestError as error:
            raise SandboxError(f'{cloud.name}: filling Keystone: {error}') from None
        mark_done(made)
    if started:
        say(cloud.name, 'Keystone is up')


def _configure(cloud: Cloud) -> None:
    folder = cloud.root / 'keystone'
    sections: dict[str, dict[str, object]] = {
        'DEFAULT': {'use_stderr': 'true'},
        'database': {'connection': database.url(cloud, 'keystone')},
        'token': {'provider': 'fernet', 'expiration': 24 * 3600},
        'fernet_tokens': {'key_repository': folder / 'fernet'},
        'fernet_receipts': {'key_repository': folder / 'fernet'},
        'credential': {'key_repository': folder / 'credential'},
        # The passwords are random; cheap hashes make every token cheaper.
        'identity': {'password_hash_rounds': 4},
    }
    write(folder / 'keystone.conf', ini(sections))
    for name in ('fernet', 'credential'):
        # What "keystone-manage fernet_setup" makes, without the seconds it takes.
        keys = folder / name
        keys.mkdir(mode=0o700, exist_ok=True)
        write(keys / '1', cloud.secrets[name])
    arguments = ['--config-file', str(folder / 'keystone.conf')]
    wsgi.write_module(cloud, 'keystone', 'keystone.wsgi.api', arguments)


def _bootstrap(cloud: Cloud) -> None:
    # Half of the tables, from a run that was interrupted, could not be completed.
    database.recreate(cloud, 'keystone')
    manage = [f'{cloud.venv}/bin/keystone-manage']
    manage += ['--config-file', str(cloud.root / 'keystone' / 'keystone.conf')]
    environment = cloud.python_environment(OS_BOOTSTRAP_PASSWORD=cloud.secrets['admin'])
    run([*manage, 'db_sync'], environment)
    options = {
        'username': 'admin',
        'project-name': 'admin',
        'role-name': 'admin',
        'service-name': 'keystone',
        'region-id': REGION,
        'public-url': cloud.auth_url,
        'internal-url': cloud.auth_url,
        'admin-url': cloud.auth_url,
    }
    words = [word for key, value in options.items() for word in (f'--bootstrap-{key}', value)]
    run([*manage, 'bootstrap', *words], environment)


def _populate(cloud: Cloud) -> None:
    """Make projects, users, roles and Cinder's endpoints; what is there already stays."""
    admin = Admin(cloud)
    service = _ensure(admin, 'project', name='service', domain_id='default')
    demo = _ensure(admin, 'project', name='demo', domain_id='default')
    users = {
        name: _ensure(admin, 'user', name=name, domain_id='default', password=password)
        for name, password in (
            ('cinder', cloud.secrets['service']),
            ('member', cloud.secrets['member']),
        )
    }
    users['admin'] = _find(admin, 'user', {'name': 'admin'})['id']
    for user, role, project in (
        ('cinder', 'admin', service),
        ('cinder', 'service', service),
        ('member', 'member', demo),
        ('admin', 'admin', demo),
    ):
        ident = _find(admin, 'role', {'name': role})['id']
        admin.identity('PUT', f'/projects/{project}/users/{users[user]}/roles/{ident}')
    catalogue = _ensure(admin, 'service', name='cinder', type='block-storage')
    for interface in ('public', 'internal', 'admin'):
        endpoint = {'service_id': catalogue, 'interface': interface, 'region_id': REGION}
        _ensure(admin, 'endpoint', **endpoint, url=cloud.volume_url)


def _ensure(admin: Admin, kind: str, **fields: str) -> str:
    """Return the id of the KIND with these FIELDS, made if it is not there."""
    keys = {k: v for k, v in fields.items() if k in ('name', 'service_id', 'interface')}
    found = _find(admin, kind, keys)
    if not found:
        found = admin.identity('POST', f'/{kind}s', {kind: fields})[kind]
    return str(found['id'])


def _find(admin: Admin, kind: str, fields: dict[str, str]) -> Any:
    """Return the KIND with these FIELDS, None if there is none."""
    query = '&'.join(f'{key}={value}' for key, value in fields.items())
    found = admin.identity('GET', f'/{kind}s?{query}')[f'{kind}s']
    return found[0] if found else None
