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

"""Nothing secret of a URL is printed, and no URL is taken that cannot be written to."""

import pathlib
import traceback

import pytest

from osc_backup_port import errors
from osc_backup_port.archive import remote_store, secret_url, store
from osc_backup_port.osc import archive_place

SECRETS = ['hunter2hunter2', 'AKIAEXAMPLE', 'wJalr/XUtn', 't0ken-t0ken']


@pytest.mark.parametrize(
    ('url', 'shown'),
    [
        ('s3://bucket/prefix', 's3://bucket/prefix'),
        ('s3://bucket/a@b:c', 's3://bucket/a@b:c'),
        ('s3://AKIAEXAMPLE:wJalr/XUtn@bucket/p', 's3://***@bucket/p'),
        ('http://user:hunter2hunter2@host:8080/p', 'http://***@host:8080/p'),
        ('https://t0ken-t0ken@host/p', 'https://***@host/p'),
        ('https://host:443/p@q', 'https://host:443/p@q'),
        ('https://host/p?sig=t0ken-t0ken&x=1', 'https://host/p?***'),
        ('simplecache::s3://AKIAEXAMPLE:hunter2hunter2@bucket', 'simplecache::s3://***@bucket'),
        ('zip://a::https://u:hunter2hunter2@h/z?k=t0ken-t0ken', 'zip://a::https://***@h/z?***'),
    ],
)
def test_a_url_as_it_is_shown(url: str, shown: str) -> None:
    assert secret_url.hide(url, url) == shown
    assert archive_place.shown_name(url) == shown


def test_a_secret_in_the_error_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in what a traceback would print of it."""
    where = remote_store.Remote('memory://user:hunter2hunter2@host/p?sig=t0ken-t0ken')

    def fail(*_args: object, **_more: object) -> None:
        raise RuntimeError('cannot connect to user:hunter2hunter2@host (sig=t0ken-t0ken)')

    monkeypatch.setattr(where._fs, 'pipe_file', fail, raising=False)
    with pytest.raises(errors.PortError) as caught:
        where.put('file', b'content')
    told = ''.join(traceback.format_exception(caught.value)) + where.name
    assert not [secret for secret in SECRETS if secret in told]


def test_a_scheme_that_nobody_knows() -> None:
    url = f'nonsense://user:{SECRETS[0]}@host/p'
    with pytest.raises(errors.InvalidInput) as caught:
        archive_place.open_store(url)
    told = ''.join(traceback.format_exception(caught.value))
    assert SECRETS[0] not in told


@pytest.mark.parametrize('scheme', ['file', 'local'])
def test_the_url_of_a_folder_is_that_folder(tmp_path: pathlib.Path, scheme: str) -> None:
    where = archive_place.open_store(f'{scheme}://{tmp_path}/a')
    assert isinstance(where, store.Folder)
    where.put('new/file', b'content')
    assert (tmp_path / 'a' / 'new' / 'file').read_bytes() == b'content'


@pytest.mark.parametrize(
    'url', ['simplecache::s3://bucket/p', 'zip://a::file:///tmp/x.zip', 'filecache::memory://x']
)
def test_a_chain_of_urls_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidInput, match='a chain of URLs'):
        archive_place.open_store(url)
