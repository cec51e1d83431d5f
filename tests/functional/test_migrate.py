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

"""Chains from one cloud to the other, with no file between."""

import collections.abc
import dataclasses
import functools
import json
import pathlib
import re
import shlex
import signal
import subprocess
import time
import typing

import pytest

from tests.functional import ceph, chains, shell
from tests.functional.conftest import Resources

MIGRATE = (*chains.BACKUP, 'migrate', '--to-cloud')
_LAST_LINE = re.compile(
    r'(\d+) of (\d+) backups are there: (.+) moved, .+ skipped, (\d+) left\. To check: (.+)'
)


class Told(typing.NamedTuple):
    """What a migration printed: its rows, and its last line."""

    rows: list[dict[str, typing.Any]]
    done: int
    wanted: int
    moved: str
    left: int
    check: str

    @property
    def results(self) -> set[tuple[str, str]]:
        return {(row['Image'], row['Record']) for row in self.rows}

    @property
    def bytes_moved(self) -> int:
        return sum(row['Bytes moved'] for row in self.rows)


def migrate(
    src: shell.Cloud, dst: shell.Cloud, *arguments: object, check: bool = True
) -> tuple[Told, str]:
    """Run it; return what it told, and all that it wrote to stderr."""
    command = (*MIGRATE, dst.name, *arguments, '-f', 'json')
    process = src.openstack(*command, check=check, timeout=600)
    error = process.stderr.decode()
    assert 'Traceback' not in error
    found = [match for line in error.splitlines() if (match := _LAST_LINE.fullmatch(line))]
    assert len(found) == 1, error
    done, wanted, moved, left, check_with = found[0].groups()
    rows = json.loads(process.stdout)
    return Told(rows, int(done), int(wanted), moved, int(left), check_with), error


def check_as_told(told: Told, cloud: shell.Cloud) -> 'subprocess.CompletedProcess[bytes]':
    """Run what the last line says, and see that it finds our images."""
    words = shlex.split(told.check)
    assert words[:3] == ['openstack', '--os-cloud', cloud.name]
    return cloud.openstack(*words[3:], '-f', 'json', check=False)


@pytest.fixture
def target(
    dst: shell.Cloud, pool: ceph.Pool, resources: Resources, filled: chains.Chain
) -> ceph.Pool:
    """Where the chain goes, and is taken away from again."""
    chains.forget(dst, resources, filled)
    return pool


def test_a_chain_and_again(
    src: shell.Cloud,
    dst: shell.Cloud,
    target: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
) -> None:
    told, _ = migrate(src, dst, filled.backups[2], '--verify')
    assert told.results == {('migrated', 'imported')}
    assert (told.done, told.wanted, told.left) == (3, 3, 0)
    assert told.bytes_moved > 0
    assert filled.sums_of(target) == filled.sums
    assert target.checksum(filled.image) == filled.sums[2]
    restored = chains.restore(dst, resources, filled.backups[1])
    assert restored['checksum'] == filled.sums[1]
    assert restored['metadata'].items() >= chains.PROPERTIES.items()
    with target.unchanged():
        told, _ = migrate(src, dst, '--volume', filled.volume_id)
    assert told.results == {('already there', 'already there')}
    assert (told.done, told.left, told.bytes_moved, told.moved) == (3, 0, 0, '0 B')


@pytest.mark.long
def test_the_last_line_says_how_to_check(
    src: shell.Cloud, dst: shell.Cloud, target: ceph.Pool, filled: chains.Chain
) -> None:
    told, _ = migrate(src, dst, filled.backups[2])
    rows = json.loads(check_as_told(told, dst).stdout)
    assert not [row for row in rows if filled.volume_id in str(row)]
    target.rbd('snap', 'rm', '--no-progress', target.snapshot_of(filled.image, filled.backups[0]))
    rows = json.loads(check_as_told(told, dst).stdout)
    assert [row for row in rows if filled.volume_id in str(row) or filled.backups[0] in str(row)]


