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

"""The little of the OpenStack APIs that is needed, on urllib."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from .model import Cloud

# The user's proxy settings are not for loopback.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RestError(Exception):
    """A request failed; ``status`` is the HTTP status, 0 when there was no answer at all."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def call(
    method: str,
    url: str,
    body: Any = None,
    more_headers: Mapping[str, str] | None = None,
    seconds: float = 30,
) -> tuple[Any, dict[str, str]]:
    """Do one request and return the decoded answer and its headers; raise RestError."""
    headers = {'Content-Type': 'application/json', 'Accept': 'application/json'}
    headers.update(more_headers or {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with _opener.open(request, timeout=seconds) as answer:
            content = answer.read()
            return (json.loads(content) if content else None), dict(answer.headers)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors='replace')
        raise RestError(error.code, f'{method} {url}: {error.code} {text[:300]}') from None
    except (OSError, ValueError) as error:
        raise RestError(0, f'{method} {url}: {error}') from None


class Admin:
    """The administrator of a cloud, in the project ``admin``; gets a token when it needs one."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._token = ''
        self.project = ''

    def identity(self, method: str, path: str, body: Any = None) -> Any:
        """Do a request to Keystone; PATH begins with a slash, after /v3."""
        self._log_in()
        return call(method, self._cloud.auth_url + path, body, {'X-Auth-Token': self._token})[0]

    def volume(
        self, method: str, path: str, body: Any = None, version: str = '3.0', seconds: float = 30
    ) -> Any:
        """Do a request to Cinder; PATH begins with a slash, after the project."""
        self._log_in()
        url = f'{self._cloud.volume_url}/{self.project}{path}'
        headers = {'X-Auth-Token': self._token, 'OpenStack-API-Version': f'volume {version}'}
        return call(method, url, body, headers, seconds)[0]

    def _log_in(self) -> None:
        if self._token:
            return
        domain = {'id': 'default'}
        user = {'name': 'admin', 'password': self._cloud.secrets['admin'], 'domain': domain}
        auth = {
            'identity': {'methods': ['password'], 'password': {'user': user}},
            'scope': {'project': {'name': 'admin', 'domain': domain}},
        }
        answer, headers = call('POST', self._cloud.auth_url + '/auth/tokens', {'auth': auth})
        names = {name.lower(): value for name, value in headers.items()}
        self._token = names['x-subject-token']
        self.project = answer['token']['project']['id']
