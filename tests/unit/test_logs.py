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


"""What the log tells of a run, and what it must never tell."""

import argparse
import collections.abc
import io
import json
import logging
import pathlib
import time
import types
import typing
import urllib.parse

import pytest
import requests
from keystoneauth1 import session as keystone_session
from keystoneauth1.identity import v3
from osc_lib import exceptions as osc_exceptions

from osc_backup_port import errors
from osc_backup_port.archive import remote_store
from osc_backup_port.ceph import lease
from osc_backup_port.driver import ceph as ceph_driver
from osc_backup_port.formats import record_file
from osc_backup_port.osc import archive_content, metadata
from osc_backup_port.record import BackupRecord
from osc_backup_port.records import import_one, import_records
from tests.fakes import ceph as fake_ceph
from tests.unit import records
from tests.unit.fake_cinder import FakeCinder, make_chain


def told(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """Return what loggers of ours told at this level or above."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith('osc_backup_port.') and record.levelno >= level
    ]


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    """As the shell does; what is shown of it is up to its handlers."""
    caplog.set_level(logging.DEBUG)


def import_(cinder: FakeCinder, items: list[BackupRecord]) -> None:
    options = import_records.Options(timeout=7)
    plan = import_records.plan(cinder, [(f'{item.id}.json', item) for item in items], options)
    import_records.run(plan, options)


def test_an_import_that_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    cinder = FakeCinder()
    cinder.refuse['import_record'] = errors.CinderError('Cannot import: no driver (HTTP 400)')
    full, increment = make_chain(2)
    import_(cinder, [full, increment])

    base = full.base_image
    planned = [
        f'Record of backup {item.id}, from {item.id}.json: to be imported. Parent {parent}, '
        f'container backups, base image {base}.'
        for item, parent in ((full, None), (increment, full.id))
    ]
    assert [line for line in told(caplog) if full.id in line or increment.id in line] == [
        *planned,
        f'Backup {full.id}: failed: Cannot import: no driver (HTTP 400)',
        f'Backup {increment.id}: not imported: its parent was not imported.',
    ]


class Unlucky(FakeCinder):
    """The first import is lost on its way there, the second on its way back."""

    def import_record(self, item: BackupRecord) -> str:
        self.calls.append(('asked', item.id))
        if len(self.calls) == 1:
            raise errors.OutcomeUnknown('HTTP 502')
        super().import_record(item)
        raise errors.OutcomeUnknown('HTTP 504')


def test_an_import_that_was_repeated_after_a_lost_answer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_one, '_PAUSES', (0, 0))
    import_(Unlucky(), [records.make_record()])

    assert [line for line in told(caplog) if line.startswith('Backup')] == [
        f'Backup {records.ID}: it is not there after try 1 (HTTP 502). Asking again in 0.0 s.',
        f'Backup {records.ID}: no answer tells whether it is imported (HTTP 504). It is there.',
        f'Backup {records.ID}: already there.',
    ]


def test_a_record_that_another_run_destroyed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_one, '_PAUSES', (0, 0))
    cinder = FakeCinder()
    cinder.races = 1
    import_(cinder, [records.make_record()])

    gone, imported = (line for line in told(caplog) if line.startswith('Backup'))
    assert gone.startswith(f'Backup {records.ID}: its record has gone, as when another run')
    assert imported == f'Backup {records.ID}: imported.'


IMAGE = 'volume-1.backup.base'


def test_a_lock_that_was_taken_over(
    cluster: fake_ceph.Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    pool = cluster.pool()
    dead = lease.Lease(pool._client, pool._ioctx, pool._rados, pool.commands, IMAGE)
    dead.acquire()
    dead._stop.set()
    dead._keeper.join()
    cluster.expire_locks()
    [note] = cluster.attributes[ceph_driver.lock_object(IMAGE)].values()
    caplog.clear()

    with cluster.pool().lock(IMAGE) as held:
        pass

    taken_over = (
        f'Image {IMAGE}: taking over the lock of a run that did not give it back. Its client is '
        f'on the blocklist now: {json.loads(note)["address"]}.'
    )
    assert told(caplog, logging.WARNING) == [taken_over]
    assert told(caplog) == [
        taken_over,
        f'Image {IMAGE}: lock taken as {held._cookie}.',
        f'Image {IMAGE}: lock given back.',
    ]


def test_a_lock_that_is_renewed_and_lost(
    cluster: fake_ceph.Cluster,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, '_RENEWALS', 3000)
    renewed, lost = (f'Image {IMAGE}: lock {how}' for how in ('renewed.', 'lost: another run'))
    with cluster.pool().lock(IMAGE) as held:
        _until(lambda: renewed in told(caplog, logging.DEBUG))
        cluster.expire_locks()
        held._keeper.join(10)
    assert [line for line in told(caplog, logging.WARNING) if line.startswith(lost)]


def _until(happened: collections.abc.Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What must not be told; each of them is used below.
PASSWORD = 'hunter2hunter2'
TOKENS = ['gAAAA-token-of-the-caller', 'gAAAA-token-of-the-project']
KEY, SECRET_KEY, SIGNATURE = 'AKIAEXAMPLEKEY', 'wJalrXUtnFEMI', 'sig-of-the-url'
SECRETS = [PASSWORD, *TOKENS, KEY, SECRET_KEY, SIGNATURE]

PROJECT, OTHER_PROJECT = 'a' * 32, 'b' * 32
KEYSTONE = f'http://ops:{PASSWORD}@keystone:5000/v3'


class CloudOnTheWire(requests.adapters.BaseAdapter):
    """Keystone and Cinder, as far as they are asked here.

    :ivar bodies: what was sent, with the headers
    :ivar is_busy: the next request to Cinder is not answered
    """

    def __init__(self, catalog: list[dict[str, typing.Any]]) -> None:
        super().__init__()
        self.catalog = catalog
        self.backups: dict[str, dict[str, typing.Any]] = {}
        self.bodies = ''
        self.is_busy = True

    def send(
        self, request: requests.PreparedRequest, *_arguments: typing.Any, **_more: typing.Any
    ) -> requests.Response:
        parts = urllib.parse.urlsplit(str(request.url))
        body = request.body or b''
        text = body.decode() if isinstance(body, bytes) else body
        self.bodies += f'{request.url} {request.headers} {text}\n'
        answer = requests.Response()
        answer.request, answer.url = request, str(request.url)
        answer.headers['x-openstack-request-id'] = 'req-7'
        answer.headers['Content-Type'] = 'application/json'
        host = (parts.hostname or '').split(':')[0]
        handle = self._keystone if host == 'keystone' else self._cinder
        answer.status_code, told = handle(str(request.method), parts.path, text, answer.headers)
        answer._content = json.dumps(told).encode()
        answer.raw = io.BytesIO(answer._content)
        return answer

    def close(self) -> None:
        pass

    def _keystone(
        self, method: str, path: str, text: str, headers: typing.Any
    ) -> tuple[int, typing.Any]:
        if path.endswith('/auth/projects'):
            project = {'id': OTHER_PROJECT, 'name': 'shop', 'domain_id': 'default'}
            return 200, {'projects': [project], 'links': {}}
        if method != 'POST':
            link = {'rel': 'self', 'href': KEYSTONE}
            return 200, {'version': {'id': 'v3.14', 'status': 'stable', 'links': [link]}}
        is_other = 'token' in json.loads(text)['auth']['identity']['methods']
        headers['X-Subject-Token'] = TOKENS[is_other]
        project_id = OTHER_PROJECT if is_other else PROJECT
        token = {
            'user': {'id': 'u' * 32, 'name': 'ops', 'domain': {'id': 'default', 'name': 'd'}},
            'project': {
                'id': project_id,
                'name': 'shop' if is_other else 'own',
                'domain': {'id': 'default', 'name': 'd'},
            },
            'roles': [],
            'methods': ['password'],
            'issued_at': '2026-11-21T00:00:00Z',
            'expires_at': '2099-11-21T00:00:00Z',
            'catalog': self.catalog,
        }
        return 201, {'token': token}

    def _cinder(
        self, method: str, path: str, text: str, _headers: typing.Any
    ) -> tuple[int, typing.Any]:
        *_before, name = path.rstrip('/').split('/')
        if self.is_busy and 'backups' in path:
            self.is_busy = False
            return 504, {}
        if name == 'import_record':
            return self._import(json.loads(text)['backup-record'])
        if 'backups' in path and name in self.backups:
            return 200, {'backup': self.backups[name]}
        if 'os-quota-sets' in path:
            return 403, {'forbidden': {'message': 'no', 'code': 403}}
        if name == 'os-services':
            return 200, {'services': []}
        if name == 'detail' or name == 'backups':
            return 200, {'backups': []}
        if name == 'v3':
            link = {'rel': 'self', 'href': f'http://cinder:{PASSWORD}@cinder:8776/v3/'}
            version = {'id': 'v3.0', 'status': 'CURRENT', 'version': '3.70', 'min_version': '3.0'}
            return 200, {'versions': [{**version, 'links': [link]}]}
        return 404, {'itemNotFound': {'message': f'{method} {path}', 'code': 404}}

    def _import(self, told: dict[str, str]) -> tuple[int, typing.Any]:
        try:
            item = BackupRecord.decode(told['backup_service'], told['backup_url'])
        except errors.PortError:
            return 400, {'badRequest': {'message': 'Invalid input', 'code': 400}}
        self.backups[item.id] = {
            'id': item.id,
            'status': 'available',
            'volume_id': item.volume_id,
            'size': item.size,
            'container': item.container,
        }
        return 201, {'backup': {'id': item.id, 'name': None, 'links': []}}


class ClientManager:
    """As much of that of the shell as a command uses."""

    region_name, interface = 'RegionOne', 'public'
    _api_version: typing.ClassVar = {'volume': '3'}

    def __init__(self, cloud: CloudOnTheWire) -> None:
        self.auth = v3.Password(
            KEYSTONE,
            username='ops',
            password=PASSWORD,
            user_domain_id='default',
            project_id=PROJECT,
        )
        self._cloud = cloud

    def setup_auth(self) -> None:
        self.session = keystone_session.Session(self.auth)
        self.session.session.mount('http://', self._cloud)

    def get_configuration(self) -> dict[str, typing.Any]:
        return {'auth_type': 'password', 'auth': {'password': PASSWORD, 'auth_url': KEYSTONE}}


class App:
    """What a command uses of the shell."""

    LOG = logging.getLogger('test')

    def __init__(self, cloud: CloudOnTheWire) -> None:
        self.stdout = io.StringIO()
        self.client_manager = ClientManager(cloud)
        self.cloud = types.SimpleNamespace(config={})

    def prepare_to_run_command(self, _command: object) -> None:
        self.client_manager.setup_auth()
        self.client_manager.session.get_token()


def run(cloud: CloudOnTheWire, command_class: typing.Any, *words: object) -> str:
    """Run a command; return what it prints, with the error."""
    app = App(cloud)
    command = command_class(app, argparse.Namespace())
    parsed = command.get_parser('test').parse_args([*map(str, words)])
    try:
        command.run(parsed)
    except osc_exceptions.CommandError as error:
        return f'{app.stdout.getvalue()}\n{error}'
    return app.stdout.getvalue()


def make_cloud() -> CloudOnTheWire:
    endpoint = {
        'id': '1',
        'interface': 'public',
        'region': 'RegionOne',
        'region_id': 'RegionOne',
        'url': f'http://cinder:{PASSWORD}@cinder:8776/v3/{PROJECT}',
    }
    identity = {**endpoint, 'id': '2', 'url': KEYSTONE}
    return CloudOnTheWire(
        [
            {'type': 'block-storage', 'name': 'cinder', 'id': '1', 'endpoints': [endpoint]},
            {'type': 'identity', 'name': 'keystone', 'id': '2', 'endpoints': [identity]},
        ]
    )


@pytest.fixture
def printed_log() -> collections.abc.Iterator[io.StringIO]:
    """What --log-file has, as the shell sets it up; without what other libraries log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: record.name.startswith(('osc_backup_port', 'fsspec')))
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


