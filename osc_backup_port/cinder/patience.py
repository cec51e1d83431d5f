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

"""Ask again, for a while, where a cloud does not answer.

A load balancer answers 502, 503 or 504 while a service restarts behind it, and 429 when it is
asked too often; connections are refused, reset, or end within an answer.  What may be
repeated is repeated here, below keystoneauth, so that every request has the same patience:
those to Block Storage, those to Keystone, and the next token.
"""

import collections.abc
import contextlib
import http.client
import logging
import re
import socket
import ssl
import threading
import time
import typing
import urllib.parse

import requests
import tenacity
from urllib3.util import retry as urllib3_retry

from osc_backup_port import errors

LOG = logging.getLogger(__name__)

#: Seconds that a cloud may be silent, for commands that have no ``--timeout``.
DEFAULT = 300.0

#: Answers of what stands before a service, or of a service that has no time.
BUSY = frozenset({408, 429, 502, 503, 504})
# Seconds: the longest pause that nobody asked for, and between two lines of how it goes.
_LONGEST_PAUSE = 5.0
_TELL_EVERY = 10.0
# Seconds that any request is given, however little is left.
_LEAST_TIME = 2.0
# An error inside of the service may pass, for instance while its database moves to another
# host.  More often it is one for good, so the tries are few.
_TRIES_OF_500 = 3

_AGAIN = 'Run the same command again when the cloud answers: completed work is kept.'
_ADDRESS = re.compile(r'<[^<>]* object at 0x[0-9a-f]+>:? ?')

# Set while a command is being stopped: nobody waits any more then.
_stopping = threading.Event()


def stop_waiting() -> None:
    """Let every request that is being repeated, in any thread, give up now."""
    _stopping.set()


# What the last answer to this thread asked for.
_answered = threading.local()


def asked_to_wait() -> float | None:
    """Return the seconds that the last answer asked this thread to wait; None: it did not.

    For what cinderclient tells of an answer: it leaves out the headers.
    """
    return getattr(_answered, 'retry_after', None)


