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

"""Take away what a check found and nobody can miss.

Only two kinds of findings are touched.  What is removed of the first is kept as
a file; of the second an import that is run again makes all anew.
"""

import logging
import pathlib
import typing

from osc_backup_port import errors, files, units
from osc_backup_port.ceph import heads
from osc_backup_port.ceph import pool as ceph_pool
from osc_backup_port.cinder import resources
from osc_backup_port.doctor import findings
from osc_backup_port.driver import ceph as ceph_driver

LOG = logging.getLogger(__name__)


class Cinder(typing.Protocol):
    """What this needs of the Block Storage service."""

    def get(self, backup_id: str) -> resources.Backup: ...


def plan(found: list[findings.Finding], code: str) -> list[findings.Finding]:
    """Return the findings that a fix would take away.

    :raises InvalidInput: there is no fix for this code
    :raises Conflict: not all of the pool could be read, so that nothing is certain
    """
    if code not in findings.FIXABLE:
        raise errors.InvalidInput(
            f'--fix {code}: there is no fix for that, expected one of: '
            f'{", ".join(findings.FIXABLE)}.',
            'The finding itself says what mends it.',
        )
    unreadable = [finding.target for finding in found if finding.code == 'unreadable-image']
    if code == 'orphan-metadata' and unreadable:
        raise errors.Conflict(
            f'Nothing was removed: {", ".join(unreadable)} could not be read, so nobody can tell '
            'which volume metadata belongs to it.',
            'Look at it first: openstack volume backup image check --severity error',
        )
    return [finding for finding in found if finding.code == code]


def run(
    pool: ceph_pool.Pool, cinder: Cinder, finding: findings.Finding, keep: pathlib.Path | None
) -> str:
    """Take one finding away; return a line that says what was done.

    :param keep: directory for a copy of each object that is removed
    :raises Conflict: it is needed by now
    """
    if finding.code == 'partial-import':
        done = _remove_partial(pool, finding)
    else:
        done = _remove_metadata(pool, cinder, finding, keep)
    LOG.info('Fix %s: %s', finding.code, done)
    return done


def _remove_metadata(
    pool: ceph_pool.Pool, cinder: Cinder, finding: findings.Finding, keep: pathlib.Path | None
) -> str:
    if keep is None or finding.backup_id is None:
        raise errors.InvalidInput(
            'Nothing says where to keep what is removed.', 'Name a directory: --keep <directory>'
        )
    _check_unknown(cinder, finding.backup_id)
    name = ceph_driver.metadata_object(finding.backup_id)
    content = pool.read_object(name)
    if content is None:
        return f'{name}: has gone meanwhile'
    files.make_folder(keep)
    path = keep / name
    kept = files.read_file(path, max(len(content), units.MIB))
    if kept is None:
        files.write_file(path, content)
        LOG.info('Object %s: a copy is in %s.', name, path)
    elif kept != content:
        raise errors.Conflict(
            f'{path}: is there already, with other content than the object {name}.',
            'Choose another directory: --keep <directory>',
        )
    pool.remove_object(name)
    return f'{name}: removed; back with: {pool.commands.rados("put", name, str(path))}'


def _check_unknown(cinder: Cinder, backup_id: str) -> None:
    try:
        cinder.get(backup_id)
    except errors.NotFound:
        return
    raise errors.Conflict(
        f'Backup {backup_id}: Cinder knows it by now, so its volume metadata stays.',
        'Check again.',
    )


def _remove_partial(pool: ceph_pool.Pool, finding: findings.Finding) -> str:
    """Remove a temporary image under the lock of those who write such images.

    The lock goes by being given back, the one of a dead run with it.
    """
    kind, _, name = finding.target.partition(' ')
    if kind == 'image':
        image = ceph_driver.image_of_temporary(name)
    else:
        image = ceph_driver.image_of_lock(name)
    if image is None:
        raise errors.InvalidInput(f'{finding.target}: is nothing that an import of ours leaves.')
    part = ceph_driver.temporary_image(image)
    with pool.lock(image) as lock:
        had_part = pool.has_image(part)
        if had_part:
            lock.check()
            pool.remove(part)
        drifted = _has_drifted(pool, image)
    removed = [part] * had_part + [ceph_driver.lock_object(image)]
    told = f'{image}: removed {" and ".join(removed)}'
    if drifted:
        told += (
            f'; the image is not as its newest snapshot, which an import that is run again '
            f'mends, or: {pool.commands.rbd("snap", "rollback", f"{image}@{drifted}")}'
        )
    return told


def _has_drifted(pool: ceph_pool.Pool, name: str) -> str | None:
    """Return the newest backup's snapshot if the image is not like it any more."""
    if not pool.has_image(name):
        return None
    with pool.open(name) as image:
        newest = heads.drifted_from(image)
    return newest.name if newest else None
