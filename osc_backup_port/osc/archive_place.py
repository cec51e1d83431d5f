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

"""Where an archive is."""

import argparse
import collections.abc
import contextlib
import pathlib
import typing

from osc_backup_port import errors
from osc_backup_port.osc import base

if typing.TYPE_CHECKING:
    from osc_backup_port.archive import catalog, store, tar_stream

STREAM = '-'


def add_archive(parser: argparse.ArgumentParser, stream: str | None) -> None:
    """Add the argument that says where the archive is.

    :param stream: what ``-`` stands for; None: nothing
    """
    text = 'Archive: a folder, or a URL such as s3://bucket/prefix'
    if stream:
        text += f', or - for a tar stream on {stream}'
    parser.add_argument('archive', metavar='<archive>', help=text)


def open_store(name: str) -> 'store.Store':
    """Return where an archive lies; not for a stream."""
    from osc_backup_port.archive import remote_store, store

    if name == STREAM:
        raise errors.InvalidInput(
            'A stream can be read from its beginning to its end only.',
            'Unpack it first: mkdir <folder>; tar -x -C <folder> -f <file>',
        )
    if '://' not in name:
        return store.Folder(pathlib.Path(name))
    if '::' in name:
        raise errors.InvalidInput(
            f'{shown_name(name)}: a chain of URLs is no place for an archive.',
            'Name the place itself: a folder, or one URL such as s3://bucket/prefix',
        )
    scheme, _, path = name.partition('://')
    if scheme in ('file', 'local'):
        return store.Folder(pathlib.Path(path))
    return remote_store.Remote(name)


def shown_name(name: str) -> str:
    """Return the name of an archive as it may be printed."""
    from osc_backup_port.archive import secret_url

    return secret_url.hide(name, name)


@contextlib.contextmanager
def input_stream() -> 'collections.abc.Iterator[tar_stream.Input]':
    from osc_backup_port.archive import tar_stream

    with base.open_stdin() as file:
        yield tar_stream.Input(file)


def read_catalog(name: str) -> 'catalog.Catalog':
    from osc_backup_port.archive import catalog, tar_stream

    if name != STREAM:
        return catalog.read(open_store(name))
    with input_stream() as source:
        return tar_stream.read_catalog(source)


def tell_damage(command: base.CommandMixin, contents: 'catalog.Catalog') -> None:
    """Let a command print what it can, and tell then what cannot be read."""
    told = [damage.error for damage in contents.damage()]
    if told:
        command.fail_after_output(errors.SomeFailed('A part of the archive cannot be used:', told))