class _NotNow(Exception):
    """A request was not answered, and may be repeated."""

    def __init__(
        self, reason: str, answer: requests.Response | None = None, asked: str = ''
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer
        self.asked = asked
        self.retry_after = retry_after(answer)


class Patience:
    """How long one cloud may be silent.

    It counts for all requests together: where the cloud is gone for good, hundreds of
    requests give up after that time, and not each after it.  Any answer ends the silence.
    Several threads may use it at once.

    :ivar seconds: how long
    """

    def __init__(self, seconds: float = DEFAULT, cloud: str = 'the cloud') -> None:
        """Begin anew.

        :param cloud: what messages call it
        """
        self.seconds = seconds
        self._cloud = cloud
        self._called = f'{cloud[:1].upper()}{cloud[1:]}'
        self._silent_since: float | None = None
        self._told = 0.0
        self._lock = threading.Lock()
        self._scope = threading.local()
        _stopping.clear()

    def attach(self, session: typing.Any) -> None:
        """Give every request of a session this patience.

        :param session: of keystoneauth
        """
        for prefix, adapter in list(session.session.adapters.items()):
            inner = adapter.inner if isinstance(adapter, _PatientAdapter) else adapter
            session.session.mount(prefix, _PatientAdapter(inner, self))

    @contextlib.contextmanager
    def until(self, deadline: float) -> collections.abc.Iterator[None]:
        """Let the requests of this thread give up at *deadline*, of the monotonic clock."""
        self._scope.deadline = deadline
        try:
            yield
        finally:
            del self._scope.deadline

    @contextlib.contextmanager
    def repeating(self) -> collections.abc.Iterator[None]:
        """Say that every request of this thread may be repeated, whatever its method."""
        self._scope.repeats = True
        try:
            yield
        finally:
            del self._scope.repeats

    def may_repeat(self, request: requests.PreparedRequest) -> bool:
        """Tell whether a request changes nothing, however often it is made."""
        if request.method in ('GET', 'HEAD', 'OPTIONS'):
            return True
        path = urllib.parse.urlsplit(request.url or '').path
        if request.method == 'POST' and str(path).endswith('/auth/tokens'):
            return True
        return bool(getattr(self._scope, 'repeats', False))

    def time_for_one(self, allowed: typing.Any = None) -> typing.Any:
        """Return how long a request may be without an answer: what is left, in seconds.

        :param allowed: how long it may without us, as ``requests`` takes it
        """
        left = max(self._left(time.monotonic()), _LEAST_TIME)
        if allowed is None:
            return left
        if isinstance(allowed, tuple):
            return tuple(left if one is None else min(one, left) for one in allowed)
        return min(allowed, left)

    def ask(self, request: collections.abc.Callable[[], requests.Response]) -> requests.Response:
        """Make a request, until it is answered or the cloud was silent for too long.

        :param request: raises ``_NotNow`` where it was not answered
        :raises errors.NoAnswer: the time is over
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_NotNow),
            wait=self._pause,
            stop=self._is_over,
            before_sleep=self._tell,
            sleep=tenacity.sleep_using_event(_stopping),
            reraise=True,
        )
        try:
            answer: requests.Response = retrying(request)
        except _NotNow as error:
            if error.answer is not None and error.answer.status_code == 500:
                return error.answer
            raise self._gave_up(error) from error
        with self._lock:
            was_told, self._silent_since, self._told = self._told, None, 0.0
        if was_told:
            LOG.warning('%s answers again.', self._called)
        return answer

    def _pause(self, state: tenacity.RetryCallState) -> float:
        asked = _not_now(state).retry_after
        # No time at all, or one that is over by our clock: the pause is ours to choose.
        if asked:
            return asked
        pause = tenacity.wait_random_exponential(multiplier=0.25, max=_LONGEST_PAUSE)(state)
        return max(min(pause, self._left(state.start_time)), 0)

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        error = _not_now(state)
        if error.answer is not None and error.answer.status_code == 500:
            return state.attempt_number >= _TRIES_OF_500
        with self._lock:
            if self._silent_since is None:
                self._silent_since = state.start_time
        left = self._left(state.start_time)
        return _stopping.is_set() or left <= 0 or left < (error.retry_after or 0)

    def _left(self, began: float) -> float:
        """Return the seconds until a request, which may be an old one, has to give up."""
        since = self._silent_since
        if since is not None:
            began = min(since, began)
        deadline = getattr(self._scope, 'deadline', float('inf'))
        return float(min(began + self.seconds, deadline)) - time.monotonic()

    def _tell(self, state: tenacity.RetryCallState) -> None:
        error = _not_now(state)
        LOG.info(
            '%s: %s: try %d: %s%s. Again in %.1f s.',
            self._called,
            error.asked,
            state.attempt_number,
            error.reason,
            _request_id(error.answer),
            state.next_action.sleep if state.next_action else 0,
        )
        now = time.monotonic()
        with self._lock:
            if self._told and now < self._told + _TELL_EVERY:
                return
            self._told = now
        LOG.warning(
            '%s does not answer (%s). Trying again, for %.0f s at most.',
            self._called,
            error.reason,
            max(self._left(state.start_time), 0),
        )

    def _gave_up(self, error: _NotNow) -> errors.NoAnswer:
        if error.retry_after is not None and error.retry_after > 0 and not _stopping.is_set():
            return errors.NoAnswer(
                f'{self._cloud} asks to wait {error.retry_after:.0f} s ({error.reason}), longer '
                f'than this command waits ({self.seconds:.0f} s).',
                _AGAIN,
            )
        return errors.NoAnswer(
            f'{self._cloud} did not answer for {self.seconds:.0f} s ({error.reason}).',
            'Look at auth_url in clouds.yaml, and at the endpoints: openstack catalog list. '
            f'{_AGAIN}',
        )


class _PatientAdapter(requests.adapters.BaseAdapter):
    """Stands before the adapter that makes the connections."""

    def __init__(self, inner: requests.adapters.BaseAdapter, patience: Patience) -> None:
        super().__init__()
        self.inner = inner
        self._patience = patience

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: typing.Any = None,
        *args: typing.Any,
        **kwargs: typing.Any,
    ) -> requests.Response:
        def send() -> requests.Response:
            left = self._patience.time_for_one(timeout)
            _answered.retry_after = None
            answer = self.inner.send(request, stream, left, *args, **kwargs)
            _answered.retry_after = retry_after(answer)
            return answer

        if not self._patience.may_repeat(request):
            return send()

        def once() -> requests.Response:
            try:
                answer = send()
                _read_whole(answer)
            except requests.exceptions.RequestException as error:
                if not _may_pass(error):
                    raise
                raise _NotNow(reason(error), asked=_told(request)) from error
            if _is_busy(answer):
                what = f'HTTP {answer.status_code} {answer.reason}'
                raise _NotNow(what, answer, _told(request))
            return answer

        return self._patience.ask(once)

    def close(self) -> None:
        self.inner.close()


def _told(request: requests.PreparedRequest) -> str:
    """Return what was asked of which host, without what may be secret in a URL."""
    parts = urllib.parse.urlsplit(request.url or '')
    return f'{request.method} {str(parts.netloc).rpartition("@")[2]}{parts.path!s}'


def _request_id(answer: requests.Response | None) -> str:
    """Return what finds the request in the log of the service, as the end of a reason."""
    number = answer.headers.get('x-openstack-request-id') if answer is not None else None
    return f' ({number})' if number else ''


def retry_after(answer: requests.Response | None) -> float | None:
    """Return the seconds that an answer asks to wait, None where it does not."""
    asked = answer.headers.get('Retry-After') if answer is not None else None
    if not asked:
        return None
    try:
        return float(urllib3_retry.Retry().parse_retry_after(asked))
    except Exception:  # what is no time says nothing
        return None


def reason(error: BaseException) -> str:
    """Return in a few words why a request failed, the same words for equal failures."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, http.client.RemoteDisconnected):
            return 'the connection was closed without an answer'
        if isinstance(cause, http.client.IncompleteRead):
            return 'the connection was closed within the answer'
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if any(isinstance(cause, requests.exceptions.Timeout) for cause in chain):
        return 'no answer in time'
    return _ADDRESS.sub('', str(chain[-1] if str(chain[-1]) else error))


def _not_now(state: tenacity.RetryCallState) -> _NotNow:
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, _NotNow) else _NotNow('?')


