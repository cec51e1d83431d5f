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

"""Whole commands of ``openstack``, and the limit of the cluster itself.

Here nothing is left out: the shell, its plugins, Keystone, Cinder.
"""

import dataclasses
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import data
from .cases import Case
from .measure import Failed, Pairs, Run, in_turn, once
from .place import Cluster, undisturbed
from .report import row

SERVICE = 'cinder.backup.drivers.ceph.CephBackupDriver'

#: What the shell finds by itself is taken away by hiding our entry points.
_WITHOUT = (
    'import importlib.metadata as m, sys; '
    'real = m.entry_points; '
    # Python 3.10 and 3.11 keep the whole list in a member.
    "whole = lambda found: getattr(found, '_all', found); "
    'm.entry_points = lambda **k: m.EntryPoints(e for e in whole(real(**k)) '
    "if not e.value.startswith('osc_backup_port')); "
    "sys.argv[0] = 'openstack'; "
    'from openstackclient.shell import main; sys.exit(main())'
)
_WITH = "import sys; sys.argv[0] = 'openstack'; from openstackclient.shell import main; main()"


@dataclasses.dataclass(frozen=True)
class Command:
    """A row that is not two commands on the same image."""

    key: str
    run: Callable[[Cluster, dict[str, str], bool], dict[str, Any]]


def cases() -> Iterator[Command]:
    yield Command('records', _records)
    yield Command('start-up', _start_up)


def _start_up(cluster: Cluster, environment: dict[str, str], quick: bool) -> dict[str, Any]:
    """``openstack volume backup show`` with our plugin and without it."""
    environment = {**environment, 'OS_CLOUD': cluster.cloud}
    show = 'volume backup show --help'
    pairs = in_turn(
        # What the shell found it keeps, and would find again.
        f'XDG_CACHE_HOME=$HOME/with python -c "{_WITH}" {show}',
        f'XDG_CACHE_HOME=$HOME/without python -c "{_WITHOUT}" {show}',
        1 if quick else 9,
        environment,
        lambda: None,
    )
    case = Case(
        'start-up',
        'openstack volume backup show --help, with the plugin',
        'without it',
        0.98,
        '',
        '',
        (),
    )
    return row(case, pairs)


def _records(cluster: Cluster, environment: dict[str, str], quick: bool) -> dict[str, Any]:
    """Records of many backups at once, and one by one.

    The peer is measured with some of them, and counted for all.
    """
    environment = {**environment, 'OS_CLOUD': cluster.cloud}
    number, some = (20, 2) if quick else (500, 5)
    folder = Path(environment['BENCH_FOLDER']) / 'records'
    chains = [data.name_chain(f'record {at}', data.GIB) for at in range(number)]
    files = [_write(chain, cluster.pool, folder) for chain in chains]
    ids = ' '.join(chain.backups[0] for chain in chains)
    all_at_once = folder.with_name('exported')
    quota = (
        'openstack quota set --backups -1 --backup-gigabytes -1 $(openstack token issue -f value'
    )
    once(f'{quota} -c project_id) || true', environment)
    backup = 'openstack volume backup'
    try:
        once(f'{backup} metadata import {" ".join(map(str, files))}', environment)
        _settle(environment, number)
        mine = once(f'{backup} metadata export --directory {all_at_once} {ids}', environment)
        if len(list(all_at_once.iterdir())) < number:
            raise Failed(f'{all_at_once}: not all records were exported')
        loop = f'for id in {" ".join(ids.split()[:some])}; do {backup} record export $id; done'
        part = once(loop, environment)
    finally:
        with undisturbed():
            once(f'{backup} delete {ids} || true', environment)
    whole = Run(part.wall * number / some, part.cpu * number / some, part.peak)
    case = Case(
        'records',
        f'records of {number} backups',
        f'a loop of openstack volume backup record export (measured with {some})',
        50,
        '',
        '',
        (),
    )
    return row(case, Pairs([mine], [whole]))


def _settle(environment: dict[str, str], number: int) -> None:
    listing = ['openstack', 'volume', 'backup', 'list', '-f', 'json', '--status', 'available']
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = subprocess.run(listing, env=environment, capture_output=True, check=True)
        if len(json.loads(found.stdout)) >= number:
            return
        time.sleep(2)
    raise Failed('the records do not become available')


def _write(chain: data.Chain, pool: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f'{chain.backups[0]}.json'
    content = {'backup_service': SERVICE, 'backup_url': chain.record(0, pool)}
    path.write_text(json.dumps(content))
    return path


def limits(
    cluster: Cluster, environment: dict[str, str], seconds: int
) -> Iterator[dict[str, Any]]:
    """Yield what the cluster does when nobody has to do anything with the bytes."""
    rados = f'rados --conf {cluster.conf} --id {cluster.user} --pool {cluster.pool}'
    name = 'bench-limit'
    data.remove(cluster, name)
    data.create_empty(cluster, name, data.GIB)
    bench = f'{cluster.rbd} bench --io-size 4M --io-threads 16 --io-total 1G'.replace(
        ' --no-progress', ''
    )
    for work, command in (
        ('rados bench write, 16 of 4 MiB', f'{rados} bench {seconds} write --no-cleanup'),
        ('rados bench read, 16 of 4 MiB', f'{rados} bench {seconds} seq'),
        ('rbd bench write, 16 of 4 MiB', f'{bench} --io-type write {name}'),
        ('rbd bench read, 16 of 4 MiB', f'{bench} --io-type read {name}'),
    ):
        found = subprocess.run(
            command.split(), env=environment, capture_output=True, text=True, check=True
        ).stdout
        rate = re.search(r'Bandwidth \(MB/sec\): +([\d.]+)|([\d.]+ [KMG]iB/s)', found)
        said = f'{rate[1]} MiB/s' if rate and rate[1] else rate[2] if rate else 'not told'
        yield {'key': f'limit-{work.split(",")[0].replace(" ", "-")}', 'work': work, 'rate': said}
    subprocess.run(f'{rados} cleanup'.split(), env=environment, capture_output=True, check=True)
    data.remove(cluster, name)
