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


"""What is asked again, for how long, and what is said of it; against a server on loopback."""

import collections.abc
import contextlib
import http.server
import logging
import socket
import threading
import time
import typing

import pytest
from keystoneauth1 import exceptions as keystone_exceptions
from keystoneauth1 import session as keystone_session

from osc_backup_port import errors
from osc_backup_port.cinder import patience

Answer = tuple[int, dict[str, str]] | str


class Server:
    """Gives the answers that it is told, one after the other, then 200.

    :ivar answers: a status with headers, or ``reset``, ``half`` or ``chunk`` for a connection
        that is closed before, or within, the answer, ``silence`` for none
    :ivar asked: the requests that came
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.closed = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def log_message(self, *_arguments: object) -> None:
                pass

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get('Content-Length') or 0))
                server.asked.append((self.command, self.path))
                what = server.answers.pop(0) if server.answers else (200, {})
                if what == 'silence':
                    server.closed.wait(60)
                    self.close_connection = True
                    return
                if isinstance(what, str):
                    self._break_off(what)
                    return
                self.send_response(what[0])
                for name, value in {'Content-Length': '4', **what[1]}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b'true')

            def _break_off(self, how: str) -> None:
                if how != 'reset':
                    self.send_response(200)
                    size = {
                        'half': ('Content-Length', '8'),
                        'chunk': ('Transfer-Encoding', 'chunked'),
                    }
                    self.send_header(*size[how])
                    self.end_headers()
                    self.wfile.write(b'true' if how == 'half' else b'8\r\ntrue')
                    self.wfile.flush()
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

        self._httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self._httpd.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f'http://127.0.0.1:{self._httpd.server_address[1]}'

    def close(self) -> None:
        self.closed.set()
        self._httpd.shutdown()
        self._httpd.server_close()


@pytest.fixture
def serve() -> collections.abc.Iterator[typing.Callable[..., Server]]:
    made: list[Server] = []

    def start(*answers: Answer) -> Server:
        made.append(Server(*answers))
        return made[-1]

    yield start
    for server in made:
        server.close()


def session(seconds: float = 20) -> tuple[keystone_session.Session, patience.Patience]:
    made = keystone_session.Session()
    waits = patience.Patience(seconds, 'cloud dst')
    waits.attach(made)
    return made, waits


@pytest.mark.parametrize(
    'answer',
    [
        (502, {}),
        (503, {}),
        (504, {}),
        (408, {}),
        (500, {}),
        (429, {'Retry-After': '0'}),
        (503, {'Retry-After': 'Thu, 01 Jan 1970 00:00:00 GMT'}),
        (429, {'Retry-After': 'soon'}),
        'reset',
        'half',
        'chunk',
    ],
)
def test_asked_again(serve: typing.Callable[..., Server], answer: Answer) -> None:
    server = serve(answer)
    assert session()[0].get(server.url).json() is True
    assert len(server.asked) == 2


def test_as_long_as_it_asks_to_wait(serve: typing.Callable[..., Server]) -> None:
    server = serve((429, {'Retry-After': '1'}))
    began = time.monotonic()
    assert session()[0].get(server.url).json() is True
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize('asked', ['0', 'Thu, 01 Jan 1970 00:00:00 GMT'])
def test_pauses_where_it_asks_for_none(
    serve: typing.Callable[..., Server], asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(*[(429, {'Retry-After': asked})] * 4)
    pauses: list[float] = []
    monkeypatch.setattr(patience.tenacity, 'sleep_using_event', lambda _event: pauses.append)
    assert session()[0].get(server.url).json() is True
    assert len(pauses) == 4
    assert all(pauses)


def test_longer_than_there_is_time_for(serve: typing.Callable[..., Server]) -> None:
    server = serve((429, {'Retry-After': '3600'}))
    with pytest.raises(errors.NoAnswer, match=r'asks to wait 3600 s \(HTTP 429') as caught:
        session()[0].get(server.url)
    assert 'longer than this command waits (20 s)' in str(caught.value)
    assert len(server.asked) == 1


def test_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as placeholder:
        placeholder.bind(('127.0.0.1', 0))
        port = placeholder.getsockname()[1]

    def start() -> None:
        time.sleep(0.5)
        listening = socket.create_server(('127.0.0.1', port))
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue')
        connection.close()
        listening.close()

    thread = threading.Thread(target=start)
    thread.start()
    with caplog.at_level(logging.WARNING):
        assert session()[0].get(f'http://127.0.0.1:{port}').json() is True
    thread.join()
    told = [record.getMessage() for record in caplog.records if 'Cloud dst' in record.getMessage()]
    assert told == [
        'Cloud dst does not answer (Connection refused). Trying again, for 20 s at most.',
        'Cloud dst answers again.',
    ]


def test_one_budget_for_all_requests(serve: typing.Callable[..., Server]) -> None:
    server = serve(*[(502, {})] * 1000)
    made, _ = session(1)
    began = time.monotonic()
    for _number in range(20):
        with pytest.raises(
            errors.NoAnswer, match=r'did not answer for 1 s \(HTTP 502 Bad Gateway\)'
        ):
            made.get(server.url)
    assert time.monotonic() - began < 5


def test_until_a_deadline(serve: typing.Callable[..., Server]) -> None:
    server = serve(*[(502, {})] * 1000)
    made, waits = session(100)
    began = time.monotonic()
    with waits.until(began + 0.5), pytest.raises(errors.NoAnswer):
        made.get(server.url)
    assert time.monotonic() - began < 4


def test_a_cloud_that_takes_a_request_and_says_nothing(
    serve: typing.Callable[..., Server],
) -> None:
    server = serve(*['silence'] * 4)
    made, waits = session(100)
    began = time.monotonic()
    with waits.until(began + 0.1):
        with pytest.raises(errors.NoAnswer, match='no answer in time'):
            made.get(server.url)
        # What changes something is not repeated, and ends as well.
        with pytest.raises(keystone_exceptions.ConnectTimeout):
            made.post(server.url)
    assert time.monotonic() - began < 15
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ('allowed', 'expected'),
    [(None, 50), (5, 5), (90, 50), ((3, None), (3, 50)), ((90, 4), (50, 4))],
)
def test_no_request_is_given_more_than_is_left(allowed: object, expected: object) -> None:
    assert patience.Patience(50).time_for_one(allowed) == pytest.approx(expected, abs=1)


def test_what_changes_something_is_left_alone(serve: typing.Callable[..., Server]) -> None:
    server = serve((503, {}), (503, {}), 'reset', (502, {}))
    made, waits = session()
    for method in ('POST', 'DELETE'):
        assert made.request(server.url, method, raise_exc=False).status_code == 503
    with pytest.raises(keystone_exceptions.ConnectFailure):
        made.post(f'{server.url}/v3/backups/import_record')
    assert len(server.asked) == 3
    with waits.repeating():
        assert made.post(server.url).json() is True
    server.answers = [(502, {})]
    assert made.post(f'{server.url}/v3/auth/tokens').json() is True


def test_how_long_an_import_is_asked_to_wait_is_known(
    serve: typing.Callable[..., Server],
) -> None:
    """cinderclient leaves the headers out of what it raises."""
    server = serve((429, {'Retry-After': '3600'}), (429, {}))
    made, _ = session()
    for expected in (3600, None):
        assert made.post(server.url, raise_exc=False).status_code == 429
        assert patience.asked_to_wait() == expected


@pytest.mark.parametrize('status', [400, 401, 403, 404, 409, 413])
def test_an_answer_is_an_answer(serve: typing.Callable[..., Server], status: int) -> None:
    server = serve((status, {}))
    assert session()[0].get(server.url, raise_exc=False).status_code == status
    assert len(server.asked) == 1


def test_an_error_inside_is_tried_a_few_times(serve: typing.Callable[..., Server]) -> None:
    server = serve(*[(500, {})] * 1000)
    assert session()[0].get(server.url, raise_exc=False).status_code == 500
    assert len(server.asked) == 3


@pytest.mark.parametrize('url', ['http://nowhere.invalid', 'https://127.0.0.1'])
def test_what_cannot_pass(serve: typing.Callable[..., Server], url: str) -> None:
    server = serve()
    if url.startswith('https'):  # and the other side does not speak TLS
        url = server.url.replace('http:', 'https:')
    began = time.monotonic()
    with pytest.raises(keystone_exceptions.ConnectionError):
        session()[0].get(url)
    assert time.monotonic() - began < 5


def test_stopped_while_it_waits(serve: typing.Callable[..., Server]) -> None:
    server = serve(*[(429, {'Retry-After': '15'})] * 9)
    timer = threading.Timer(0.3, patience.stop_waiting)
    made, _ = session()
    timer.start()
    began = time.monotonic()
    with pytest.raises(errors.NoAnswer):
        made.get(server.url)
    assert time.monotonic() - began < 5


def test_attached_twice_asks_once(serve: typing.Callable[..., Server]) -> None:
    server = serve(*[(500, {})] * 1000)
    made, waits = session()
    waits.attach(made)
    made.get(server.url, raise_exc=False)
    assert len(server.asked) == 3


def test_a_reason_has_no_address_in_it() -> None:
    error = OSError('<urllib3.connection.HTTPConnection object at 0x7f001122>: no way')
    assert patience.reason(error) == 'no way'
