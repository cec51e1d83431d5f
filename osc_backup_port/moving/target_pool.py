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

"""What stands in the way of new data in a pool, before anything is written."""

import collections
import collections.abc

from osc_backup_port import errors, units
from osc_backup_port.ceph import pool as ceph_pool


def check_space(
    pool: ceph_pool.Pool, needed: collections.abc.Mapping[str, int]
) -> list[errors.PortError]:
    """Return why there is no room, or no right, where the data of images is to go.

    :param needed: bytes, by the name of the image
    """
    by_pool: collections.Counter[str] = collections.Counter()
    obstacles: list[errors.PortError] = []
    try:
        for name, size in needed.items():
            by_pool[pool.data_pool_of(name)] += size
    except errors.InvalidInput as error:
        return [error]
    for name, size in by_pool.items():
        try:
            pool.check_data_pool(name)
        except errors.PortError as error:
            obstacles.append(error)
        free = pool.free(name)
        if free is not None and size > free:
            data = 'Pool' if name == pool.name else 'Data pool'
            obstacles.append(_no_room(pool, f'{data} {name}', free, size))
    return obstacles


def _no_room(pool: ceph_pool.Pool, name: str, free: int, needed: int) -> errors.PortError:
    return errors.CephError(
        f'{name}: has room for {units.human_size(free)}, expected {units.human_size(needed)}.',
        f'Look at: {pool.commands.ceph("df", "detail")}; then free space or add OSDs, import '
        'fewer backups, or choose another pool for the data of new images: --data-pool <pool>',
    )
