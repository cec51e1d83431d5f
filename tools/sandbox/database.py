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

"""MariaDB: one server for each cloud, with the databases of Keystone and Cinder."""

import getpass
import os
import shutil

from . import ports
from .errors import SandboxError
from .files import is_done, mark_done
from .model import Cloud
from .process import Daemon, launch, run
from .progress import say


def url(cloud: Cloud, database: str) -> str:
    """Return how SQLAlchemy reaches DATABASE; its user has the same name."""
    password, port = cloud.secrets['database'], cloud.ports['mariadb']
    return f'mysql+pymysql://{database}:{password}@127.0.0.1:{port}/{database}?charset=utf8mb4'


def daemon(cloud: Cloud) -> Daemon:
    """Return the server."""
    folder = cloud.root / 'mariadb'
    options = {
        'datadir': folder / 'data',
        'tmpdir': folder / 'tmp',
        'socket': _socket(cloud),
        'pid-file': folder / 'mariadb.pid',
        'bind-address': '127.0.0.1',
        'port': cloud.ports['mariadb'],
        'innodb-buffer-pool-size': '64M',
        'innodb-log-file-size': '32M',
        # Nobody needs the last second after a power cut, and the tests need speed.
        'innodb-flush-log-at-trx-commit': 2,
        'performance-schema': 'OFF',
        'max-connections': 400,
        'character-set-server': 'utf8mb4',
    }
    return Daemon(
        cloud=cloud.name,
        name='mariadb',
        command=[
            'mariadbd',
            '--no-defaults',
            *[f'--{key}={value}' for key, value in options.items()],
            *_as_root(),
        ],
        root=cloud.root,
        environment=cloud.environment(),
        missing=lambda: '' if ports.answers(cloud.ports['mariadb']) else 'it does not listen',
        port=cloud.ports['mariadb'],
    )


def start(cloud: Cloud) -> None:
    """Start the server, and see to it that the two databases are there."""
    _install(cloud)
    if launch(daemon(cloud)):
        say(cloud.name, 'MariaDB is up')
    databases = cloud.root / 'mariadb' / 'databases-made'
    if not is_done(databases):
        for name in ('keystone', 'cinder'):
            password = cloud.secrets['database']
            _sql(
                cloud,
                f'CREATE DATABASE IF NOT EXISTS {name};'
                f"CREATE USER IF NOT EXISTS {name}@'127.0.0.1' IDENTIFIED BY '{password}';"
                f"GRANT ALL ON {name}.* TO {name}@'127.0.0.1';",
            )
        mark_done(databases)


def recreate(cloud: Cloud, database: str) -> None:
    """Replace DATABASE by an empty one; the grants stay."""
    _sql(cloud, f'DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database};')


def _install(cloud: Cloud) -> None:
    folder = cloud.root / 'mariadb'
    installed = folder / 'installed'
    if is_done(installed):
        return
    if folder.exists():
        shutil.rmtree(folder)  # Of a run that was interrupted.
    for name in ('data', 'tmp'):
        # Two installers at once delete each other's files in a common tmpdir.
        (folder / name).mkdir(parents=True)
    run(
        [
            'mariadb-install-db',
            '--no-defaults',
            f'--datadir={folder / "data"}',
            f'--tmpdir={folder / "tmp"}',
            # Only the user who runs this can be root of the database, through the socket.
            '--auth-root-authentication-method=socket',
            f'--auth-root-socket-user={getpass.getuser()}',
            '--skip-test-db',
            '--skip-name-resolve',
            *_as_root(),
        ],
        cloud.environment(),
    )
    mark_done(installed)


def _sql(cloud: Cloud, statements: str) -> None:
    try:
        command = ['mariadb', '--no-defaults', f'--socket={_socket(cloud)}']
        run([*command, f'--user={getpass.getuser()}'], cloud.environment(), text=statements)
    except SandboxError as error:
        raise SandboxError(f'{cloud.name}: MariaDB: {error}') from None


def _socket(cloud: Cloud) -> str:
    return str(cloud.sockets / 'mariadb.sock')


def _as_root() -> list[str]:
    # The server refuses to run as root unless told so.
    return ['--user=root'] if os.geteuid() == 0 else []
