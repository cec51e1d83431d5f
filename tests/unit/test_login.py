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


"""The first token: patient from the first request on, and clear about what is wrong."""

import types
import typing

import pytest
import requests
from keystoneauth1 import exceptions as keystone_exceptions

from osc_backup_port import errors
from osc_backup_port.cinder import login, patience


class ClientManager:
    """As much of that of OSC as is needed to log in."""

    session: typing.Any = None
    auth = types.SimpleNamespace(auth_url='http://user:secret@keystone:5000/v3')

    def setup_auth(self) -> None:
        self.session = types.SimpleNamespace(session=requests.Session())


def run(outcome: Exception | None = None) -> typing.Any:
    """Log in, with this failure; return the adapter by which the token was asked for."""
    manager = ClientManager()
    used = []

    def authenticate() -> None:
        manager.setup_auth()
        used.append(manager.session.session.get_adapter('http://keystone'))
        if outcome:
            raise outcome

    login.run(manager, authenticate, patience.Patience())
    [adapter] = used
    return adapter


def test_the_first_request_is_a_patient_one() -> None:
    assert isinstance(run(), patience._PatientAdapter)


def test_a_cloud_that_is_not_there() -> None:
    with pytest.raises(errors.CinderError, match='Cannot log in: keystone does not'):
        run(keystone_exceptions.ConnectFailure('refused'))


def test_an_address_that_is_none() -> None:
    with pytest.raises(errors.InvalidInput, match='cannot be used: Invalid IPv6 URL'):
        run(ValueError('Invalid IPv6 URL'))
    with pytest.raises(errors.CinderError, match='no Keystone at the address'):
        run(keystone_exceptions.EndpointNotFound())


def test_a_wrong_password() -> None:
    with pytest.raises(errors.NotPermitted, match='does not accept the credentials'):
        run(keystone_exceptions.Unauthorized('no'))


def test_credentials_that_are_none() -> None:
    with pytest.raises(errors.InvalidInput, match="unexpected keyword argument 'unscoped'"):
        run(TypeError("__init__() got an unexpected keyword argument 'unscoped'"))
