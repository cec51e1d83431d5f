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

"""RabbitMQ: one broker for each cloud, with an epmd of its own."""

from . import ports
from .files import write
from .model import Cloud
from .process import Daemon, launch
from .progress import say

USER = 'openstack'

# Debian's wrapper in /usr/sbin changes the user and the folder; this is the program itself.
SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'


def url(cloud: Cloud) -> str:
    """Return how oslo.messaging reaches the broker."""
    return f'rabbit://{USER}:{cloud.secrets["rabbitmq"]}@127.0.0.1:{cloud.ports["rabbitmq"]}/'


def daemons(cloud: Cloud) -> list[Daemon]:
    """Return epmd and the broker, in the order in which they start."""
    return [_epmd(cloud), _broker(cloud)]


def start(cloud: Cloud) -> None:
    """Start the broker."""
    _configure(cloud)
    started = [launch(daemon) for daemon in daemons(cloud)]
    if any(started):
        say(cloud.name, 'RabbitMQ is up')


def _epmd(cloud: Cloud) -> Daemon:
    port = cloud.ports['epmd']
    return Daemon(
        cloud=cloud.name,
        name='epmd',
        # Started here because Erlang's own would outlive the broker.
        command=['epmd', '-port', str(port), '-address', '127.0.0.1'],
        root=cloud.root,
        environment=cloud.environment(),
        missing=lambda: '' if ports.answers(port) else 'it does not listen',
        port=port,
    )


def _broker(cloud: Cloud) -> Daemon:
    folder = cloud.root / 'rabbitmq'
    port = cloud.ports['rabbitmq']
    environment = cloud.environment(
        HOME=str(folder),
        RABBITMQ_NODENAME=f'{cloud.sockets.parent.name}-{cloud.name}@localhost',
        RABBITMQ_CONF_ENV_FILE=str(folder / 'environment.conf'),
        RABBITMQ_CONFIG_FILE=str(folder / 'rabbitmq.conf'),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / 'plugins'),
        RABBITMQ_MNESIA_BASE=str(folder / 'mnesia'),
        RABBITMQ_LOG_BASE=str(folder),
        RABBITMQ_LOGS='-',
        RABBITMQ_DIST_PORT=str(cloud.ports['rabbitmq-dist']),
        ERL_EPMD_PORT=str(cloud.ports['epmd']),
        # Erlang listens on loopback only, and does not spin while it waits for work.
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=(
            '-kernel inet_dist_use_interface {127,0,0,1}'
            ' +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none'
        ),
        # The Erlang machine replaces the shell, so that the pid is the broker's.
        RUNNING_UNDER_SYSTEMD='true',
    )
    return Daemon(
        cloud=cloud.name,
        name='rabbitmq',
        command=[SERVER],
        root=cloud.root,
        environment=environment,
        missing=lambda: '' if ports.answers(port) else 'it does not listen',
        port=port,
    )


def _configure(cloud: Cloud) -> None:
    folder = cloud.root / 'rabbitmq'
    options = {
        'listeners.tcp.1': f'127.0.0.1:{cloud.ports["rabbitmq"]}',
        'default_user': USER,
        'default_pass': cloud.secrets['rabbitmq'],
        'log.console.level': 'info',
        'disk_free_limit.absolute': '50MB',
    }
    write(folder / 'rabbitmq.conf', ''.join(f'{k} = {v}\n' for k, v in options.items()))
    write(folder / 'environment.conf', '')
    write(folder / 'plugins', '[].\n')
    write(folder / '.erlang.cookie', cloud.secrets['erlang-cookie'], 0o400)
