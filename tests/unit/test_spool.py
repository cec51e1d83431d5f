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

"""What is put aside comes back, and takes no memory."""

import concurrent.futures
import errno
import os
import pathlib
import tempfile
import tracemalloc

import pytest

from osc_backup_port import spool, units


@pytest.fixture(autouse=True)
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of its own for each test, in a folder of its own."""
    monkeypatch.setattr(spool, '_FILE', spool._File())
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))


@pytest.mark.parametrize('size', [0, 1, 4096, 4097, 100_000])
def test_it_comes_back(size: int) -> None:
    content = os.urandom(size)
    kept = spool.Spooled(content)
    assert len(kept) == size
    assert kept.read() == kept.read() == content
    assert kept.is_in_memory == (size <= 4096)
    assert kept == spool.Spooled(content)
    assert hash(kept) == hash(spool.Spooled(content))
    assert kept != spool.Spooled(content + b'x')


def test_it_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        kept = [spool.Spooled(bytes(units.MIB)) for _ in range(50)]
        assert tracemalloc.get_traced_memory()[0] < units.MIB
    finally:
        tracemalloc.stop()
    assert {one.read() for one in kept} == {bytes(units.MIB)}


def test_many_at_once() -> None:
    def keep(number: int) -> bool:
        content = b'%06d' % number * 1000
        return spool.Spooled(content).read() == content

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(keep, range(400)))


def test_the_file_has_no_name(tmp_path: pathlib.Path) -> None:
    kept = spool.Spooled(bytes(10_000))
    assert not list(tmp_path.iterdir())
    assert kept.read() == bytes(10_000)


def test_writes_that_take_a_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.pread
    monkeypatch.setattr(os, 'pwrite', lambda file, data, at: write(file, data[:999], at))
    monkeypatch.setattr(os, 'pread', lambda file, size, at: read(file, min(size, 999), at))
    contents = [os.urandom(10_000) for _ in range(3)]
    kept = [spool.Spooled(content) for content in contents]
    assert [one.read() for one in kept] == contents


def test_no_room(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = spool.Spooled(bytes(5000))
    write = os.pwrite

    def full(file: int, data: memoryview, at: int) -> int:
        if len(data) < 3000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:2000], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'pwrite', full)
        with pytest.raises(OSError, match='No space left') as caught:
            spool.Spooled(b'x' * 6000)
    assert caught.value.filename == str(tmp_path)
    assert 'export TMPDIR=' in str(caught.value)
    after = spool.Spooled(b'y' * 7000)
    assert (before.read(), after.read()) == (bytes(5000), b'y' * 7000)