def expect_no_secrets(caplog: pytest.LogCaptureFixture, printed: str) -> str:
    assert not [secret for secret in SECRETS if secret in printed]
    formatter = logging.Formatter()
    ours = [
        # With the traceback, where there is one.
        formatter.format(record)
        for record in caplog.records
        # The arguments are logged by osc-lib, under the name of our class.
        if record.name.startswith('osc_backup_port') and record.module != 'command'
    ]
    whole = '\n'.join(ours)
    assert not [secret for secret in SECRETS if secret in whole]
    return whole


def test_no_secret_of_a_cloud(
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
    printed_log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('tenacity.nap.time.sleep', lambda _seconds: None)
    cloud = make_cloud()
    path = tmp_path / 'x.json'
    path.write_text(record_file.write_record(records.make_record()))
    printed = run(cloud, metadata.ImportBackupMetadata, path, '--project', 'shop')
    printed += run(cloud, metadata.ExportBackupMetadata, 'no such backup')

    whole = expect_no_secrets(caplog, printed_log.getvalue())
    # It was all there to be told.
    assert not [secret for secret in (PASSWORD, *TOKENS) if secret not in cloud.bodies]
    assert cloud.backups, printed
    for line in (
        'Keystone: logged in at keystone.',
        f'Keystone: logged in to project shop ({OTHER_PROJECT}) by token.',
        'Cinder: API version 3.64, region RegionOne, interface public.',
        f'GET cinder:8776/v3/{PROJECT}/backups',
        'try 1: HTTP 504',
        'req-7',
        f'Cinder: accepted the record of backup {records.ID} for import.',
        f'Backup {records.ID}: imported.',
        'ExportBackupMetadata: failed after',
    ):
        assert line in whole, whole


def test_no_secret_of_an_archive(
    caplog: pytest.LogCaptureFixture, printed_log: io.StringIO
) -> None:
    url = f'memory://{KEY}:{SECRET_KEY}@bucket/logged?signature={SIGNATURE}'
    printed = run(make_cloud(), archive_content.ListBackupArchive, url)
    assert 'is not an archive' in printed
    # osc-lib and fsspec have told of it, too.
    assert 'run(Namespace(' in printed_log.getvalue()
    assert 'memory://***@bucket/logged?***' in printed_log.getvalue()
    assert '/archive.json' in printed_log.getvalue()

    where = remote_store.Remote(url)
    with where.lock('image') as check:
        check()
        where.put('image/a', b'1')
        where.create('image/b', b'2')
        where.copy('image/a', 'image/c')
        where.commit('image/0-x/increment.json', records.ID, b'{}')
        where.delete('image/c')

    whole = expect_no_secrets(caplog, printed_log.getvalue())
    for line in (
        'Archive memory://***@bucket/logged?***: an object store.',
        'Archive memory://***@bucket/logged?***/image: lock taken as ',
        'Archive memory://***@bucket/logged?***: image/a written, 1 bytes.',
        f'backup {records.ID} is complete in image/0-x/increment.json.',
        '/image: lock given back.',
    ):
        assert line in whole, whole
