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

"""Ports that nobody else has."""

import socket

from sandbox import ports


def test_chosen_ports_differ_and_are_free() -> None:
    chosen = ports.choose([str(number) for number in range(20)])
    assert len(set(chosen.values())) == 20
    assert all(ports.LOWEST <= port < ports.HIGHEST for port in chosen.values())
    assert all(ports.is_free(port) for port in chosen.values())


def test_taken_ports_are_not_chosen() -> None:
    taken = range(ports.LOWEST, ports.HIGHEST - 50)
    assert min(ports.choose(['a', 'b'], taken).values()) >= ports.HIGHEST - 50


def test_a_port_with_a_server_is_not_free_and_answers() -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.answers(port)
    assert ports.is_free(port)
    assert not ports.answers(port)
