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

"""Chains of backups with known content, and what becomes of them elsewhere."""

import base64
import collections.abc
import concurrent.futures
import dataclasses
import functools
import json
import pathlib
import typing
import uuid

from osc_backup_port import record
from tests.functional import ceph, shell

if typing.TYPE_CHECKING:
    from tests.functional.conftest import Resources

BACKUP = ('volume', 'backup')

#: What a volume has besides its bytes, and what a restore has to bring back.
PROPERTIES = {'rack': 'b7', 'owner': 'Zoë'}
IMAGE_PROPERTIES = {'hw_disk_bus': 'scsi', 'image_name': 'port-test'}


@dataclasses.dataclass(frozen=True)
class Chain:
    """A full backup and its increments, oldest first.

    :ivar sums: the checksum of the volume when each of them was made
    :ivar base: what the name of the image ends with; None: the id of the full backup
    """

    cloud: shell.Cloud
    volume_id: str
    volume_name: str
    backups: list[str]
    sums: list[str]
    base: str | None = None

    @property
    def image(self) -> str:
        """The name of the image in which all of them lie."""
        return f'volume-{self.volume_id}.backup.{self.base or self.backups[0]}'

    def sums_of(self, pool: ceph.Pool, image: str | None = None) -> list[str]:
        """Return the checksums of all its backups, as they lie in a pool."""
        name = image or self.image
        return side_by_side(
            *(
                functools.partial(pool.checksum, pool.snapshot_of(name, backup))
                for backup in self.backups
            )
        )


def make_volume(cloud: shell.Cloud, resources: 'Resources') -> tuple[str, str]:
    """Make a volume with everything that a restore can bring back: id and name."""
    volume_id = resources.volume(cloud, metadata=PROPERTIES)
    path = f'/volumes/{volume_id}'
    for action in (
        {'os-set_bootable': {'bootable': True}},
        {'os-set_image_metadata': {'metadata': IMAGE_PROPERTIES}},
    ):
        cloud.rest('POST', f'{path}/action', action)
    return volume_id, cloud.rest('GET', path)['volume']['name']


def make_chain(
    cloud: shell.Cloud, resources: 'Resources', length: int = 3, grows: bool = False
) -> Chain:
    """Make a volume; change it and back it up as often as *length* says.

    :param grows: it is larger by 1 GiB each time
    """
    pool = ceph.volume_pool(cloud)
    volume_id, name = make_volume(cloud, resources)
    backups, sums = [], []
    for number in range(length):
        if grows and number:
            resize = {'os-extend': {'new_size': number + 1}}
            cloud.rest('POST', f'/volumes/{volume_id}/action', resize)
            cloud.wait(f'/volumes/{volume_id}')
        ceph.write_state(pool, f'volume-{volume_id}', number)
        sums.append(pool.checksum(f'volume-{volume_id}'))
        backups.append(resources.backup(cloud, volume_id, incremental=number > 0))
    return Chain(cloud, volume_id, name, backups, sums)


def make_old_chain(chain: Chain, resources: 'Resources', folder: pathlib.Path) -> Chain:
    """Make what Rocky would have made of the volume of *chain*, with the stock tools.

    All backups of a volume share ``volume-V.backup.base`` there, and the record
    does not say so.
    """
    cloud, pool = chain.cloud, ceph.backup_pool(chain.cloud)
    fresh = [str(uuid.uuid4()) for _ in chain.backups]
    old = dataclasses.replace(chain, volume_id=str(uuid.uuid4()), backups=fresh, base='base')
    forget(cloud, resources, old)
    whole = pool.rbd('export', '--no-progress', '--export-format', '2', chain.image, '-')
    pool.rbd('import', '--no-progress', '--export-format', '2', '-', old.image, stdin=whole)
    records = []
    for number, (backup, new) in enumerate(zip(chain.backups, fresh, strict=True)):
        _, _, name = pool.snapshot_of(old.image, backup).partition('@')
        renamed = name.replace(backup, new)
        pool.rbd('snap', 'rename', f'{old.image}@{name}', f'{old.image}@{renamed}')
        content = pool.rados('get', f'backup.{backup}.meta', '-')
        pool.rados('put', f'backup.{new}.meta', '-', stdin=content)
        records.append(_write_old_record(old, number, chain.backups[number], folder))
    import_records(cloud, *records)
    return old


