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

"""Cinder: API, scheduler, volume on RBD, backup with the Ceph driver."""

import datetime
from collections.abc import Callable
from typing import Any

from . import database, keyrings, ports, process, rabbit, wsgi
from .files import ini, is_done, mark_done, write
from .model import VOLUMES, Cloud
from .process import Daemon, run, running, stop
from .progress import say
from .rest import Admin, RestError

BACKUP_DRIVER = 'cinder.backup.drivers.ceph.CephBackupDriver'


def daemons(cloud: Cloud) -> list[Daemon]:
    """Return the four daemons."""
    api = wsgi.daemon(cloud, 'cinder-api', cloud.ports['cinder-api'])
    return [api, *(_service(cloud, name) for name in ('scheduler', 'volume', 'backup'))]


def start(cloud: Cloud) -> None:
    """Start all services and wait until a volume and a backup could be made."""
    configure(cloud)
    sync_database(cloud)
    api, scheduler, volume, backup = daemons(cloud)
    started = [process.start(daemon) for daemon in (api, scheduler, volume)]
    process.wait_ready(api)
    # cinder-backup tells the scheduler what it can do a moment before it can be asked. A scheduler
    # that starts just then hears neither, and hears of it only ten seconds later.
    process.wait_ready(scheduler)
    started.append(process.start(backup))
    process.wait_ready(volume)
    process.wait_ready(backup)
    if any(started):
        say(cloud.name, 'Cinder is up')


def sync_database(cloud: Cloud) -> None:
    """Make a new database with the tables in it, once."""
    made = cloud.root / 'cinder' / 'tables-made'
    if not is_done(made):
        # Half of the tables, from a run that was interrupted, could not be completed.
        database.recreate(cloud, 'cinder')
        command = [f'{cloud.venv}/bin/cinder-manage', *_config_file(cloud), 'db', 'sync']
        run(command, cloud.python_environment())
        mark_done(made)


def rebuild_database(cloud: Cloud) -> None:
    """Lose everything that Cinder knows, as after the loss of its database; Ceph is untouched."""
    for daemon in daemons(cloud):
        stop(daemon)
    (cloud.root / 'cinder' / 'tables-made').unlink(missing_ok=True)
    start(cloud)


def _service(cloud: Cloud, kind: str) -> Daemon:
    name = f'cinder-{kind}'
    return Daemon(
        cloud=cloud.name,
        name=name,
        command=[*keyrings.around(cloud), f'{cloud.venv}/bin/{name}', *_config_file(cloud)],
        root=cloud.root,
        environment=cloud.python_environment(),
        missing=_told(_Readiness(cloud, kind).missing),
    )


def _told(missing: Callable[[], str]) -> Callable[[], str]:
    def told() -> str:
        try:
            return missing()
        except RestError as error:
            return str(error)

    return told


class _Readiness:
    """Whether one service is really usable, not only said to be up.

    A row of the run before still looks "up", so only news since the process began counts. And the
    scheduler must have heard from the service: until then it refuses to use it.
    """

    def __init__(self, cloud: Cloud, kind: str) -> None:
        self._cloud = cloud
        self._kind = kind
        self._admin = Admin(cloud)

    def missing(self) -> str:
        """Return what is missing until the service can be used."""
        api = daemons(self._cloud)[0]
        if not running(api):
            return ''  # Stopped on purpose: nobody can be asked.
        return self._reported() or self._scheduled() or self._answers()

    def _reported(self) -> str:
        binary = f'cinder-{self._kind}'
        rows = self._admin.volume('GET', f'/os-services?binary={binary}')['services']
        for row in rows:
            if row['state'] == 'up' and _seconds(row) > self._started():
                return ''
        return f'{binary} has not reported to the database yet'

    def _started(self) -> float:
        """Return when the process began, in seconds since the epoch; never, if none runs."""
        found = running(_service(self._cloud, self._kind))
        return found.started if found else float('inf')

    def _scheduled(self) -> str:
        scheduler = _service(self._cloud, 'scheduler')
        if self._kind == 'volume' and running(scheduler):
            pools = self._admin.volume('GET', '/scheduler-stats/get_pools?detail=True')['pools']
            if not any(_has_room(pool) for pool in pools):
                return 'the scheduler knows no pool with free space yet'
        if self._kind == 'backup' and running(scheduler):
            # No API tells; the scheduler's log of this run does. The first that it hears may be
            # that the driver is not ready, and then for ten seconds nothing. What it heard from
            # a process that is gone does not count.
            lines = scheduler.log.read_text(errors='replace').splitlines()
            told = [line for line in lines if 'Received backup service update' in line]
            is_news = bool(told) and _logged(told[-1]) >= self._started()
            if not is_news or "'backend_state': True" not in told[-1]:
                return 'the scheduler has not heard that cinder-backup can work'
        return ''

    def _answers(self) -> str:
        # A service reports a moment before it takes messages, and what is sent in between is
        # lost. Asking for its log levels is a question that goes to it and back.
        binary = f'cinder-{self._kind}'
        question = {'binary': binary, 'prefix': 'cinder.service'}
        answer = self._admin.volume('PUT', '/os-services/get-log', question, '3.32', seconds=5)
        return '' if answer['log_levels'] else f'{binary} does not answer messages yet'


def _seconds(row: dict[str, Any]) -> float:
    """Return when the service of ROW last reported, in seconds since the epoch."""
    if not row['updated_at']:
        return 0.0
    when = datetime.datetime.fromisoformat(row['updated_at'])
    return when.replace(tzinfo=datetime.timezone.utc).timestamp()


