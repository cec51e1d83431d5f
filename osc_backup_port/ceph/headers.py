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

"""What images say of themselves, asked of their objects without opening the images.

librbd asks a dozen questions to open an image, one after the other: where the cluster is far
away, each of them takes as long as reading an object.  The same objects answer here to what is
wanted alone, of several images, or of all snapshots of one, side by side.

Images of format 1, which have no such objects, have to be opened.
"""

import contextlib
import errno
import queue
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from osc_backup_port import model
from osc_backup_port.ceph import encoding, object_maps

#: What Ceph calls the image as it is now, where it wants the id of a snapshot.
HEAD = (1 << 64) - 2
#: Bytes that an answer has at most; of the ids of all snapshots: of 100,000 of them.
_SMALL, _LARGE = 16 << 10, 1 << 20
#: The answer of what is not there, or to what only some images know.
_ABSENT = (errno.ENOENT, errno.ENOEXEC)
#: The same, and of a map that the cluster itself cannot read, or that is too large.
_UNTRUSTED = (*_ABSENT, errno.EINVAL, errno.EIO, errno.EBADMSG, errno.ERANGE)


class OddAnswer(Exception):
    """An object answers in a way that is not understood here: librbd may."""


class Found(NamedTuple):
    """Whether there is an image of a name.

    :param id: what its objects are called after; None: none of format 2
    :param is_old: there is one of format 1
    """

    id: str | None
    is_old: bool


class Making(NamedTuple):
    """How an image was made.

    :param data_pool: the number of the pool with its data; -1: the pool itself
    :param striping: unit and count; (0, 1): none of its own
    """

    features: int
    striping: tuple[int, int]
    data_pool: int


class _Question(NamedTuple):
    """To an object; without a method: whether it is there."""

    object: str
    method: str = ''
    data: bytes = b''
    length: int = _SMALL


