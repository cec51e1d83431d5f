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


"""A proxy on loopback that answers badly when it is told to, as load balancers do."""

import collections.abc
import contextlib
import dataclasses
import http.client
import http.server
import re
import socket
import threading
import typing
import urllib.parse

_HTML = b'<html><body><h1>no healthy upstream</h1></body></html>'


@dataclasses.dataclass
class Fault:
    """What happens to the next request of a kind.

    :ivar request: a pattern for the method and the path
    :ivar what: a status of the proxy's own; ``reset``: no answer; ``half``: half of the answer;
        ``lost``: the request is carried out, and not answered
    :ivar skip: so many requests of the kind are let through before
    """

    request: str
    what: int | str
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    skip: int = 0


@contextlib.contextmanager
def running(upstream: str, faults: list[Fault]) -> collections.abc.Iterator[str]:
    """Stand before a server until the block ends.

    :param faults: each happens once, and is taken from the list then
    :return: the address of the proxy
    """
    address = urllib.parse.urlsplit(upstream)
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *_arguments: object) -> None:
            pass

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
            fault = self._fault()
            if fault and isinstance(fault.what, int):
                self._send(fault.what, {'Content-Type': 'text/html', **fault.headers}, _HTML)
                return
            if fault and fault.what == 'reset':
                self._reset()
                return
            answer, content = self._forward(body)
            if fault and fault.what == 'lost':
                self._reset()
                return
            headers = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ('content-length', 'transfer-encoding', 'connection')
            }
            self._send(answer.status, headers, content, half=fault is not None)

        def _fault(self) -> Fault | None:
            with lock:
                for fault in faults:
                    if re.search(fault.request, f'{self.command} {self.path}'):
                        if fault.skip == 0:
                            faults.remove(fault)
                            return fault
                        fault.skip -= 1
            return None

        def _forward(self, body: bytes) -> tuple[typing.Any, bytes]:
            connection = http.client.HTTPConnection(address.netloc, timeout=60)
            headers = {k: v for k, v in self.headers.items() if k.lower() != 'connection'}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer, answer.read()

        def _send(
            self, status: int, headers: dict[str, str], content: bytes, half: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, 'Content-Length': str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self._reset()

        def _reset(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_POST = do_DELETE = handle_request  # noqa: N815

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_address[1]}{address.path}'
    finally:
        server.shutdown()
        server.server_close()
