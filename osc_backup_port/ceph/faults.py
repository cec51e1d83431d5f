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

"""The errors of librbd and librados, as ours, with the cause that the cluster tells."""

import contextlib
import errno
import json
from collections.abc import Callable, Iterator
from typing import Any

from osc_backup_port import errors, units
from osc_backup_port.ceph import commands

#: Seconds for each further request once one was not answered: what is cleaned up then
#: should not take as long again, step by step.
_SHORT_TIMEOUT = '3'
#: What ``ceph health`` says when requests wait for ever.
_WAITING = ('FULL', 'DOWN', 'PG_', 'OSDMAP_FLAGS', 'SLOW_OPS')
_REFUSED = (errno.EPERM, errno.EACCES)
DataPool = Callable[[], str | None]


class Faults:
    """Explains the errors of one client of one cluster.

    :param pool: the name of the pool in use
    :param shell: commands that reach this cluster
    """

    def __init__(
        self, rados: Any, rbd: Any, client: Any, pool: str, shell: commands.Commands
    ) -> None:
        self._rados = rados
        self._rbd = rbd
        self._client = client
        self._pool = pool
        self._shell = shell

    @contextlib.contextmanager
    def translated(self, what: str, data_pool: DataPool = lambda: None) -> Iterator[None]:
        """Turn the errors of librbd and librados about *what* into ours.

        :param data_pool: tells where the data of the image lies
        """
        rados, rbd = self._rados, self._rbd
        try:
            yield
        except (rbd.ImageNotFound, rados.ObjectNotFound) as error:
            raise errors.NotFound(f'{what}: not there.') from error
        except rbd.ImageExists as error:
            raise errors.Conflict(f'{what}: is there already.') from error
        except rbd.ImageBusy as error:
            raise errors.Conflict(
                f'{what}: is in use by another client.',
                'Wait until the backup or restore that uses it has ended, then try again.',
            ) from error
        except (rbd.Error, rados.Error) as error:
            code = getattr(error, 'errno', None) or 0
            raise self.explain(what, code, str(error), data_pool()) from error

    def explain(
        self, what: str, code: int, text: str, data_pool: str | None = None
    ) -> errors.CephError:
        """Return an error of ours for an errno, with its cause if the cluster knows it.

        :param text: what the library says of it
        """
        pools = list(dict.fromkeys([self._pool, data_pool or self._pool]))
        code = abs(code)
        if code == errno.ESHUTDOWN:
            return errors.CephError(
                f'{what}: the cluster has shut out this client (it is on the blocklist): another '
                'run took over because this one did not renew its lock in time, or an '
                'administrator did it. This run can write nothing more.',
                'If no other run has done the same: run the same command again. Who is shut out: '
                + self._shell.ceph('osd', 'blocklist', 'ls'),
            )
        if code in (errno.EDQUOT, errno.ENOSPC):
            return errors.CephError(f'{what}: {self._full(pools, code)}', self._room())
        if code == errno.ETIMEDOUT:
            self._hurry()
            return self._unanswered(what, pools)
        if code in _REFUSED:
            return self._refused(what, text, pools)
        return errors.CephError(f'{what}: {text}.', self._look())

    def check_may_use(self, pool: str) -> None:
        """:raises CephError: the user may not read or write in another pool"""
        if self._refuses(pool):
            raise self._refused(f'Pool {pool}', 'Operation not permitted', [self._pool, pool])

    def _unanswered(self, what: str, pools: list[str]) -> errors.CephError:
        reasons = self._reasons()
        hint = self._look()
        if reasons == []:
            # Its monitors give no ticket for OSDs then, and the OSDs do not answer.
            hint += (
                '. Or the user has no capability for OSDs at all, to which Ceph 18 gives no '
                f'answer: {self._needed(pools)}'
            )
        return errors.CephError(f'{what}: no answer in time. {self._health(reasons)}', hint)

    def _look(self) -> str:
        return f'Look at the health of the cluster: {self._shell.ceph("status")}'

    def _room(self) -> str:
        admin = self._shell.for_admin()
        quota = admin.ceph('osd', 'pool', 'set-quota', '<pool>', 'max_bytes', '<bytes>')
        return (
            f'Look at: {self._shell.ceph("df", "detail")}; then free space, add OSDs, or raise '
            f'the quota: {quota}. Then run the same command again.'
        )

    def _full(self, pools: list[str], code: int) -> str:
        told = []
        for pool in self._ask('osd dump', 'pools'):
            flags = str(pool.get('flags_names', '')).split(',')
            if pool.get('pool_name') not in pools or 'full' not in flags:
                continue
            if 'full_quota' not in flags:
                told.append(f'pool {pool["pool_name"]} is full.')
                continue
            limits = [units.human_size(pool['quota_max_bytes'])] * bool(pool['quota_max_bytes'])
            limits += [f'{pool["quota_max_objects"]} objects'] * bool(pool['quota_max_objects'])
            told.append(f'pool {pool["pool_name"]} has reached its quota ({", ".join(limits)}).')
        if told:
            return ' '.join(told)
        reached = 'has reached its quota' if code == errno.EDQUOT else 'is full'
        return f'pool {" or ".join(pools)} {reached}. {self._health(self._reasons())}'

    @staticmethod
    def _health(reasons: list[str] | None) -> str:
        if reasons is None:
            return 'The monitors do not tell why.'
        return f'The cluster says: {"; ".join(reasons) or "nothing that would explain it"}.'

    def _reasons(self) -> list[str] | None:
        """Return what keeps requests waiting, in the cluster's own words; None: it is silent."""
        checks = self._ask('health', 'checks', detail='detail')
        if not isinstance(checks, dict):
            return None
        told: list[str] = []
        for name, check in checks.items():
            if any(word in name for word in _WAITING):
                told.append(check['summary']['message'])
                told += [one['message'] for one in check.get('detail', ())[:2]]
        return told

    def _refused(self, what: str, text: str, pools: list[str]) -> errors.CephError:
        refusing = [pool for pool in pools if self._refuses(pool)] or pools
        also = ''
        if len(pools) > 1:
            also = f' The data of the image lies in pool {pools[1]}.'
        return errors.CephError(
            f'{what}: the cluster does not permit {self._user} to do that in pool '
            f'{" and ".join(refusing)}: {text}.{also}',
            self._needed(pools),
        )

    @property
    def _user(self) -> str:
        return f'client.{self._shell.user or "admin"}'

    def _needed(self, pools: list[str]) -> str:
        needed = ', '.join(f'profile rbd pool={pool}' for pool in pools)
        return (
            f"{self._user} needs the capabilities mon 'profile rbd' and osd '{needed}' (to read "
            'alone: profile rbd-read-only). Compare with the user of cinder-backup: '
            + self._shell.for_admin().ceph('auth', 'get', self._user)
        )

    def _refuses(self, pool: str) -> bool:
        """Tell whether the user may not read, or not write, in a pool; changes nothing."""
        try:
            ioctx = self._client.open_ioctx(pool)
        except self._rados.Error:
            return True
        with contextlib.closing(ioctx):
            for ask in (ioctx.stat, ioctx.remove_object):
                try:
                    ask('osc-backup-port.no-such-object')
                except self._rados.Error as error:
                    if error.errno in _REFUSED:
                        return True
        return False

    def _hurry(self) -> None:
        for option in ('rados_osd_op_timeout', 'rados_mon_op_timeout'):
            with contextlib.suppress(self._rados.Error):
                self._client.conf_set(option, _SHORT_TIMEOUT)

    def _ask(self, command: str, key: str, **more: str) -> Any:
        """Ask the monitors; an empty answer where they have none."""
        asked = json.dumps({'prefix': command, 'format': 'json', **more})
        with contextlib.suppress(self._rados.Error, ValueError, KeyError, TypeError):
            code, answer, _text = self._client.mon_command(asked, b'')
            if not code:
                return json.loads(answer)[key]
        return ()