@pytest.mark.long
def test_a_dry_run_changes_nothing(
    src: shell.Cloud, dst: shell.Cloud, target: ceph.Pool, filled: chains.Chain
) -> None:
    records = dst.backup_ids()
    with target.unchanged():
        process = src.openstack(*MIGRATE, dst.name, filled.backups[2], '--dry-run', '-f', 'json')
    assert dst.backup_ids() == records
    rows = json.loads(process.stdout)
    assert [row['Image'] for row in rows] == ['to be migrated'] * 3
    assert b'3 of 3 backups would be moved' in process.stderr
    told, _ = migrate(src, dst, filled.backups[2])
    assert 0 < told.bytes_moved <= sum(row['Bytes moved'] for row in rows)


@pytest.mark.long
def test_single(
    src: shell.Cloud,
    dst: shell.Cloud,
    target: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
) -> None:
    told, _ = migrate(src, dst, filled.backups[1], '--single', '--verify')
    assert (told.done, told.wanted) == (1, 1)
    own = f'volume-{filled.volume_id}.backup.{filled.backups[1]}'
    assert target.checksum(target.snapshot_of(own, filled.backups[1])) == filled.sums[1]
    shown = dst.rest('GET', f'/backups/{filled.backups[1]}')['backup']
    assert not shown['is_incremental']
    assert chains.restore(dst, resources, filled.backups[1])['checksum'] == filled.sums[1]


@pytest.mark.long
def test_several_chains_and_again_tomorrow(
    src: shell.Cloud, dst: shell.Cloud, pool: ceph.Pool, resources: Resources
) -> None:
    """All projects and all chains at once; then a new increment, alone."""
    made = [chains.make_chain(src, resources, 2) for _ in range(3)]
    for chain in made:
        chains.forget(dst, resources, chain)
    told, _ = migrate(src, dst, '--all', '--all-projects', '--verify')
    mine = {backup for chain in made for backup in chain.backups}
    assert mine <= {row['ID'] for row in told.rows}
    assert told.left == 0
    for chain in made:
        assert chain.sums_of(pool) == chain.sums

    first = made[0]
    volumes = ceph.volume_pool(src)
    ceph.write_state(volumes, f'volume-{first.volume_id}', 2)
    first.sums.append(volumes.checksum(f'volume-{first.volume_id}'))
    first.backups.append(resources.backup(src, first.volume_id, incremental=True))
    resources.forget_backup(dst, first.backups[2])
    again, _ = migrate(src, dst, '--all', '--all-projects')
    moved = {row['ID']: row['Bytes moved'] for row in again.rows if row['Bytes moved']}
    assert list(moved) == [first.backups[2]]
    assert moved[first.backups[2]] < told.bytes_moved / 6
    assert first.sums_of(pool) == first.sums
    for row in reversed(told.rows):
        if row['ID'] not in mine:
            chains.delete_backup(dst, row['ID'])


@pytest.mark.long
@pytest.mark.parametrize('number', range(6))
def test_killed_and_run_again(
    src: shell.Cloud,
    dst: shell.Cloud,
    target: ceph.Pool,
    filled: chains.Chain,
    number: int,
) -> None:
    """However far it came: the same command again, and all is right."""
    command = [*src.command(*MIGRATE, dst.name, filled.backups[2]), '--limit-rate', '40M']
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=src.environment
    ) as process:
        _wait_for_image(process, target, filled.image)
        time.sleep(0.4 * number)
        process.kill()
    told, _ = migrate(src, dst, filled.backups[2], '--verify')
    assert (told.done, told.left) == (3, 0)
    assert filled.sums_of(target) == filled.sums
    assert target.checksum(filled.image) == filled.sums[2]
    assert not [name for name in target.contents() if name.endswith('.part')]


def _wait_for_image(process: 'subprocess.Popen[bytes]', pool: ceph.Pool, image: str) -> None:
    """Wait until a process began to write an image, or ended."""
    while process.poll() is None and not {image, f'{image}.part'} & set(pool.images()):
        time.sleep(0.05)


