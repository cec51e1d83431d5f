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

"""How an image of a backup is made: as chosen, else as its neighbours, else as by Cinder."""

import collections
import dataclasses
from typing import Any

from osc_backup_port import errors, model
from osc_backup_port.ceph import commands, headers
from osc_backup_port.driver import ceph as ceph_driver

#: Images that are looked at, to see how this cloud makes them.
_SAMPLES = 3
_CONF_DATA_POOL = 'rbd_default_data_pool'


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """What all images that are made have in common.

    :param data_pool: where their data goes; may be the pool itself
    :param features: librbd's bits
    :param striping: unit and count; None: as the image has it that is copied
    """

    data_pool: str
    features: int
    striping: tuple[int, int] | None


class Styles:
    """Finds out how to make images in one pool."""

    def __init__(
        self,
        rbd: Any,
        client: Any,
        pool: str,
        chosen: model.NewImages,
        shell: commands.Commands,
    ) -> None:
        self._rbd = rbd
        self._client = client
        self._pool = pool
        self._chosen = chosen
        self._shell = shell

    def choose(self, neighbours: list[Style]) -> Style:
        """Return how to make an image beside its neighbours.

        :raises InvalidInput: there is no such data pool, or the striping is none
        """
        likely = collections.Counter(neighbours).most_common(1)
        like = likely[0][0] if likely else None
        features = like.features if like else self._cinder_features()
        if self._chosen.journals is not None:
            features = self._with_journals(features, self._chosen.journals)
        return Style(self._data_pool(like), features, self._striping(like))

    def of_image(self, opened: Any) -> Style:
        """Return how an open image of librbd was made."""
        striping = opened.stripe_unit(), opened.stripe_count()
        return self.of(headers.Making(opened.features(), striping, opened.data_pool_id()))

    def of(self, made: headers.Making) -> Style:
        """Return how an image was made, of which the header tells."""
        data_pool = None
        if made.data_pool >= 0:
            data_pool = self._client.pool_reverse_lookup(made.data_pool)
        kept = self._with_journals(self._cinder_features(), True)
        return Style(
            data_pool or self._pool,
            made.features & kept,
            made.striping if made.striping[1] > 1 else None,
        )

    def _data_pool(self, like: Style | None) -> str:
        configured = self._client.conf_get(_CONF_DATA_POOL) or None
        found = self._chosen.data_pool or configured or (like.data_pool if like else self._pool)
        if found != self._pool and not self._client.pool_exists(found):
            raise errors.InvalidInput(
                f'Data pool {found}: there is no such pool.',
                'Choose another one: --data-pool <pool>; the pools: '
                f'{self._shell.ceph("osd", "pool", "ls")}',
            )
        return found

    def _striping(self, like: Style | None) -> tuple[int, int] | None:
        unit, count = self._chosen.stripe_unit, self._chosen.stripe_count
        if unit is None and count is None:
            return like.striping if like else None
        if bool(unit) != bool(count):
            raise errors.InvalidInput(
                f'Striping: the unit is {unit or 0} and the count {count or 0}; both are needed, '
                'or neither.',
                'As in cinder.conf: --stripe-unit <backup_ceph_stripe_unit> --stripe-count '
                '<backup_ceph_stripe_count>',
            )
        return unit or 0, count or 0

    def _cinder_features(self) -> int:
        rbd = self._rbd
        return int(
            rbd.RBD_FEATURE_LAYERING
            | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
            | rbd.RBD_FEATURE_OBJECT_MAP
            | rbd.RBD_FEATURE_FAST_DIFF
        )

    def _with_journals(self, features: int, journals: bool) -> int:
        rbd = self._rbd
        if journals:
            return int(features | rbd.RBD_FEATURE_EXCLUSIVE_LOCK | rbd.RBD_FEATURE_JOURNALING)
        return int(features & ~rbd.RBD_FEATURE_JOURNALING)


def neighbours(names: list[str]) -> list[str]:
    """Return the names of some images that Cinder made, among all of a pool."""
    return [name for name in names if ceph_driver.parse_image(name)][:_SAMPLES]
