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

"""How records are imported: the arguments of every command that does."""

import argparse
import typing

if typing.TYPE_CHECKING:
    from osc_backup_port.operations import import_metadata


def add_arguments(parser: argparse.ArgumentParser, dry_run_note: str = '') -> None:
    """Add ``--timeout``, ``--replace-failed`` and ``--dry-run``.

    :param dry_run_note: what else is to be said of the last one
    """
    parser.add_argument(
        '--timeout',
        metavar='<seconds>',
        type=_seconds,
        default=300,
        help='How long to wait for the import of the records (default: %(default)s)',
    )
    parser.add_argument(
        '--replace-failed',
        action='store_true',
        help='Delete the record that an earlier import left in error, and import anew. Only a '
        'record whose deletion cannot touch any data is deleted',
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help=f'Say what would be done and what stands in the way, and change nothing'
        f'{dry_run_note}',
    )


def options(
    parsed_args: argparse.Namespace, pool: str | None, wait: bool = True
) -> 'import_metadata.Options':
    """Return how to import.

    :param pool: what the pool of the backups is called in the cloud that they go to
    """
    from osc_backup_port.operations import import_metadata

    return import_metadata.Options(
        ceph_pool=pool,
        wait=wait,
        timeout=parsed_args.timeout,
        replace_failed=parsed_args.replace_failed,
    )


def _seconds(text: str) -> float:
    value = float(text)
    # Neither the past nor "nan", which is never over.
    if not 0 <= value < float('inf'):
        raise ValueError(text)
    return value
