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

"""A cinderclient of our own, made from the session that OSC has.

``client_manager.volume`` is a cinderclient up to python-openstackclient 10.1
and an openstacksdk proxy from 10.2 on, whose import of a record posts to the
wrong place.  A client of our own behaves the same under every release.
"""

import collections.abc
import logging
import typing

from cinderclient import api_versions
from cinderclient import client as cinderclient
from keystoneauth1 import exceptions as keystone_exceptions

from osc_backup_port import errors

LOG = logging.getLogger(__name__)

#: keystoneauth knows the older names (volumev3, volume) of this one.
SERVICE_TYPE = 'block-storage'

#: The newest microversion that shows something we use: project_id came with
#: 3.18, metadata with 3.43, encryption_key_id with 3.64.
WANTED_MICROVERSION = (3, 64)

# How clouds.yaml and the environment may call the service, best first.
_SETTING_PREFIXES = ('block_storage', 'volumev3', 'block_store', 'volume')


def connect(client_manager: typing.Any, auth: typing.Any = None) -> typing.Any:
    """Return a ``cinderclient.v3.client.Client`` for the cloud in use.

    :param client_manager: the one that OSC hands to commands; its session, and
        the cloud's region, interface and endpoint override are used
    :param auth: another way to log in than the session's
    :raises errors.CinderError: the API version is not one we can use
    """
    config = client_manager.get_configuration()
    where = {
        'region_name': _setting(config, 'region_name') or client_manager.region_name,
        'interface': _setting(config, 'interface') or client_manager.interface,
        'service_type': SERVICE_TYPE,
        'service_name': _setting(config, 'service_name'),
        'endpoint_override': _setting(config, 'endpoint_override'),
        'auth': auth,
    }
    asked = str((client_manager._api_version or {}).get('volume') or '')
    version = _negotiate(client_manager.session, where, asked)
    LOG.info(
        'Cinder: API version %s, region %s, interface %s.',
        version,
        where['region_name'],
        where['interface'],
    )
    try:
        return cinderclient.Client(version, session=client_manager.session, **where)
    except Exception as error:  # cinderclient has no common base for these
        raise errors.CinderError(f'Block Storage API version {version}: {error}') from error


def _setting(config: collections.abc.Mapping[str, typing.Any], name: str) -> typing.Any:
    for prefix in _SETTING_PREFIXES:
        value = config.get(f'{prefix}_{name}')
        if value:
            return value
    return None


def _negotiate(session: typing.Any, where: dict[str, typing.Any], asked: str) -> str:
    """Return the version to speak: the newest useful one that the server has.

    :param asked: what --os-volume-api-version says; obeyed if it has a minor
        part, since a bare ``3`` is only the default
    :raises errors.CinderError: it asks for something else than version 3
    """
    if asked and asked.split('.')[0] != '3':
        raise errors.CinderError(
            f'--os-volume-api-version is {asked}, expected 3 or 3.<minor>.',
            'Leave it out, and unset OS_VOLUME_API_VERSION.',
        )
    if '.' in asked:
        return asked
    try:
        data = session.get_endpoint_data(
            **{name: value for name, value in where.items() if value is not None}
        )
        newest = data.max_microversion if data else None
    except keystone_exceptions.ClientException as error:
        # The first real request tells the user what is wrong, better than here.
        LOG.debug('No version document: %s', error)
        newest = None
    wanted = min(WANTED_MICROVERSION, tuple(newest or (3, 0)))
    known = api_versions.APIVersion(api_versions.MAX_VERSION)
    major, minor = min(wanted, (known.ver_major, known.ver_minor))
    return f'{major}.{minor}'