def _read_whole(answer: requests.Response) -> None:
    """Read an answer to its end, which urllib3 before version 2 does not look for."""
    read = len(answer.content)
    told = answer.headers.get('Content-Length', '')
    raw = getattr(answer.raw, 'tell', lambda: read)()
    if told.isdigit() and answer.request.method != 'HEAD' and raw < int(told):
        raise requests.exceptions.ChunkedEncodingError(http.client.IncompleteRead(b'', int(told)))


def _is_busy(answer: requests.Response) -> bool:
    if answer.status_code == 503 and b'could not be found' in answer.content:
        # Cinder itself: no service of a kind is up.  Only that service can end it.
        return False
    return answer.status_code in BUSY or answer.status_code == 500


def _may_pass(error: requests.exceptions.RequestException) -> bool:
    """Tell whether a request that failed may succeed when it is made again."""
    chain = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in chain):
        return any(isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError) for cause in chain)
    for cause in chain:
        if isinstance(cause, socket.gaierror):
            return cause.errno == socket.EAI_AGAIN
    return isinstance(
        error,
        requests.exceptions.ConnectionError
        | requests.exceptions.Timeout
        | requests.exceptions.ChunkedEncodingError
        | requests.exceptions.ContentDecodingError,
    )


def _causes(error: BaseException) -> collections.abc.Iterator[BaseException]:
    """Return an error, what it was made of, and what it was raised after."""
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [current.__cause__, current.__context__, getattr(current, 'reason', None)]
        waiting += [one for one in [*current.args, *inner] if isinstance(one, BaseException)]