def _logged(line: str) -> float:
    """Return when LINE was logged, in seconds since the epoch."""
    return datetime.datetime.fromisoformat(line[:23]).timestamp()


def _has_room(pool: dict[str, Any]) -> bool:
    free = pool['capabilities'].get('free_capacity_gb', 0)
    return isinstance(free, (int, float)) and free > 0


def _config_file(cloud: Cloud) -> list[str]:
    return ['--config-file', str(cloud.root / 'cinder' / 'cinder.conf')]


def configure(cloud: Cloud) -> None:
    """Write cinder.conf and what it refers to."""
    folder = cloud.root / 'cinder'
    for name in ('state', 'locks', 'coordination'):
        (folder / name).mkdir(parents=True, exist_ok=True)
    sections: dict[str, dict[str, object]] = {
        'DEFAULT': {**_general(cloud), **_quotas(), **_intervals(), **_backup(cloud)},
        'rbd': {
            'volume_driver': 'cinder.volume.drivers.rbd.RBDDriver',
            'volume_backend_name': 'rbd',
            'rbd_pool': VOLUMES,
            'rbd_user': 'cinder',
            'rbd_ceph_conf': cloud.ceph_conf,
            'rbd_cluster_name': cloud.ceph_name,
            'rbd_secret_uuid': cloud.secrets['rbd-secret'],
            'rbd_exclusive_cinder_pool': 'true',
            # A volume of a tebibyte takes no room until it is written to.
            'max_over_subscription_ratio': 1000,
        },
        'database': {'connection': database.url(cloud, 'cinder')},
        'keystone_authtoken': _service_user(cloud),
        'service_user': {**_service_user(cloud), 'send_service_user_token': 'true'},
        'coordination': {'backend_url': f'file://{folder}/coordination'},
        'oslo_concurrency': {'lock_path': folder / 'locks'},
        'oslo_messaging_rabbit': {'heartbeat_in_pthread': 'false'},
        'key_manager': {
            'backend': 'cinder.keymgr.conf_key_mgr.ConfKeyManager',
            'fixed_key': cloud.secrets['fixed-key'],
        },
        'privsep_osbrick': _privsep(cloud),
        'cinder_sys_admin': _privsep(cloud),
    }
    write(folder / 'cinder.conf', ini(sections))
    wsgi.write_module(cloud, 'cinder-api', 'cinder.wsgi.api', _config_file(cloud))


def _general(cloud: Cloud) -> dict[str, object]:
    etc = cloud.venv / 'etc' / 'cinder'
    return {
        'host': cloud.name,
        'my_ip': ports.HOST,
        'state_path': cloud.root / 'cinder' / 'state',
        'api_paste_config': etc / 'api-paste.ini',
        'resource_query_filters_file': etc / 'resource_filters.json',
        'rootwrap_config': etc / 'rootwrap.conf',
        'transport_url': rabbit.url(cloud),
        'auth_strategy': 'keystone',
        'enabled_backends': 'rbd',
        'osapi_volume_workers': 1,
        'use_stderr': 'true',
        # The only place that tells when the scheduler has heard of cinder-backup.
        'default_log_levels': (
            'amqp=WARN,amqplib=WARN,sqlalchemy=WARN,oslo.messaging=INFO,oslo_messaging=INFO,'
            'iso8601=WARN,requests=WARN,urllib3=WARN,stevedore=WARN,keystonemiddleware=WARN,'
            'cinder.scheduler.host_manager=DEBUG'
        ),
    }


def _quotas() -> dict[str, object]:
    return {
        'quota_volumes': 1000,
        'quota_snapshots': 1000,
        'quota_gigabytes': 10000,
        'quota_backups': 1000,
        'quota_backup_gigabytes': 10000,
    }


def _intervals() -> dict[str, object]:
    return {
        'report_interval': 2,
        'service_down_time': 12,
        'periodic_interval': 2,
        'periodic_fuzzy_delay': 0,
        'backend_stats_polling_interval': 3,
        'backup_driver_stats_polling_interval': 10,
        'scheduler_driver_init_wait_time': 1,
        'graceful_shutdown_timeout': 5,
    }


def _backup(cloud: Cloud) -> dict[str, object]:
    return {
        'backup_driver': BACKUP_DRIVER,
        'backup_workers': 1,
        'backup_ceph_conf': cloud.ceph_conf,
        'backup_ceph_user': 'cinder-backup',
        'backup_ceph_pool': cloud.backup_pool,
    }


def _service_user(cloud: Cloud) -> dict[str, object]:
    return {
        'www_authenticate_uri': cloud.auth_url,
        'auth_url': cloud.auth_url,
        'auth_type': 'password',
        'username': 'cinder',
        'password': cloud.secrets['service'],
        'project_name': 'service',
        'user_domain_id': 'default',
        'project_domain_id': 'default',
        'service_token_roles': 'service',
        'service_token_roles_required': 'true',
    }


def _privsep(cloud: Cloud) -> dict[str, object]:
    helper = f'{cloud.venv}/bin/privsep-helper {" ".join(_config_file(cloud))}'
    if keyrings.around(cloud):
        return {'helper_command': helper}
    # A container that allows no mount namespace has no CAP_SYS_ADMIN to keep. RBD needs none.
    return {'helper_command': helper, 'capabilities': 'CAP_DAC_OVERRIDE'}