@pytest.mark.long
def test_stopped_by_hand(
    src: shell.Cloud, dst: shell.Cloud, target: ceph.Pool, filled: chains.Chain
) -> None:
    """What is done stays for the next run; no record came, no image is half there."""
    command = src.command(*MIGRATE, dst.name, filled.backups[2], '--limit-rate', '10M')
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=src.environment
    ) as process:
        _wait_for_image(process, target, filled.image)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b'Stopped by SIGINT' in error
    assert b'Traceback' not in error
    assert filled.image not in target.images()
    assert not set(filled.backups) & dst.backup_ids()
    told, _ = migrate(src, dst, filled.backups[2])
    assert told.left == 0
    assert filled.sums_of(target) == filled.sums


@pytest.mark.long
def test_a_quota_that_is_too_small(
    src: shell.Cloud, dst: shell.Cloud, target: ceph.Pool, filled: chains.Chain
) -> None:
    """It is named before anything is moved."""
    project = dst.project_id
    used = len(dst.rest('GET', '/backups')['backups'])
    dst.rest('PUT', f'/os-quota-sets/{project}', {'quota_set': {'backups': used + 2}})
    try:
        with target.unchanged():
            process = src.openstack(*MIGRATE, dst.name, filled.backups[2], check=False)
    finally:
        dst.rest('DELETE', f'/os-quota-sets/{project}')
    assert process.returncode == 1
    assert b'quota' in process.stderr.lower()
    assert b'2 more backups, expected 3' in process.stderr
    assert b'Traceback' not in process.stderr


@pytest.mark.long
def test_the_rate_is_kept(
    src: shell.Cloud, dst: shell.Cloud, target: ceph.Pool, filled: chains.Chain
) -> None:
    """Within 5 %, of data; told by how long it takes more than without a limit."""
    free, seconds = _timed(functools.partial(migrate, src, dst, filled.backups[2]))
    for backup in reversed(filled.backups):
        chains.delete_backup(dst, backup)
    rate = free.bytes_moved // 20
    slow, longer = _timed(
        functools.partial(migrate, src, dst, filled.backups[2], '--limit-rate', rate)
    )
    assert slow.bytes_moved == free.bytes_moved
    expected = free.bytes_moved / rate
    # The start of the shell and the import of records are in both.
    assert 0.95 * expected <= longer <= 1.05 * expected + seconds, (longer, expected, seconds)


def _timed(run: collections.abc.Callable[[], tuple[Told, str]]) -> tuple[Told, float]:
    started = time.monotonic()
    told, _ = run()
    return told, time.monotonic() - started


@pytest.mark.long
def test_layouts_without_a_name_in_the_record(
    src: shell.Cloud,
    dst: shell.Cloud,
    pool: ceph.Pool,
    resources: Resources,
    filled: chains.Chain,
    tmp_path: pathlib.Path,
) -> None:
    """What Rocky made, and a backup of a snapshot: their records are given the name."""
    old = chains.make_old_chain(filled, resources, tmp_path)
    snapshot = resources.snapshot(src, filled.volume_id)
    lonely = dataclasses.replace(
        filled,
        backups=[resources.backup(src, filled.volume_id, snapshot_id=snapshot)],
        sums=filled.sums[2:],
        base='base',
    )
    for chain in (old, lonely):
        chains.forget(dst, resources, chain)
        with pool.unchanged():
            told, _ = migrate(src, dst, *chain.backups, '--verify')
            assert told.results == {('migrated', 'imported')}
            assert chain.sums_of(pool) == chain.sums
            for backup, expected in zip(chain.backups, chain.sums, strict=True):
                assert chains.restore(dst, resources, backup)['checksum'] == expected
            checked = json.loads(check_as_told(told, dst).stdout)
            assert not [one for one in checked if chain.volume_id in str(one)]
            for backup in reversed(chain.backups):
                chains.delete_backup(dst, backup)
