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


"""The first token: patient from the second try on, and clear about what is wrong."""

import types

import pytest
from keystoneauth1 import exceptions as keystone_exceptions

from osc_backup_port import errors
from osc_backup_port.cinder import login, patience

SESSION = types.SimpleNamespace(session=types.SimpleNamespace(adapters={}))


def run(*outcomes: Exception) -> int:
    """Log in, with these failures one after the other; return how often it was tried."""
    left = list(outcomes)
    tries = 0

    def authenticate() -> None:
        nonlocal tries
        tries += 1
        if left:
            raise left.pop(0)

    login.run(authenticate, lambda: SESSION, patience.Patience())
    return tries


def test_tried_again() -> None:
    assert run() == 1
    assert run(keystone_exceptions.ServiceUnavailable()) == 2
    assert run(keystone_exceptions.ConnectFailure()) == 2
    with pytest.raises(errors.OutcomeUnknown, match='Cannot log in'):
        run(keystone_exceptions.ConnectFailure('refused'), keystone_exceptions.ConnectFailure())


def test_a_wrong_password_is_tried_once() -> None:
    with pytest.raises(errors.NotPermitted, match='does not accept the credentials'):
        run(keystone_exceptions.Unauthorized('no'))


def test_credentials_that_are_none() -> None:
    with pytest.raises(errors.InvalidInput, match="unexpected keyword argument 'unscoped'"):
        run(TypeError("__init__() got an unexpected keyword argument 'unscoped'"))
