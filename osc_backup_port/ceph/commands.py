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

"""Commands of Ceph as an operator has to type them, for hints.

They reach the cluster that we talk to, as the user that we are: a hint works when it is copied.
"""

import dataclasses
import re
import shlex

#: What is to be filled in stays as it is: ``<file>``.
_BLANK = re.compile(r'<[a-z ]+>')


@dataclasses.dataclass(frozen=True, slots=True)
class Commands:
    """What these commands have to be told.

    :param conf: the configuration file of the cluster; None: the one that Ceph falls back to
    :param user: without ``client.``; None: the one that Ceph falls back to
    :param pool: where the backups, or the volumes, are
    """

    conf: str | None = None
    user: str | None = None
    pool: str | None = None

    def for_admin(self) -> 'Commands':
        """Return the same for what the user of the backups may not do: of client.admin."""
        return dataclasses.replace(self, user=None)

    def rbd(self, *words: str) -> str:
        return self._command('rbd', self._pool(), words)

    def rados(self, *words: str) -> str:
        return self._command('rados', self._pool(), words)

    def ceph(self, *words: str) -> str:
        return self._command('ceph', [], words)

    def _pool(self) -> list[str]:
        return ['-p', self.pool] if self.pool else []

    def _command(self, program: str, more: list[str], words: tuple[str, ...]) -> str:
        conf = ['-c', self.conf] if self.conf else []
        user = ['--id', self.user] if self.user else []
        return ' '.join(map(_quoted, [program, *conf, *user, *more, *words]))


def _quoted(word: str) -> str:
    """Quote a word for the shell: an image may have any name."""
    return word if _BLANK.fullmatch(word) else shlex.quote(word)
