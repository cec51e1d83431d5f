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

"""The commands."""

import argparse
import signal
import sys
from types import FrameType

from . import (
    cinder,
    clouds_yaml,
    keyrings,
    lifecycle,
    packages,
    process,
    rgw,
    settings,
    state,
    venv,
)
from .errors import SandboxError
from .progress import say
from .settings import Settings

DEFAULT = ['src', 'dst']


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(settings.load(), options) or 0)
    except SandboxError as error:
        print(f'sandbox: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('sandbox: interrupted', file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each command's function is its ``run``."""
    main_parser = argparse.ArgumentParser(
        prog='python3 tools/sandbox',
        description='Two real OpenStack clouds on loopback, each with its own Ceph.',
        epilog="State is in $SANDBOX_DIR (else .sandbox in the checkout), the services' virtual "
        'environment in $SANDBOX_VENV (else in the state).',
    )
    commands = main_parser.add_subparsers(required=True, metavar='COMMAND')

    command = commands.add_parser('install', help='install missing packages of the distribution')
    command.add_argument('names', nargs='*', metavar='PACKAGE', help='default: all that it needs')
    command.set_defaults(run=_install)

    command = commands.add_parser('up', help='start clouds; makes the ones that are new')
    command.add_argument('names', nargs='*', metavar='NAME', help='default: src dst')
    command.set_defaults(run=_up)

    command = commands.add_parser('down', help='stop clouds')
    command.add_argument('names', nargs='*', metavar='NAME', help='default: all')
    command.add_argument('--purge', action='store_true', help='delete their data, too')
    command.set_defaults(run=_down)

    command = commands.add_parser('status', help='list the daemons; exit code 0 when all are up')
    command.set_defaults(run=_status)

    command = commands.add_parser('env', help='print shell commands that select a cloud')
    command.add_argument('name', metavar='NAME')
    command.set_defaults(run=_env)

    command = commands.add_parser(
        'rgw', help='start the object gateway of a cloud; print what selects it for S3'
    )
    command.add_argument('name', metavar='NAME')
    command.set_defaults(run=_rgw)

    command = commands.add_parser('service', help='start or stop one daemon')
    command.add_argument('name', metavar='NAME')
    command.add_argument('service', metavar='SERVICE', help="as 'status' shows it")
    command.add_argument('verb', choices=['start', 'stop', 'kill', 'restart'])
    command.set_defaults(run=_service)

    command = commands.add_parser(
        'rebuild-cinder-database', help="replace a cloud's Cinder database by an empty one"
    )
    command.add_argument('name', metavar='NAME')
    command.set_defaults(run=_rebuild)
    return main_parser


def _install(_: Settings, options: argparse.Namespace) -> None:
    if not options.names:
        keyrings.check()
    packages.install(options.names)


def _up(folders: Settings, options: argparse.Namespace) -> None:
    packages.check()
    keyrings.check()
    with state.locked(folders):
        venv.ensure(folders.venv)
        lifecycle.up(folders, options.names or DEFAULT)


def _down(folders: Settings, options: argparse.Namespace) -> None:
    with state.locked(folders):
        clouds = [state.find(folders, name) for name in options.names] or state.known(folders)
        lifecycle.down(clouds)
        if options.purge:
            lifecycle.purge(folders, clouds)
            say('sandbox', 'the data is deleted')


def _status(folders: Settings, _: argparse.Namespace) -> int:
    clouds = state.known(folders)
    all_up = bool(clouds)
    for cloud in clouds:
        for daemon in lifecycle.daemons(cloud):
            found = process.running(daemon)
            all_up = all_up and found is not None
            pid, word = (str(found.pid), 'up') if found else ('-', 'down')
            print(f'{cloud.name:8} {daemon.name:18} {pid:>8}  {word:5} {daemon.port or "-"}')
    if not clouds:
        print('no clouds')
    return 0 if all_up else 1


def _env(folders: Settings, options: argparse.Namespace) -> None:
    print(clouds_yaml.exports(folders, state.find(folders, options.name)))


def _rgw(folders: Settings, options: argparse.Namespace) -> None:
    cloud = state.find(folders, options.name)
    with state.locked(folders):
        print(rgw.start(cloud))


def _service(folders: Settings, options: argparse.Namespace) -> None:
    cloud = state.find(folders, options.name)
    daemon = lifecycle.find_daemon(cloud, options.service)
    with state.locked(folders):
        if options.verb in ('stop', 'restart', 'kill'):
            process.stop(daemon, seconds=0 if options.verb == 'kill' else 20)
        if options.verb in ('start', 'restart'):
            process.launch(daemon)


def _rebuild(folders: Settings, options: argparse.Namespace) -> None:
    cloud = state.find(folders, options.name)
    with state.locked(folders):
        cinder.rebuild_database(cloud)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
