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

"""Turn what cinderclient and keystoneauth raise into errors of ours."""

import collections.abc
import contextlib
import json
import typing

from cinderclient import exceptions as cinder_exceptions
from keystoneauth1 import exceptions as keystone_exceptions

from osc_backup_port import errors
from osc_backup_port.cinder import patience

_SERVICES = 'openstack volume service list --service cinder-backup'


@contextlib.contextmanager
def as_errors(
    action: str, policy: str | None = None, missing: str | None = None
) -> collections.abc.Iterator[None]:
    """Turn every failure of a request into an error of ours.

    :param action: what failed, for the message: ``export record of backup X``
    :param policy: the rule in Cinder's policy that guards this request
    :param missing: a command that lists what is there, shown on a 404
    :raises errors.NotFound: 404
    :raises errors.Conflict: the backup is there already
    :raises errors.NotPermitted: 401 and 403
    :raises errors.NoAnswer: repeated until the time was over
    :raises errors.OutcomeUnknown: no telling whether it was done
    :raises errors.CinderError: everything else
    """
    try:
        yield
    except errors.NoAnswer as error:
        raise errors.NoAnswer(f'Cannot {action}: {error.problem}', error.hint) from error
    except cinder_exceptions.ClientException as error:
        raise _from_response(action, error, policy, missing) from error
    except (cinder_exceptions.EndpointNotFound, keystone_exceptions.EndpointNotFound) as error:
        raise errors.CinderError(
            f'Cannot {action}: the catalog of this cloud has no Block Storage endpoint for '
            f'this region and interface ({error}).',
            'Look at: openstack catalog list; then at region_name and interface of the cloud in '
            'clouds.yaml. A token of no project may be shown none: --os-project-name <project>',
        ) from error
    except (keystone_exceptions.Unauthorized, keystone_exceptions.NotFound) as error:
        # To Keystone a token that it cannot read is one that is not there.
        raise _not_logged_in(action, error) from error
    except keystone_exceptions.ConnectionError as error:
        raise errors.OutcomeUnknown(
            f'Cannot {action}: the Block Storage service does not answer '
            f'({patience.reason(error)}).',
            'Look at the endpoint: openstack catalog show block-storage. The request may have '
            'been carried out all the same; running the command again is safe.',
            may_pass=True,
        ) from error
    except (keystone_exceptions.ClientException, cinder_exceptions.UnsupportedVersion) as error:
        raise errors.CinderError(f'Cannot {action}: {error}') from error
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError) as error:
        # cinderclient looks into the answer without checking it first.
        raise errors.OutcomeUnknown(
            f'Cannot {action}: the answer is not one of the Block Storage service '
            f'({type(error).__name__}: {error}).',
            'Look at the endpoint: openstack catalog show block-storage.',
        ) from error


def _from_response(
    action: str, error: typing.Any, policy: str | None, missing: str | None
) -> errors.PortError:
    code = error.code
    told = f'Cannot {action}: {_shorten(error.message)} (HTTP {code})'
    if code == 401:
        return _not_logged_in(action, error)
    if code == 403:
        rule = f' The rule is {policy} in the policy of Cinder.' if policy else ''
        return errors.NotPermitted(told, f'This needs the admin role.{rule}')
    if code == 404 and str(error.message).startswith('Service '):
        # An export answers so while the backup is there: no service can do it.
        return errors.CinderError(told, f'Look whether the backup service is up: {_SERVICES}')
    if code == 404:
        return errors.NotFound(told, f'See what is there: {missing}' if missing else None)
    if code == 400 and 'already exists' in str(error.message):
        return errors.Conflict(told)
    if code == 413:
        return errors.CinderError(
            told,
            'Look at the quota: openstack quota show; raise it: openstack quota set '
            '--backups <number> --backup-gigabytes <GiB> <project>',
        )
    if code == 503 and 'could not be found' in str(error.message):
        # Cinder says so that no service can do it.  Any other 503 is of a load balancer.
        return errors.CinderError(told, f'Look whether the backup service is up: {_SERVICES}')
    if code >= 500 or code in patience.BUSY:
        return errors.OutcomeUnknown(
            told,
            f'Look whether the backup service is up: {_SERVICES}',
            may_pass=code in patience.BUSY,
            retry_after=patience.asked_to_wait(),
        )
    return errors.CinderError(told)


def _not_logged_in(action: str, error: object) -> errors.NotPermitted:
    if _was_by_token(error):
        return errors.NotPermitted(
            f'Cannot {action}: the token that was given as a credential (OS_TOKEN, auth_type '
            'v3token) has expired, or was revoked.',
            'Get a new one with a password: openstack token issue; a run that takes longer than '
            'a token is valid needs a password or an application credential.',
        )
    return errors.NotPermitted(
        f'Cannot {action}: the cloud does not accept the credentials ({error}).',
        'Look at them with: openstack token issue',
    )


def _was_by_token(error: object) -> bool:
    """Tell whether Keystone refused to give a token for a token."""
    request = getattr(getattr(error, 'response', None), 'request', None)
    try:
        asked = json.loads(getattr(request, 'body', None) or '')
        return 'token' in asked['auth']['identity']['methods']
    except (ValueError, KeyError, TypeError):
        return False


def _shorten(message: object) -> str:
    """Cut what Cinder repeats of our own request: it may be a whole record."""
    text = ' '.join(str(message).split())
    return text if len(text) <= 400 else f'{text[:250]} ... {text[-100:]}'
