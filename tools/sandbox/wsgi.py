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

"""Running an OpenStack API under gunicorn."""

from pathlib import Path

from .files import write
from .model import Cloud
from .process import Daemon
from .rest import RestError, call

# Without setproctitle, which the distribution may bring along: it writes over the environment in
# the process table, and by that we know our children.
_GUNICORN = (
    "import sys; sys.modules['setproctitle'] = None; sys.path.remove(''); "
    "from gunicorn.app.wsgiapp import run; run(prog='gunicorn')"
)


def daemon(cloud: Cloud, name: str, port: int, **environment: str) -> Daemon:
    """Return the daemon NAME which serves the module that ``write_module`` wrote, on PORT."""

    def missing() -> str:
        try:
            call('GET', f'http://127.0.0.1:{port}/')
        except RestError as error:
            # Both APIs answer their root with 300, Multiple Choices.
            return '' if error.status == 300 else str(error)
        return ''

    return Daemon(
        cloud=cloud.name,
        name=name,
        command=[
            f'{cloud.venv}/bin/python',
            '-c',
            _GUNICORN,
            f'--bind=127.0.0.1:{port}',
            '--workers=2',
            '--worker-class=gthread',
            '--threads=8',
            '--timeout=120',
            '--graceful-timeout=5',
            '--no-control-socket',
            f'--chdir={_folder(cloud)}',
            f'{_module(name)}:application',
        ],
        root=cloud.root,
        environment=cloud.python_environment(**environment),
        missing=missing,
        port=port,
    )


def write_module(cloud: Cloud, name: str, source: str, arguments: list[str]) -> None:
    """Write the module that gunicorn loads: SOURCE's application, started with ARGUMENTS.

    The services parse ``sys.argv``, which is gunicorn's own unless it is replaced first.
    """
    text = (
        'import sys\n'
        f'sys.argv = {[name, *arguments]!r}\n'
        f'from {source} import application  # noqa: E402,F401\n'
    )
    write(_folder(cloud) / f'{_module(name)}.py', text)


def _folder(cloud: Cloud) -> Path:
    return cloud.root / 'wsgi'


def _module(name: str) -> str:
    return 'sandbox_' + name.replace('-', '_')
