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
import contextlib
import logging
import typing
import urllib.parse

from keystoneauth1 import exceptions as keystone_exceptions

from osc_backup_port import errors
from osc_backup_port.cinder import faults, patience

LOG = logging.getLogger(__name__)

_ADDRESS = 'Look at auth_url of the cloud in clouds.yaml, or at OS_AUTH_URL.'


def run(
    client_manager: typing.Any,
    authenticate: collections.abc.Callable[[], None],
    waits: patience.Patience,
) -> None:
    """Log in, however long the cloud may be silent.

    :param client_manager: the one that OSC hands to commands
    :param authenticate: lets it make its session, and ask for a token through it
    :raises errors.NotPermitted: the cloud does not accept the credentials
    :raises errors.CinderError: it cannot be asked
    :raises errors.InvalidInput: there are no such credentials
    """
    with faults.as_errors('log in'):
        try:
            with _patient(client_manager, waits):
                authenticate()
            LOG.info('Keystone: logged in at %s.', _host(client_manager))
        except keystone_exceptions.ConnectionError as error:
            raise errors.CinderError(
                f'Cannot log in: {_host(client_manager)} does not answer '
                f'({patience.reason(error)}).',
                _ADDRESS,
            ) from error
        except keystone_exceptions.EndpointNotFound as error:
            raise errors.CinderError(
                'Cannot log in: there is no Keystone at the address that was given.', _ADDRESS
            ) from error
        except (TypeError, ValueError) as error:
            # A plugin of keystoneauth was given a word that it does not know, or no address.
            raise errors.InvalidInput(
                f'Cannot log in: the credentials cannot be used: {error}.',
                'Look at the part auth of the cloud in clouds.yaml, or at the variables OS_*.',
            ) from error


def _host(client_manager: typing.Any) -> str:
    """Return the host of Keystone; the rest of its address may hold secrets."""
    address = getattr(client_manager.auth, 'auth_url', None) or ''
    return urllib.parse.urlsplit(address).hostname or 'the cloud'


@contextlib.contextmanager
def _patient(
    client_manager: typing.Any, waits: patience.Patience
) -> collections.abc.Iterator[None]:
    """Let the session be patient before its first request.

    OSC makes it and uses it in one go; ``setup_auth`` is what makes it.
    """
    set_up = client_manager.setup_auth

    def set_up_patiently() -> None:
        set_up()
        waits.attach(client_manager.session)

    client_manager.setup_auth = set_up_patiently
    try:
        yield
    finally:
        client_manager.setup_auth = set_up
