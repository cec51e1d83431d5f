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

import json
import pathlib
import stat

import pytest

from osc_backup_port import errors
from osc_backup_port.formats import record_file
from osc_backup_port.records import export_records, selection
from tests.unit import records
from tests.unit.fake_cinder import FakeCinder, make_chain


def export(
    cinder: FakeCinder, wanted: selection.Selection, path: pathlib.Path, directory: bool = True
) -> tuple[dict[str, str], list[str]]:
    """Return the result of each backup by its id, and the failures."""
    options = export_records.Options(
        wanted,
        **{'directory' if directory else 'file': path},  # type: ignore[arg-type]
    )
    plan = export_records.plan(cinder, options)
    results = export_records.run(cinder, plan, options)
    failures = [*plan.failures, *(item.error for item in results if item.error)]
    return {item.backup.id: item.result for item in results}, [str(item) for item in failures]


def test_all(tmp_path: pathlib.Path) -> None:
    chain = make_chain(20)
    results, failures = export(
        FakeCinder(*chain), selection.Selection(everything=True), tmp_path / 'a' / 'b'
    )
    assert failures == []
    assert results == {item.id: 'written' for item in chain}
    for item in chain:
        path = tmp_path / 'a' / 'b' / f'{item.id}.json'
        assert record_file.read_records(path.read_bytes(), 'x') == [item]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / 'a' / 'b').stat().st_mode) == 0o700


def test_again(tmp_path: pathlib.Path) -> None:
    old = records.make_record()
    path = tmp_path / 'x.json'
    wanted = selection.Selection([records.ID])
    assert export(FakeCinder(old), wanted, path, False)[0] == {records.ID: 'written'}
    before = path.read_bytes()
    moved = records.make_record(updated_at='2026-12-01T00:00:00Z')
    assert export(FakeCinder(moved), wanted, path, False)[0] == {records.ID: 'unchanged'}
    assert path.read_bytes() == before
    newer = records.make_record(num_dependent_backups=2)
    assert export(FakeCinder(newer), wanted, path, False)[0] == {records.ID: 'replaced'}
    assert json.loads(path.read_text())['backup']['num_dependent_backups'] == 2


@pytest.mark.parametrize(
    'content', ['mine', record_file.write_record(records.make_record(id=records.OTHER_ID))]
)
def test_what_is_no_record_of_it_is_kept(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / 'x.json'
    path.write_text(content)
    results, failures = export(
        FakeCinder(records.make_record()), selection.Selection([records.ID]), path, False
    )
    assert results == {records.ID: 'failed'}
    assert 'is not a record of backup' in failures[0]
    assert path.read_text() == content
    assert [item.name for item in tmp_path.iterdir()] == ['x.json']


def test_bad_ones_stop_no_other(tmp_path: pathlib.Path) -> None:
    chain = make_chain(3)
    cinder = FakeCinder(*chain)
    cinder.add(chain[1], status='restoring')
    names = [chain[0].id, records.ID, chain[1].id, 'night-3', chain[2].id]
    results, failures = export(cinder, selection.Selection(names), tmp_path)
    assert results == {
        chain[0].id: 'written',
        chain[1].id: 'failed',
        chain[2].id: 'written',
    }
    assert len(failures) == 2
    assert records.ID in failures[0]
    assert 'restoring' in failures[1]


def test_what_is_no_backup_is_skipped_unless_named(tmp_path: pathlib.Path) -> None:
    cinder = FakeCinder(records.make_record())
    cinder.add(records.make_record(id=records.OTHER_ID), status='error')
    cinder.leave_placeholder(records.THIRD_ID, 'creating')
    results, failures = export(cinder, selection.Selection(everything=True), tmp_path)
    assert failures == []
    assert results == {
        records.ID: 'written',
        records.OTHER_ID: 'skipped: error',
        records.THIRD_ID: 'skipped: creating',
    }
    results, failures = export(cinder, selection.Selection([records.OTHER_ID]), tmp_path)
    assert results == {records.OTHER_ID: 'failed'}
    assert len(failures) == 1


def test_of_a_volume(tmp_path: pathlib.Path) -> None:
    other = records.make_record(id=records.OTHER_ID, volume_id=records.THIRD_ID)
    cinder = FakeCinder(records.make_record(), other)
    wanted = selection.Selection(volume=records.THIRD_ID)
    assert export(cinder, wanted, tmp_path)[0] == {records.OTHER_ID: 'written'}
    with pytest.raises(errors.NotFound, match='no backups of volume'):
        export(cinder, selection.Selection(volume=records.OTHER_ID), tmp_path)


def test_not_permitted_ends_it(tmp_path: pathlib.Path) -> None:
    cinder = FakeCinder(*make_chain(30))
    cinder.refuse['export_record'] = errors.NotPermitted('no admin')
    with pytest.raises(errors.NotPermitted):
        export(cinder, selection.Selection(everything=True), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='file'):
        export(FakeCinder(*make_chain(1)), selection.Selection(everything=True), tmp_path / 'file')


def test_file_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path, tmp_path / 'no' / 'x.json'):
        results, failures = export(
            FakeCinder(records.make_record()), selection.Selection([records.ID]), path, False
        )
        assert results == {records.ID: 'failed'}
        assert failures[0].startswith(str(path))


@pytest.mark.parametrize(
    'options',
    [
        export_records.Options(selection.Selection()),
        export_records.Options(selection.Selection(['a'], everything=True)),
        export_records.Options(selection.Selection(['a'], volume='v')),
        export_records.Options(selection.Selection(['a', 'b'])),
        export_records.Options(selection.Selection(everything=True), file=pathlib.Path('x')),
        export_records.Options(selection.Selection(['a']), pathlib.Path('x'), pathlib.Path('y')),
    ],
)
def test_options_that_do_not_go_together(options: export_records.Options) -> None:
    with pytest.raises(errors.InvalidInput):
        options.check()