class Headers:
    """Asks in one pool; every method raises the errors of librados, or ``OddAnswer``."""

    def __init__(self, ioctx: Any, rados: Any) -> None:
        self._ioctx = ioctx
        self._rados = rados

    def are_there(self, objects: Sequence[str]) -> list[bool]:
        """Tell of each object whether it is there.  One round trip."""
        return [answer is not None for answer in self._ask([_Question(one) for one in objects])]

    def find(self, names: Sequence[str]) -> list[Found]:
        """Look for each image.  One round trip."""
        questions = [_Question(f'rbd_id.{name}', 'get_id') for name in names]
        answers = self._ask(questions + [_Question(f'{name}.rbd') for name in names])
        pairs = zip(answers[: len(names)], answers[len(names) :], strict=True)
        with _understood():
            return [Found(id_.text() if id_ else None, old is not None) for id_, old in pairs]

    def snapshots(self, ids: Sequence[str]) -> list[list[model.Snapshot]]:
        """Return the snapshots of each image, in the order in which they were made.

        Two round trips.
        """
        wanted = [_Question(_header(id_), 'get_snapcontext', b'', _LARGE) for id_ in ids]
        with _understood():
            numbers = [self._numbers(answer) for answer in self._ask(wanted, ())]
        each = [
            _Question(_header(id_), 'snapshot_get', encoding.number(number))
            for id_, some in zip(ids, numbers, strict=True)
            for number in some
        ]
        answers = iter(self._ask(each))
        with _understood():
            # One that is gone was removed between the two questions.
            return [
                sorted(
                    self._snapshot(answer)
                    for answer in (next(answers) for _ in some)
                    if answer is not None
                )
                for some in numbers
            ]

    @staticmethod
    def _numbers(answer: encoding.Reader | None) -> list[int]:
        if answer is None:
            return []
        answer.number()
        return [answer.number() for _ in range(answer.count())]

    @staticmethod
    def _snapshot(answer: encoding.Reader) -> model.Snapshot:
        answer.enter()
        number = answer.number()
        answer.skip()
        name = answer.text()
        return model.Snapshot(number, name, answer.number())

    def makings(self, ids: Sequence[str]) -> list[Making]:
        """Return how each image was made.  One round trip."""
        questions = []
        for header in map(_header, ids):
            questions += [
                _Question(header, 'get_features', encoding.number(HEAD) + b'\1'),
                _Question(header, 'get_stripe_unit_count'),
                _Question(header, 'get_data_pool'),
            ]
        answers = self._ask(questions)
        found = []
        with _understood():
            for number in range(0, len(answers), 3):
                features, striping, data_pool = answers[number : number + 3]
                if features is None:
                    raise self._error(-errno.ENOENT, questions[number].object)
                found.append(
                    Making(
                        features.number(),
                        (striping.number(), striping.number()) if striping else (0, 1),
                        data_pool.signed() if data_pool else -1,
                    )
                )
        return found

    def object_maps(
        self, id_: str, points: Sequence[int], objects: int
    ) -> list[object_maps.ObjectMap] | None:
        """Return the map of an image at each point in time; None: not all can be trusted.

        One round trip.

        :param points: ids of snapshots, or ``HEAD``
        :param objects: that the image has; with twice as many the answer is None
        """
        length = _SMALL + objects // 2
        questions = []
        for point in points:
            name = f'rbd_object_map.{id_}' + (f'.{point:016x}' if point != HEAD else '')
            questions += [
                _Question(name, 'object_map_load', b'', length),
                _Question(_header(id_), 'get_flags', encoding.number(point)),
            ]
        answers = self._ask(questions, _UNTRUSTED)
        with _understood():
            flags = [answer.number() for answer in answers[1::2] if answer]
            loaded = [object_maps.ObjectMap(answer) for answer in answers[::2] if answer]
        return loaded if len(loaded) == len(points) and flags == [0] * len(points) else None

    def note(self, id_: str, key: str) -> str | None:
        """Return what is noted on an image; None: nothing.  One round trip."""
        [answer] = self._ask([_Question(_header(id_), 'metadata_get', encoding.text(key))])
        with _understood():
            return None if answer is None else answer.text()

    def set_note(self, id_: str, key: str, value: str | None) -> None:
        """Note something on an image, or take it away.  One round trip.

        Nobody is told of it: who has the image open need not look at it anew.
        """
        with self._rados.WriteOpCtx() as operation:
            if value is None:
                operation.execute('rbd', 'metadata_remove', encoding.text(key))
            else:
                pair = encoding.text(key) + encoding.text(value)
                operation.execute('rbd', 'metadata_set', struct.pack('<I', 1) + pair)
            try:
                self._ioctx.operate_write_op(operation, _header(id_))
            except self._rados.ObjectNotFound:
                if value is not None:
                    raise

    def _ask(
        self, questions: Sequence[_Question], absent: Collection[int] = _ABSENT
    ) -> list[encoding.Reader | None]:
        """Ask all at once; None: the object, or what is asked for, is not there.

        :param absent: what says so; all else that is not an answer is an error
        """
        answers: queue.SimpleQueue[tuple[int, int, Any]] = queue.SimpleQueue()
        for number, asked in enumerate(questions):

            def keep(completion: Any, data: Any, *_more: object, number: int = number) -> None:
                answers.put((number, completion.get_return_value(), data))

            if asked.method:
                more = (asked.method, asked.data, asked.length, keep)
                self._ioctx.aio_execute(asked.object, 'rbd', *more)
            else:
                self._ioctx.aio_stat(asked.object, keep)
        found: list[encoding.Reader | None] = [None] * len(questions)
        for _ in questions:
            number, code, data = answers.get()
            if -code not in absent:
                if code < 0:
                    raise self._error(code, questions[number].object)
                found[number] = encoding.Reader(data if isinstance(data, bytes) else b'')
        return found

    def _error(self, code: int, name: str) -> Exception:
        kind = self._rados.ObjectNotFound if code == -errno.ENOENT else self._rados.OSError
        error: Exception = kind(f'Failed to ask {name}', -code)
        return error


def _header(id_: str) -> str:
    return f'rbd_header.{id_}'


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (struct.error, ValueError) as error:
        raise OddAnswer(str(error)) from error