def _write_old_record(chain: Chain, number: int, model: str, folder: pathlib.Path) -> pathlib.Path:
    """Write the record of a backup as Rocky knew it, after one of today."""
    answer = chain.cloud.rest('GET', f'/backups/{model}/export_record')['backup-record']
    fields = {
        **json.loads(base64.b64decode(answer['backup_url'])),
        'id': chain.backups[number],
        'volume_id': chain.volume_id,
        'parent_id': chain.backups[number - 1] if number else None,
        'service_metadata': None,
    }
    for younger in ('driver_info', 'encryption_key_id', 'metadata'):
        fields.pop(younger, None)
    path = folder / f'{chain.backups[number]}.json'
    url = record.BackupRecord.encode(fields)
    path.write_text(json.dumps({**answer, 'backup_url': url}))
    return path


@dataclasses.dataclass(frozen=True)
class Export:
    """The files of one backup."""

    record: pathlib.Path
    image: pathlib.Path

    @property
    def arguments(self) -> tuple[object, ...]:
        """What ``import-image`` is told."""
        return ('--metadata', self.record, '--file', self.image)


def export(
    chain: Chain, number: int, image_format: str, folder: pathlib.Path, since: int | None = None
) -> Export:
    """Export one backup of a chain with the two commands."""
    backup = chain.backups[number]
    folder.mkdir(parents=True, exist_ok=True)
    record, image = folder / f'{backup}.json', folder / f'{number}.{image_format}'
    options = ('--from-backup', chain.backups[since]) if since is not None else ()
    chain.cloud.openstack(*BACKUP, 'metadata', 'export', backup, '--file', record)
    chain.cloud.openstack(
        *BACKUP, 'export-image', backup, '--format', image_format, '--file', image, *options
    )
    return Export(record, image)


def import_image(cloud: shell.Cloud, *arguments: object, **options: typing.Any) -> typing.Any:
    """Import an image and return the columns."""
    return cloud.openstack_json(*BACKUP, 'import-image', *arguments, **options)


def forget(cloud: shell.Cloud, resources: 'Resources', chain: Chain) -> None:
    """Take all of a chain away at the end, whatever is there of it then."""
    resources.callback(ceph.backup_pool(cloud).clear, chain.volume_id, chain.backups)
    for backup in chain.backups:
        resources.forget_backup(cloud, backup)


def import_records(cloud: shell.Cloud, *files: pathlib.Path) -> dict[str, str]:
    """Import records; return what became of each backup."""
    rows = cloud.openstack_json(*BACKUP, 'metadata', 'import', *files)
    return {row['ID']: row['Result'] for row in rows}


def restore(cloud: shell.Cloud, resources: 'Resources', backup: str) -> dict[str, typing.Any]:
    """Restore a backup into a new volume and return that, its checksum with it."""
    answer = cloud.rest('POST', f'/backups/{backup}/restore', {'restore': {}})
    volume_id = answer['restore']['volume_id']
    resources.forget_volume(cloud, volume_id)
    cloud.wait(f'/backups/{backup}')
    volume = cloud.wait(f'/volumes/{volume_id}')
    return {**volume, 'checksum': ceph.volume_pool(cloud).checksum(f'volume-{volume_id}')}


def delete_backup(cloud: shell.Cloud, backup: str) -> None:
    """Delete a backup and wait until it is gone."""
    cloud.rest('DELETE', f'/backups/{backup}')
    cloud.wait(f'/backups/{backup}', None)


T = typing.TypeVar('T')


def side_by_side(*calls: collections.abc.Callable[[], T]) -> list[T]:
    """Make calls at the same time; return what they returned, in their order."""
    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        return [future.result() for future in [workers.submit(call) for call in calls]]
