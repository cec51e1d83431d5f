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

"""Pipes that carry much at once, and pause."""

import fcntl
import io
import os
import pathlib
import tarfile
import threading
import time
from collections.abc import Iterator

import pytest

from osc_backup_port import pipes, units
from osc_backup_port.archive import tar_stream
from osc_backup_port.formats import stream


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    source, sink = os.pipe()
    with io.FileIO(source) as reading, io.FileIO(sink, 'w') as writing:
        yield reading, writing


def capacity(file: io.FileIO) -> int:
    return fcntl.fcntl(file, fcntl.F_GETPIPE_SZ)


def test_a_pipe_holds_a_mib(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    assert capacity(pipe[0]) < units.MIB

    assert pipes.widen(pipe[0])

    assert capacity(pipe[1]) == units.MIB


def test_either_end_of_a_stream_widens_it(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    stream.Writer(pipe[1])

    assert capacity(pipe[0]) == units.MIB


def test_a_pipe_that_cannot_grow_is_used_as_it_is(
    pipe: tuple[io.FileIO, io.FileIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, command: int, size: int) -> int:
        raise PermissionError(1, 'more than pipe-max-size')

    monkeypatch.setattr(fcntl, 'fcntl', refuse)

    assert pipes.widen(pipe[0])


def test_files_are_left_alone(tmp_path: pathlib.Path) -> None:
    with (tmp_path / 'file').open('wb', buffering=0) as file:
        assert not pipes.widen(file)
    assert not pipes.widen(io.BytesIO())  # type: ignore[arg-type]


def test_large_and_small_reads_of_a_pipe_follow_each_other(
    pipe: tuple[io.FileIO, io.FileIO],
) -> None:
    content = os.urandom(300 * units.KIB)
    pipes.widen(pipe[1])
    pipe[1].write(content)
    pipe[1].close()
    reader = stream.Reader(pipe[0], 'the-stream')
    head = reader.peek(16)

    pieces = [reader.read(count) for count in (1, 20, 200 * units.KIB, 3, 2 * units.MIB)]

    assert head == content[:16]
    assert b''.join(pieces) == content
    assert not reader.read(1)


def test_a_pause_of_a_pipe_that_does_not_wait_is_not_its_end(
    pipe: tuple[io.FileIO, io.FileIO],
) -> None:
    """An ssh at the other end makes it so."""
    os.set_blocking(pipe[0].fileno(), False)
    content = os.urandom(5000)

    def feed() -> None:
        for at in range(0, len(content), 1000):
            time.sleep(0.02)
            pipe[1].write(content[at : at + 1000])
        pipe[1].close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    reader = stream.Reader(pipe[0], 'stdin')
    assert reader.peek(16) == content[:16]
    assert reader.read_exactly(4000) + reader.read(4000) == content
    reader.expect_end()
    feeder.join()


def test_what_a_full_pipe_does_not_take_is_written_later(
    pipe: tuple[io.FileIO, io.FileIO],
) -> None:
    os.set_blocking(pipe[1].fileno(), False)
    content = os.urandom(3 * units.MIB)
    found: list[bytes] = []

    def read() -> None:
        while data := pipe[0].read(units.MIB):
            time.sleep(0.02)
            found.append(data)

    reading = threading.Thread(target=read)
    reading.start()
    stream.Writer(pipe[1]).write(content)
    pipe[1].close()
    reading.join()
    assert b''.join(found) == content


def test_a_tar_stream_through_pipes_that_do_not_wait(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    for end in pipe:
        os.set_blocking(end.fileno(), False)
    content = os.urandom(3 * units.MIB)

    def write() -> None:
        output = tar_stream.Output(pipe[1])
        time.sleep(0.05)
        output.put('file', content)
        output.close()
        pipe[1].close()

    writing = threading.Thread(target=write)
    writing.start()
    patient = pipes.patient(pipe[0])
    with tarfile.open(fileobj=io.BufferedReader(patient), mode='r|') as tar:
        member = tar.next()
        assert member is not None
        file = tar.extractfile(member)
        assert file is not None
        assert file.read() == content
        assert tar.next() is None
    writing.join()
