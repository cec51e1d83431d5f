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

"""The promise of 256 MiB, measured: the peak of a process, with inputs as large as they may be."""

import subprocess
import sys

import pytest

LIMIT = 256

COMMON = """
import hashlib, io, os, pathlib, sys, tarfile
import zstandard
from osc_backup_port import model, progress
from osc_backup_port.archive import manifest, names, store, tar_stream
from osc_backup_port.formats import rbd_diff, record_file
from osc_backup_port.operations import verify_archive
from tests.unit import chains, peak_memory
from tests.unit.chains import BASE, IDS
root = pathlib.Path(sys.argv[1])
"""

#: Segments as large as a reader accepts, of data that cannot be compressed.
MAKE = (
    COMMON
    + """
where, count, length, size = store.Folder(root), 3, 63 << 20, 1 << 30
now = '2026-01-01T00:00:00Z'
where.put('archive.json', manifest.encode_archive(manifest.Archive(IDS[4], now)))
where.put(f'{BASE}/image.json', manifest.encode_image(model.ImageLayout(size)))
record = record_file.write_record(chains.backup(0)).encode()
folder, found = f'{BASE}/0-{IDS[0]}', []
where.put(f'{folder}/record.json', record)
for number in range(count):
    item = model.Data(number << 26, os.urandom(length))
    raw = b''.join(b''.join(pieces) for pieces in rbd_diff.encode_items([item]))
    if number == 0:
        begin = model.Increment(None, chains.snapshot(0), size, iter(()))
        raw = rbd_diff.encode_header(begin) + raw
    if number == count - 1:
        raw += rbd_diff.END
    content, name = zstandard.compress(raw, 1), names.segment(number, True)
    where.put(f'{folder}/{name}', content)
    digest = hashlib.sha256(content).hexdigest()
    found.append(manifest.Segment(name, len(content), digest, len(raw)))
digest = hashlib.sha256(record).hexdigest()
increment = manifest.Increment(
    IDS[0], 0, None, chains.snapshot(0), size, tuple(found), digest, None, now
)
where.put(f'{folder}/increment.json', manifest.encode_increment(increment))
"""
)

TELL = """
print([verdict.result for verdict in verdicts])
print(peak_memory.mebibytes())
"""

FOLDER = (
    COMMON
    + 'verdicts = list(verify_archive.run(store.Folder(root), progress.Silent(), quick=False))\n'
    + TELL
)

STREAM = (
    COMMON
    + 'file = io.FileIO(sys.stdin.fileno(), closefd=False)\n'
    + 'source = tar_stream.Input(file)\n'
    + 'verdicts = list(verify_archive.run_stream(source, progress.Silent()))\n'
    + TELL
)


def run(program: str, root: str, source: 'subprocess.Popen[bytes] | None' = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, '-c', program, root],
        stdin=source.stdout if source else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope='module')
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp('large'))
    run(MAKE, root)
    return root


def test_the_largest_segments_of_a_folder(archive: str) -> None:
    verdict, peak = run(FOLDER, archive)
    assert verdict == "['good']"
    assert int(peak) < LIMIT


LARGEST_DOCUMENT = (
    COMMON
    + """
digest = hashlib.sha256(b'').hexdigest()
found = manifest.Segments()
for number in range(390_000):
    found.append(True, number, digest, number)
increment = manifest.Increment(
    IDS[0], 0, None, chains.snapshot(0), 1 << 50, found, digest, None, '2026-01-01T00:00:00Z'
)
content = manifest.encode_increment(increment)
print(len(content))
decoded = manifest.decode_increment(content, 'the document')
print(len(decoded.segments))
print(peak_memory.mebibytes())
"""
)


def test_the_largest_document() -> None:
    size, count, peak = run(LARGEST_DOCUMENT, '.')
    assert (60 << 20) < int(size) <= (64 << 20)
    assert count == '390000'
    assert int(peak) < LIMIT


def test_the_largest_segments_of_a_stream(archive: str) -> None:
    from tests.unit.chains import BASE, IDS

    folder = f'{BASE}/0-{IDS[0]}'
    inside = ['record.json', *(f'{number:05}.rbd-diff.zst' for number in range(3))]
    paths = [f'{folder}/{name}' for name in (*inside, 'increment.json')]
    command = ['tar', '-c', '-C', archive, '-f', '-', 'archive.json', f'{BASE}/image.json', *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
        verdict, peak = run(STREAM, archive, source)
    assert verdict == "['good']"
    assert int(peak) < LIMIT
