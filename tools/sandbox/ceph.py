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

"""Ceph: one monitor, one manager, one OSD on a sparse file, cephx on."""

import json
import shutil
from typing import Any

from . import keyrings, ports, process, waiting
from .errors import SandboxError
from .files import ini, is_done, mark_done, write
from .model import VOLUMES, Cloud
from .process import Daemon, launch, run, running, wait_ready
from .progress import say

OSD_SIZE = 24 * 2**30  # Sparse, but what was written once stays taken from the disk.
OSD_CACHE = 3 * 2**30  # Taken as it is used.


def daemons(cloud: Cloud) -> list[Daemon]:
    """Return the daemons in the order in which they start."""
    return [_monitor(cloud), _manager(cloud), _osd(cloud)]


def start(cloud: Cloud) -> None:
    """Start the cluster with its pools and users; wait until the pools take I/O."""
    _configure(cloud)
    _make_monitor(cloud)
    monitor, manager, osd = daemons(cloud)
    # The manager takes longest; nothing before the pools waits for it.
    started = [launch(monitor), process.start(manager)]
    _make_osd(cloud)
    if not running(osd):
        # After a kill the monitor takes the dead OSD for a living one for many minutes.
        ceph(cloud, 'osd', 'down', '0')
    started.append(launch(osd))
    wait_ready(manager)
    _make_pools(cloud)
    if any(started):
        _wait_pools(cloud)
        say(cloud.name, 'Ceph is up')


def ceph(cloud: Cloud, *arguments: str) -> Any:
    """Run ``ceph ARGUMENTS`` as the administrator and return what it printed, from JSON."""
    options = ['--conf', str(cloud.ceph_conf), '--connect-timeout', '10', '--format', 'json']
    output = run(['ceph', *options, *arguments], cloud.environment(), seconds=60)
    return json.loads(output) if output.strip() else None


def _monitor(cloud: Cloud) -> Daemon:
    def missing() -> str:
        return '' if ports.answers(cloud.ports['ceph-mon']) else 'it does not listen'

    return _daemon(cloud, 'ceph-mon', 'a', missing, cloud.ports['ceph-mon'])


def _manager(cloud: Cloud) -> Daemon:
    def missing() -> str:
        return '' if _status(cloud)['mgrmap']['available'] else 'it is not active'

    return _daemon(cloud, 'ceph-mgr', 'x', missing)


def _osd(cloud: Cloud) -> Daemon:
    def missing() -> str:
        return '' if _status(cloud)['osdmap']['num_up_osds'] == 1 else 'the OSD is not up'

    return _daemon(cloud, 'ceph-osd', '0', missing)


def _daemon(cloud: Cloud, name: str, ident: str, missing: Any, port: int | None = None) -> Daemon:
    def told() -> str:
        try:
            return str(missing())
        except SandboxError as error:
            return str(error)

    return Daemon(
        cloud=cloud.name,
        name=name,
        command=[name, '-f', '-i', ident, '--conf', str(cloud.ceph_conf)],
        root=cloud.root,
        environment=cloud.environment(),
        missing=told,
        port=port,
    )


def _status(cloud: Cloud) -> Any:
    return ceph(cloud, 'status')


def _configure(cloud: Cloud) -> None:
    """Write ceph.conf and the keyrings."""
    data, etc = cloud.root / 'ceph', cloud.ceph_conf.parent
    common: dict[str, object] = {
        'fsid': cloud.secrets['fsid'],
        'mon_host': f'[v2:127.0.0.1:{cloud.ports["ceph-mon"]}/0]',
        'auth_cluster_required': 'cephx',
        'auth_service_required': 'cephx',
        'auth_client_required': 'cephx',
        'public_addr': '127.0.0.1',
        'cluster_addr': '127.0.0.1',
        'ms_bind_msgr1': 'false',
        'osd_pool_default_size': 1,
        'osd_pool_default_min_size': 1,
        'osd_pool_default_pg_num': 8,
        'osd_pool_default_pg_autoscale_mode': 'off',
        'osd_crush_chooseleaf_type': 0,
        'mgr_initial_modules': '',
        # The defaults make a cluster start slowly.
        'mgr_stats_period': 1,
        'mgr_tick_period': 1,
        'mgr_beacon_period': 1,
        'paxos_propose_interval': 0.1,
    }
    logs: dict[str, object] = {
        'log_to_file': 'false',
        'log_to_stderr': 'true',
        'err_to_stderr': 'true',
        'debug_rocksdb': '0/0',
        'admin_socket': cloud.sockets / '$name.asok',
        'run_dir': cloud.sockets,
        'crash_dir': data / 'crash',
    }
    monitor: dict[str, object] = {
        'mon_data': data / 'mon',
        'mon_cluster_log_to_file': 'false',
        'mon_allow_pool_size_one': 'true',
        'mon_allow_pool_delete': 'true',
        'mon_warn_on_pool_no_redundancy': 'false',
        'auth_allow_insecure_global_id_reclaim': 'false',
        # How full the machine's disk is, is none of the monitor's business here.
        'mon_data_avail_warn': 1,
        'mon_data_avail_crit': 0,
    }
    osd: dict[str, object] = {
        # A virtual disk calls itself a rotating one, to which few threads would write.
        'bluestore_debug_enforce_settings': 'ssd',
        # Few placement groups have long logs, which are walked for each write.
        'osd_min_pg_log_entries': 100,
        'osd_max_pg_log_entries': 500,
        'osd_data': data / 'osd',
        # What was read once comes from memory: how fast the machine's disk is, which others
        # use too, is nobody's question here.
        'bluestore_cache_autotune': 'false',
        'bluestore_cache_size': OSD_CACHE,
        'bluestore_cache_meta_ratio': 0.1,
        'bluestore_cache_kv_ratio': 0.1,
        'bluestore_block_size': OSD_SIZE,
        # What was removed is trimmed at once, not with pauses that spare a disk.
        'osd_snap_trim_sleep_hdd': 0,
        'osd_snap_trim_sleep_hybrid': 0,
        'osd_delete_sleep_hdd': 0,
        'osd_delete_sleep_hybrid': 0,
    }
    client: dict[str, object] = {'keyring': etc / 'ceph.$name.keyring'}
    sections = {
        'global': common,
        'mon': {**logs, **monitor},
        'mgr': {**logs, 'mgr_data': data / 'mgr'},
        'osd': {**logs, **osd},
        'client': client,
    }
    write(cloud.ceph_conf, ini(sections), 0o644)
    (data / 'crash').mkdir(exist_ok=True)
    for name in ('admin', 'cinder', 'cinder-backup', 'nobody'):
        write(etc / f'ceph.client.{name}.keyring', _keyring(cloud, f'client.{name}'))
    keyrings.put(cloud, _keyring(cloud, 'client.cinder'))
    write(data / 'mgr' / 'keyring', _keyring(cloud, 'mgr.x'))


