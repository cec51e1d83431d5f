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


"""The first token of a command, which OSC asks for."""

import collections.abc
import typing

from osc_backup_port import errors
from osc_backup_port.cinder import faults, patience


def run(
    set_up: collections.abc.Callable[[], None],
    session: collections.abc.Callable[[], typing.Any],
    authenticate: collections.abc.Callable[[], None],
    waits: patience.Patience,
) -> None:
    """Log in, however long the cloud may be silent.

    :param set_up: makes the session, and asks nobody
    :param session: returns it
    :param authenticate: asks for a token through it
    :raises errors.NotPermitted: the cloud does not accept the credentials
    :raises errors.CinderError: it cannot be asked
    :raises errors.InvalidInput: there are no such credentials
    """
    with faults.as_errors('log in'):
        try:
            set_up()
            waits.attach(session())
            authenticate()
        except TypeError as error:
            # A plugin of keystoneauth was given a word that it does not know.
            raise errors.InvalidInput(
                f'Cannot log in: the credentials cannot be used: {error}.',
                'Look at the part auth of the cloud in clouds.yaml, or at the variables OS_*.',
            ) from error
