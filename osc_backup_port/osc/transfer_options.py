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

"""How fast to go: options of every command that moves data."""

import argparse
import re
import typing

if typing.TYPE_CHECKING:
    from osc_backup_port import progress
    from osc_backup_port.moving import job as job_module

_UNITS = {'': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30}
_MOST_REQUESTS = 256
_SMALLEST_REQUEST, _LARGEST_REQUEST = 1 << 16, 1 << 25


def add_arguments(parser: argparse.ArgumentParser, requests: int = 16) -> None:
    """Add ``--requests``, ``--request-size`` and ``--limit-rate``.

    :param requests: the number that the operation has by default
    """
    group = parser.add_argument_group('Speed', 'The defaults need no tuning.')
    group.add_argument(
        '--requests',
        metavar='<number>',
        type=_requests,
        help=f'Requests to a cluster under way at once (default: {requests})',
    )
    group.add_argument(
        '--request-size',
        metavar='<bytes>',
        type=_request_size,
        help='Size of the largest request, 64K to 32M (default: 4M, which is an object of most '
        'images). The memory it takes grows with this and with --requests',
    )
    add_rate(group)


def add_rate(parser: 'argparse._ActionsContainer') -> None:
    """Add ``--limit-rate``."""
    parser.add_argument(
        '--limit-rate',
        metavar='<bytes/s>',
        type=_size,
        help='Move at most so many bytes of data a second; 50M is 50 MiB (default: no limit)',
    )


def add_verify(parser: argparse.ArgumentParser, note: str = '') -> None:
    """Add ``--verify``.

    :param note: what else is to be said of it
    """
    parser.add_argument(
        '--verify',
        action='store_true',
        help='Read back what was written and compare it with what came in; costs one read of '
        f'all of that{f". {note}" if note else ""}',
    )


def job(
    parsed_args: argparse.Namespace, shown: 'progress.Progress', is_alone: bool = False
) -> 'job_module.Job':
    """Return what the options say.

    :param is_alone: the memory has to do for one transfer only
    """
    from osc_backup_port.moving import job as job_module
    from osc_backup_port.transfer import limits

    bounds = limits.choose(
        # What does not ask a cluster has no such options.
        getattr(parsed_args, 'requests', None),
        getattr(parsed_args, 'request_size', None),
        parsed_args.limit_rate,
        limits.DEFAULT if is_alone else limits.SHARED,
    )
    return job_module.Job(shown, bounds, getattr(parsed_args, 'verify', False))


def _size(text: str) -> int:
    match = re.fullmatch(r'(\d+)([kmg]?)(i?b)?', text.lower())
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f'{text!r} is no size: 4194304, 4M and 4MiB are')
    return int(match[1]) * _UNITS[match[2]]


def _request_size(text: str) -> int:
    size = _size(text)
    if not _SMALLEST_REQUEST <= size <= _LARGEST_REQUEST or size % 4096:
        raise argparse.ArgumentTypeError(f'{text} is not 64K to 32M, in steps of 4K')
    return size


def _requests(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_REQUESTS:
        raise argparse.ArgumentTypeError(f'{text!r} is not 1 to {_MOST_REQUESTS}')
    return int(text)