def _keyring(cloud: Cloud, *entities: str) -> str:
    """Return a keyring with the keys of ENTITIES, and the rights the monitor gives them."""
    backup = f'profile rbd pool={cloud.backup_pool}'
    volumes = f'profile rbd pool={VOLUMES}'
    rights = {
        'mon.': {'mon': 'allow *'},
        'client.admin': {'mon': 'allow *', 'osd': 'allow *', 'mgr': 'allow *', 'mds': 'allow *'},
        'mgr.x': {'mon': 'allow profile mgr', 'osd': 'allow *', 'mds': 'allow *'},
        'osd.0': {'mon': 'allow profile osd', 'mgr': 'allow profile osd', 'osd': 'allow *'},
        'client.cinder': {'mon': 'profile rbd', 'osd': volumes, 'mgr': volumes},
        'client.cinder-backup': {
            'mon': 'profile rbd',
            'osd': f'{backup}, {volumes}',
            'mgr': 'profile rbd',
        },
        # Can log in and may do nothing: for tests of what a refusal looks like.
        'client.nobody': {'mon': 'profile rbd'},
    }
    sections: dict[str, dict[str, object]] = {}
    for entity in entities or rights:
        kind, _, name = entity.partition('.')
        key = cloud.secrets[f'ceph-{name if kind == "client" else kind}']
        caps = {f'caps {service}': f'"{text}"' for service, text in rights[entity].items()}
        sections[entity] = {'key': key, **caps}
    return ini(sections)


def _make_monitor(cloud: Cloud) -> None:
    """Make the monitor's store, which knows all users from its first moment."""
    folder = cloud.root / 'ceph' / 'mon'
    made = cloud.root / 'ceph' / 'mon-made'
    if is_done(made):
        return
    shutil.rmtree(folder, ignore_errors=True)  # Of a run that was interrupted.
    monmap, keyring = folder.with_name('monmap'), folder.with_name('mon-keyring')
    write(keyring, _keyring(cloud))
    address = f'[v2:127.0.0.1:{cloud.ports["ceph-mon"]}]'
    fsid = cloud.secrets['fsid']
    environment = cloud.environment()
    make_map = ['monmaptool', '--create', '--clobber', '--fsid', fsid, '--addv', 'a', address]
    run([*make_map, str(monmap)], environment)
    folder.mkdir()
    make = ['ceph-mon', '--mkfs', '-i', 'a', '--conf', str(cloud.ceph_conf)]
    run([*make, '--monmap', str(monmap), '--keyring', str(keyring)], environment)
    # Without it the monitor looks for its own key in the places that clients use.
    write(folder / 'keyring', _keyring(cloud, 'mon.'))
    mark_done(made)


def _make_osd(cloud: Cloud) -> None:
    folder = cloud.root / 'ceph' / 'osd'
    made = cloud.root / 'ceph' / 'osd-made'
    if is_done(made):
        return
    shutil.rmtree(folder, ignore_errors=True)  # Of a run that was interrupted.
    ident = cloud.secrets['osd-uuid']
    ceph(cloud, 'osd', 'new', ident, '0')
    write(folder / 'keyring', _keyring(cloud, 'osd.0'))
    make = ['ceph-osd', '--mkfs', '-i', '0', '--conf', str(cloud.ceph_conf)]
    run([*make, '--osd-uuid', ident], cloud.environment())
    mark_done(made)


def _make_pools(cloud: Cloud) -> None:
    made = cloud.root / 'ceph' / 'pools-made'
    if is_done(made):
        return
    for pool in (VOLUMES, cloud.backup_pool):
        ceph(cloud, 'osd', 'pool', 'create', pool)
        ceph(cloud, 'osd', 'pool', 'application', 'enable', pool, 'rbd')
    mark_done(made)


def _wait_pools(cloud: Cloud) -> None:
    """Wait until both pools answer a read."""

    def missing() -> str:
        for pool in (VOLUMES, cloud.backup_pool):
            listing = ['rbd', '--conf', str(cloud.ceph_conf), '--pool', pool, 'ls']
            try:
                run(listing, cloud.environment(), seconds=30)
            except SandboxError as error:
                return str(error)
        return ''

    what = waiting.until(missing, 90)
    if what:
        raise _osd(cloud).failure(f'does not serve the pools ({what}); its log:')
