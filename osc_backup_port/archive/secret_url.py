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

"""URLs that hold a password, a key or a token, and must not be printed so."""

import re
import urllib.parse

_HIDDEN = '***'
#: Parts of a secret that are shorter would be found in every other word.
_SHORTEST = 4


def hide(text: str, url: str) -> str:
    """Return *text* without the secrets of *url*, which may be the text itself."""
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _secrets(url: str) -> set[str]:
    found: set[str] = set()
    for part in url.split('::'):
        rest = part.partition('://')[2]
        rest, _, query = rest.partition('?')
        user = _user_of(rest)
        values = [value for _key, value in urllib.parse.parse_qsl(query, keep_blank_values=True)]
        if user:
            found |= {user, *user.split(':')}
        if query:
            found |= {query, *values}
    found |= {urllib.parse.unquote(secret) for secret in found}
    found |= {urllib.parse.quote(secret, safe='') for secret in found}
    whole = {secret for secret in found if len(secret) >= _SHORTEST}
    return whole


def _user_of(rest: str) -> str:
    """Return what stands before the host; a key may hold a slash, and so may a path an @."""
    host = rest.partition('/')[0]
    if '@' in host:
        return host.rpartition('@')[0]
    if '@' in rest and re.search(r':(?![0-9]+$)', host):
        return rest.rpartition('@')[0]
    return ''
