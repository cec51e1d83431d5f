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

"""The real ``openstack`` shell, and a short way to the Block Storage API.

What is under test goes through :meth:`Cloud.openstack`, a process of its own.
Preparing and cleaning up goes through :meth:`Cloud.rest`, which is faster and
the same under every release of the client.
"""

import collections.abc
import dataclasses
import functools
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import typing

import openstack.config
from keystoneauth1 import adapter

ROOT = pathlib.Path(__file__).parents[2]
SANDBOX = ROOT / 'tools' / 'sandbox'


@dataclasses.dataclass(frozen=True)
class Cloud:
    """One cloud of clouds.yaml.

    :ivar name: as ``--os-cloud`` takes it
    :ivar environment: what the shell needs to find it
    :ivar sandbox: its name in the sandbox; None for a cloud of somebody else
    """

    name: str
    environment: collections.abc.Mapping[str, str] = dataclasses.field(hash=False, compare=False)
    sandbox: str | None = None

    def openstack(
        self,
        *arguments: object,
        check: bool = True,
        stdin: bytes | None = None,
        timeout: float = 300,
        environment: collections.abc.Mapping[str, str] | None = None,
    ) -> 'subprocess.CompletedProcess[bytes]':
        """Run ``openstack`` against this cloud and return its output as bytes.

        :param check: raise when the exit code is not 0
        """
        process = subprocess.run(
            self.command(*arguments),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**self.environment, **(environment or {})},
            timeout=timeout,
            check=False,
        )
        if check and process.returncode:
            raise AssertionError(
                f'openstack {shlex.join(map(str, arguments))} on {self.name}: '
                f'exit code {process.returncode}\n'
                f'{process.stdout.decode(errors="replace")}'
                f'{process.stderr.decode(errors="replace")}'
            )
        return process

    def openstack_json(self, *arguments: object, **options: typing.Any) -> typing.Any:
        """Run a command that prints columns and return them, decoded."""
        return json.loads(self.openstack(*arguments, '-f', 'json', **options).stdout)

    def command(self, *arguments: object) -> list[str]:
        """Return the whole command line, for those who start it themselves."""
        shell = [sys.executable, '-m', 'openstackclient.shell', '--os-cloud', self.name]
        return [*shell, *map(str, arguments)]

    @property
    def config(self) -> dict[str, typing.Any]:
        """The cloud's part of clouds.yaml."""
        return dict(self._region.config)

    def rest(
        self,
        method: str,
        path: str,
        body: object = None,
        microversion: str = '3.64',
    ) -> typing.Any:
        """Call Block Storage and return the decoded answer, None if empty."""
        answer = self._adapter.request(path, method, json=body, microversion=microversion)
        return answer.json() if answer.content else None

    @property
    def project_id(self) -> str:
        """The project that this user works in."""
        return str(self._adapter.get_project_id())

    @property
    def endpoint(self) -> str:
        """The address of Block Storage."""
        return str(self._adapter.get_endpoint())

    def status(self, path: str) -> int:
        """Return the HTTP status of a GET, whatever it is."""
        return int(self._adapter.get(path, raise_exc=False).status_code)

    def wait(
        self,
        path: str,
        wanted: str | None = 'available',
        timeout: float = 120,
    ) -> dict[str, typing.Any]:
        """Wait until the object at *path* has a status; None: until it is gone."""
        deadline = time.monotonic() + timeout
        while True:
            answer = self._adapter.get(path, raise_exc=False, microversion='3.64')
            if answer.status_code == 404 and wanted is None:
                return {}
            answer.raise_for_status()
            (shown,) = answer.json().values()
            if shown['status'] == wanted:
                return dict(shown)
            if shown['status'].startswith('error') or time.monotonic() > deadline:
                raise AssertionError(f'{path} is {shown["status"]}, expected {wanted}: {shown}')
            time.sleep(0.2)

    def backup_ids(self) -> set[str]:
        """Return the ids of the backups in all projects."""
        answer = self.rest('GET', '/backups?all_tenants=1')
        return {backup['id'] for backup in answer['backups']}

    def service(self, service: str, action: str) -> None:
        """Stop or start a daemon of a sandbox."""
        if self.sandbox is None:
            raise AssertionError('only a sandbox has services that may be stopped')
        command = [sys.executable, SANDBOX, 'service', self.sandbox, service, action]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def wait_for_backup_service(self, state: str) -> None:
        """Wait until Cinder takes its backup service to be ``up`` or ``down``."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            services = self.rest('GET', '/os-services?binary=cinder-backup')['services']
            if {service['state'] for service in services} == {state}:
                return
            time.sleep(0.2)
        raise AssertionError(f'cinder-backup is not {state}: {services}')

    @functools.cached_property
    def _region(self) -> typing.Any:
        files = (
            [self.environment['OS_CLIENT_CONFIG_FILE']]
            if ('OS_CLIENT_CONFIG_FILE' in self.environment)
            else None
        )
        config = openstack.config.OpenStackConfig(config_files=files, load_envvars=False)
        return config.get_one(self.name)

    @functools.cached_property
    def _adapter(self) -> typing.Any:
        region = self._region
        return adapter.Adapter(
            region.get_session(),
            service_type='block-storage',
            region_name=region.region_name,
            interface=region.interface,
            endpoint_override=region.get_endpoint('block-storage'),
        )


def sandbox_environment(name: str) -> dict[str, str]:
    """Return the variables that ``tools/sandbox env`` prints."""
    command = [sys.executable, SANDBOX, 'env', name]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    variables = {}
    for line in process.stdout.splitlines():
        words = shlex.split(line)
        if words[:1] == ['export']:
            key, _, value = words[1].partition('=')
            variables[key] = value
    return variables


def plain_environment() -> dict[str, str]:
    """Return our environment without what selects a cloud."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith('OS_') and key != 'CEPH_CONF'
    }
