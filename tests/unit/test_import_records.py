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

import collections.abc
import concurrent.futures
import dataclasses
import itertools
import pathlib
import re
import typing
import uuid

import pytest

from osc_backup_port import errors
from osc_backup_port.cinder import resources
from osc_backup_port.formats import record_file
from osc_backup_port.record import BackupRecord
from osc_backup_port.records import import_one, import_records, read_records, rewriting
from tests.unit import records
from tests.unit.fake_cinder import FakeCinder, make_chain

REPLACE = import_records.Options(replace_failed=True)


def import_(
    cinder: FakeCinder,
    items: collections.abc.Iterable[BackupRecord],
    options: import_records.Options | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Return the result of each record by its id, and the failures."""
    options = options or import_records.Options()
    plan = import_records.plan(cinder, [('x.json', item) for item in items], options)
    steps = import_records.run(plan, options)
    return (
        {step.record.id: step.result for step in steps},
        [str(step.error) for step in steps if step.error],
    )


def test_parents_first_in_any_order() -> None:
    chain = make_chain(4)
    for order in itertools.permutations(chain):
        cinder = FakeCinder()
        assert import_(cinder, order) == ({item.id: 'imported' for item in chain}, [])
        assert cinder.calls == [('import', item.id) for item in chain]


def test_middle_alone() -> None:
    chain = make_chain()
    assert import_(FakeCinder(), chain[1:2]) == ({chain[1].id: 'imported'}, [])


def test_plan_changes_nothing() -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    steps = [('x', item) for item in [records.make_record(), *make_chain()]]
    generations = import_records.plan(cinder, steps, REPLACE).generations
    assert [len(steps) for steps in generations] == [2, 1, 1]
    assert generations[0][0].result == 'to be replaced'
    assert generations[0][1].result == 'to be imported'
    assert cinder.calls == []


def test_again_changes_nothing() -> None:
    chain = make_chain()
    cinder = FakeCinder(*chain)
    assert import_(cinder, chain) == ({item.id: 'already there' for item in chain}, [])
    assert cinder.calls == []


def test_rest_of_a_chain() -> None:
    chain = make_chain()
    cinder = FakeCinder(chain[0])
    results, failures = import_(cinder, chain)
    assert list(results.values()) == ['already there', 'imported', 'imported']
    assert failures == []


def test_each_others_parents() -> None:
    first = records.make_record(parent_id=records.OTHER_ID)
    second = records.make_record(id=records.OTHER_ID, parent_id=records.ID)
    with pytest.raises(errors.InvalidRecord, match="each other's parents"):
        import_(FakeCinder(), [first, second])
    with pytest.raises(errors.InvalidRecord, match="each other's parents"):
        import_(FakeCinder(), [records.make_record(parent_id=records.ID)])


FOREIGN = f'volume-{records.OTHER_ID}.backup.{records.THIRD_ID}'


@pytest.mark.parametrize(
    'name', [FOREIGN, 'x', f'x{FOREIGN}', f'volume-{records.VOLUME_ID}.backup.', 'a/../b']
)
def test_an_image_of_another_volume(name: str) -> None:
    """A restore would give away what is there, and a deletion could delete it."""
    evil = records.make_record(service_metadata=f'{{"base": "{name}"}}')
    cinder = FakeCinder()
    with pytest.raises(errors.SomeFailed, match='--allow-foreign-image'):
        import_(cinder, [evil])
    assert not cinder.calls
    options = import_records.Options(allow_foreign_image=True)
    assert import_(cinder, [evil], options) == ({records.ID: 'imported'}, [])


def test_what_is_there_names_another_image() -> None:
    """A chain that was moved by hand: Cinder would restore the newest bytes for every backup."""
    legacy = f'volume-{records.VOLUME_ID}.backup.base'
    cinder = FakeCinder(records.make_record())
    wanted = records.make_record(service_metadata=f'{{"base": "{legacy}"}}')
    results, [failure] = import_(cinder, [wanted])
    assert results == {records.ID: 'failed'}
    assert f'names image volume-{records.VOLUME_ID}.backup.{records.ID}; expected' in failure
    assert f'rename {legacy} ' in failure
    # An old layout names none, and Cinder finds it.
    cinder = FakeCinder(records.make_record(service_metadata=None))
    assert import_(cinder, [wanted]) == ({records.ID: 'already there'}, [])


@pytest.mark.parametrize('is_there', [True, False])
def test_the_parent_is_of_another_volume(is_there: bool) -> None:
    """Where a record names no image, Cinder takes that of its parent."""
    parent = records.make_record(
        id=records.THIRD_ID,
        volume_id=records.OTHER_ID,
        service_metadata=f'{{"base": "{FOREIGN}"}}',
    )
    child = records.make_record(service_metadata=None, parent_id=records.THIRD_ID)
    cinder = FakeCinder(*[parent] * is_there)
    with pytest.raises(errors.SomeFailed, match='--allow-foreign-image'):
        import_(cinder, [child] if is_there else [parent, child])
    assert not cinder.calls
    # What names its own image has nothing of its parent.
    named = records.make_record(parent_id=records.THIRD_ID)
    assert import_(cinder, [named]) == ({records.ID: 'imported'}, [])


def test_pool() -> None:
    swift = 'cinder.backup.drivers.swift.SwiftBackupDriver'
    other = records.make_record(swift, id=records.OTHER_ID, service=swift)
    cinder = FakeCinder()
    options = import_records.Options(changes=rewriting.Rewriting('cinder.backups'))
    import_(cinder, [records.make_record(), other], options)
    assert cinder.get(records.ID).container == 'cinder.backups'
    assert cinder.get(records.OTHER_ID).container == 'backups'
    assert import_(cinder, [records.make_record()], options)[1] == []


def test_there_in_another_pool() -> None:
    cinder = FakeCinder(records.make_record())
    options = import_records.Options(changes=rewriting.Rewriting('cinder.backups'))
    results, failures = import_(cinder, [records.make_record()], options)
    assert results == {records.ID: 'failed'}
    assert "the pool 'backups', expected 'cinder.backups'" in failures[0]


@pytest.mark.parametrize('changes', [{'size': 2}, {'volume_id': records.OTHER_ID}])
def test_another_backup_with_this_id(changes: dict[str, typing.Any]) -> None:
    cinder = FakeCinder(records.make_record(**changes))
    results, failures = import_(cinder, [records.make_record()], REPLACE)
    assert results == {records.ID: 'failed'}
    assert 'another backup has this id here' in failures[0]
    assert cinder.calls == []


@pytest.mark.parametrize('status', ['error', 'error_deleting', 'creating', 'deleting'])
def test_backup_with_this_id_is_not_available(status: str) -> None:
    cinder = FakeCinder()
    cinder.add(records.make_record(), status=status)
    results, failures = import_(cinder, [records.make_record()], REPLACE)
    assert results == {records.ID: 'failed'}
    assert f'the status {status!r}' in failures[0]
    assert cinder.calls == []


def test_backup_that_is_being_restored_is_there() -> None:
    cinder = FakeCinder()
    cinder.add(records.make_record(), status='restoring')
    assert import_(cinder, [records.make_record()]) == ({records.ID: 'already there'}, [])


def test_failed_import_is_explained_and_replaced_when_asked() -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    results, failures = import_(cinder, [records.make_record()])
    assert results == {records.ID: 'failed'}
    assert 'no such driver' in failures[0]
    assert '--replace-failed' in failures[0]
    assert cinder.calls == []
    assert import_(cinder, [records.make_record()], REPLACE) == ({records.ID: 'replaced'}, [])
    assert cinder.calls == [('delete', records.ID), ('import', records.ID)]


@pytest.mark.parametrize(
    'what', [{'size': 1}, {'container': 'backups'}, {'availability_zone': 'nova'}, {'name': 'n'}]
)
def test_row_that_may_name_data_is_never_deleted(what: dict[str, typing.Any]) -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    row = cinder.rows[records.ID]
    row.shown = dataclasses.replace(row.shown, **what)
    results, failures = import_(cinder, [records.make_record()], REPLACE)
    assert results == {records.ID: 'failed'}
    assert 'it was not touched' in failures[0]
    assert ' rename ' in failures[0]
    assert cinder.calls == []


def test_way_out_for_other_drivers_is_not_about_rbd() -> None:
    swift = 'cinder.backup.drivers.swift.SwiftBackupDriver'
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    row = cinder.rows[records.ID]
    row.shown = dataclasses.replace(row.shown, size=1)
    _, failures = import_(cinder, [records.make_record(swift, service=swift)])
    assert 'rbd' not in failures[0]


class BackupAppears(FakeCinder):
    """Another run imports the backup between our first look and our delete."""

    looks = 0

    def get(self, backup_id: str) -> typing.Any:
        self.looks += 1
        if self.looks == 2:
            self.add(records.make_record())
        return super().get(backup_id)


def test_backup_that_appeared_meanwhile_is_not_deleted() -> None:
    cinder = BackupAppears()
    cinder.leave_placeholder(records.ID)
    assert import_(cinder, [records.make_record()], REPLACE) == ({records.ID: 'already there'}, [])
    assert cinder.calls == []


class PlaceholderGoes(FakeCinder):
    """Another run deletes the leftover before we do."""

    looks = 0

    def get(self, backup_id: str) -> typing.Any:
        self.looks += 1
        if self.looks == 2:
            self.rows[backup_id].deleted = True
        return super().get(backup_id)


def test_leftover_that_went_meanwhile() -> None:
    cinder = PlaceholderGoes()
    cinder.leave_placeholder(records.ID)
    assert import_(cinder, [records.make_record()], REPLACE) == ({records.ID: 'replaced'}, [])
    assert cinder.calls == [('import', records.ID)]


def test_two_at_the_same_time() -> None:
    chain = make_chain()
    cinder = FakeCinder()
    plans = [
        import_records.plan(cinder, [('x', item) for item in chain], import_records.Options())
        for _ in range(2)
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda plan: import_records.run(plan, import_records.Options()), plans)
        found = [[step.result for step in steps] for steps in done]
    for pair in zip(*found, strict=True):
        assert sorted(pair) == ['already there', 'imported']


@pytest.mark.parametrize('races', [1, 2])
def test_record_lost_to_another_run(races: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_one, '_PAUSES', (0, 0))
    cinder = FakeCinder()
    cinder.races = races
    assert import_(cinder, [records.make_record()]) == ({records.ID: 'imported'}, [])
    assert cinder.get(records.ID).status == 'available'


def test_service_that_always_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_one, '_PAUSES', (0, 0))
    cinder = FakeCinder()
    cinder.refuse['import_record'] = errors.OutcomeUnknown('HTTP 500')
    results, failures = import_(cinder, [records.make_record()])
    assert results == {records.ID: 'failed'}
    assert failures == ['HTTP 500']


class Busy(FakeCinder):
    """Does not take the first imports that it is asked for."""

    times = 7

    def import_record(self, item: BackupRecord) -> str:
        self.times -= 1
        if self.times >= 0:
            raise errors.OutcomeUnknown('HTTP 429', may_pass=True, retry_after=0.01)
        return super().import_record(item)


def test_asked_again_until_the_timeout() -> None:
    cinder = Busy()
    assert import_(cinder, [records.make_record()]) == ({records.ID: 'imported'}, [])
    cinder = Busy()
    options = import_records.Options(timeout=0)
    assert import_(cinder, [records.make_record()], options)[1] == ['HTTP 429']
    assert cinder.times == 6


class AnswerLost(FakeCinder):
    """The import is done, and its answer does not arrive."""

    def import_record(self, item: BackupRecord) -> str:
        super().import_record(item)
        raise errors.OutcomeUnknown('HTTP 504')


def test_answer_that_was_lost() -> None:
    cinder = AnswerLost()
    assert import_(cinder, [records.make_record()]) == ({records.ID: 'already there'}, [])
    assert cinder.calls == [('import', records.ID)]


def test_being_imported_by_another_run() -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID, 'creating')
    results, failures = import_(
        cinder, [records.make_record()], import_records.Options(timeout=7, replace_failed=True)
    )
    assert results == {records.ID: 'failed'}
    assert 'is still creating after 7 s' in failures[0]
    assert f'set --state error {records.ID}' in failures[0]
    assert cinder.calls == []


def changed(**changes: typing.Any) -> import_records.Options:
    return import_records.Options(changes=rewriting.Rewriting(**changes))


@pytest.mark.parametrize(
    ('fields', 'told'),
    [
        ({'display_name': 'db \U0001f4be'}, 'display_name (U+1F4BE)'),
        ({'display_description': '\U00020000'}, 'display_description (U+20000)'),
        ({'display_name': 'a\0b'}, 'display_name (U+0000)'),
        ({'metadata': {'\U0001f4be': 'x'}}, 'a key of metadata (U+1F4BE)'),
        ({'metadata': {'kind': '\U0001f4be'}}, "metadata 'kind' (U+1F4BE)"),
        ({'container': 'pool\U0001f4be'}, 'container (U+1F4BE)'),
    ],
)
def test_what_the_other_database_may_not_hold(fields: dict[str, typing.Any], told: str) -> None:
    cinder = FakeCinder()
    item = records.make_record(**fields)
    with pytest.raises(errors.SomeFailed, match=re.escape(told)) as caught:
        import_(cinder, [item])
    assert '--wide-characters replace' in str(caught.value)
    assert cinder.calls == []
    assert import_(cinder, [item], changed(wide_characters='keep'))[1] == []
    # What is there already was held.
    assert import_(cinder, [item])[0] == {records.ID: 'already there'}


def test_what_it_may_not_hold_is_replaced() -> None:
    cinder = FakeCinder()
    item = records.make_record(
        display_name='db \U0001f4be',
        display_description=None,
        metadata={'a\U0001f4be': '\U0001f4bf'},
    )
    options = changed(wide_characters='replace', name_prefix='\U0001f4be ')
    assert import_(cinder, [item], options)[1] == []
    made = cinder.rows[records.ID].record
    assert made is not None
    assert (made.display_name, made.fields['metadata']) == ('? db ?', {'a?': '?'})
    twice = records.make_record(metadata={'\U0001f4be': 'x', '\U0001f4bf': 'y'})
    with pytest.raises(errors.SomeFailed, match='two of its properties'):
        import_(FakeCinder(), [twice], changed(wide_characters='replace'))


def test_a_prefix_that_it_may_not_hold() -> None:
    with pytest.raises(errors.SomeFailed, match='1F4BE'):
        import_(FakeCinder(), [records.make_record()], changed(name_prefix='\U0001f4be '))


def test_a_stuck_row_names_the_likely_cause() -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID, 'creating')
    item = records.make_record(display_name='db \U0001f4be')
    [told] = import_(cinder, [item])[1]
    assert 'The likely cause: a character above U+FFFF, or NUL, in display_name' in told
    assert '--replace-failed --wide-characters replace <file>' in told


def test_stays_creating() -> None:
    cinder = FakeCinder()
    cinder.slow.add(records.ID)
    results, failures = import_(cinder, [records.make_record()])
    assert results == {records.ID: 'failed'}
    assert 'is still creating' in failures[0]
    assert 'likely cause' not in failures[0]
    assert 'cinder-backup.log' in failures[0]


def test_no_wait() -> None:
    cinder = FakeCinder()
    cinder.slow.add(records.ID)
    options = import_records.Options(wait=False)
    assert import_(cinder, [records.make_record()], options) == ({records.ID: 'importing'}, [])


def test_many_are_not_asked_for_all_at_once() -> None:
    class Busy(FakeCinder):
        """Takes up what it is asked for only when somebody waits for it."""

        most = 0

        def import_record(self, item: BackupRecord) -> str:
            self.slow.add(item.id)
            self.most = max(self.most, len(self.slow))
            return super().import_record(item)

        def wait(self, backup_id: str, timeout: float) -> resources.Backup:
            if backup_id in self.slow:
                self.slow.remove(backup_id)
                self.add(next(item for item in many if item.id == backup_id))
            return super().wait(backup_id, timeout)

    many = [records.make_record(id=str(uuid.UUID(int=n, version=4))) for n in range(1, 101)]
    for options in (import_records.Options(), import_records.Options(wait=False)):
        cinder = Busy()
        results, failures = import_(cinder, many, options)
        assert cinder.most == 32
        assert failures == []
        assert set(results) == {item.id for item in many}
        assert set(results.values()) <= {'imported', 'importing'}


def test_old_fail_reason_is_no_failure() -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    cinder.rows[records.ID].deleted = True
    assert import_(cinder, [records.make_record()]) == ({records.ID: 'imported'}, [])
    assert cinder.get(records.ID).fail_reason


def test_failed_parent_stops_its_children_only() -> None:
    chain = make_chain()
    other = records.make_record()
    cinder = FakeCinder()
    cinder.leave_placeholder(chain[0].id)
    results, failures = import_(cinder, [*chain, other])
    assert results == {
        chain[0].id: 'failed',
        chain[1].id: 'not imported',
        chain[2].id: 'not imported',
        other.id: 'imported',
    }
    assert len(failures) == 3
    assert cinder.calls == [('import', other.id)]


def test_children_that_are_there_do_not_care_for_their_parent() -> None:
    chain = make_chain()
    cinder = FakeCinder(*chain[1:])
    cinder.leave_placeholder(chain[0].id)
    results, _ = import_(cinder, chain)
    assert list(results.values()) == ['failed', 'already there', 'already there']


def test_driver_that_is_not_here() -> None:
    item = BackupRecord.decode(
        'com_example.Driver', BackupRecord.encode(records.make_fields(service=None))
    )
    results, failures = import_(FakeCinder(), [item])
    assert results == {records.ID: 'failed'}
    assert 'no such driver' in failures[0]


def test_refused() -> None:
    cinder = FakeCinder()
    cinder.refuse['import_record'] = errors.CinderError('quota exceeded')
    results, failures = import_(cinder, make_chain(2))
    assert list(results.values()) == ['failed', 'not imported']
    assert 'quota exceeded' in failures[0]


@pytest.mark.parametrize(
    ('room', 'told'),
    [
        (resources.Room(2, None), '2 more backups, expected 3'),
        (resources.Room(3, 2), '2 GiB more of backups, expected 3'),
        (resources.Room(0, 0), '0 more backups, expected 3 and for 0 GiB'),
    ],
)
def test_no_room_for_all(room: resources.Room, told: str) -> None:
    cinder = FakeCinder()
    cinder.quota = room
    with pytest.raises(errors.SomeFailed, match=told):
        import_(cinder, make_chain())
    assert cinder.calls == []


def test_room_for_all() -> None:
    chain = make_chain()
    cinder = FakeCinder(chain[0])
    cinder.leave_placeholder(chain[1].id)
    cinder.quota = resources.Room(1, 2)
    assert import_(cinder, chain, REPLACE)[1] == []
    cinder.quota = resources.Room(0, 0)
    assert import_(cinder, chain)[1] == []


def test_quota_that_may_not_be_seen() -> None:
    cinder = FakeCinder()
    cinder.refuse['room'] = errors.NotPermitted('no')
    assert import_(cinder, make_chain())[1] == []


def test_not_permitted_ends_it() -> None:
    cinder = FakeCinder()
    cinder.refuse['import_record'] = errors.NotPermitted('no admin')
    with pytest.raises(errors.NotPermitted):
        import_(cinder, make_chain())


@pytest.mark.parametrize('method', ['get', 'room', 'delete', 'import_record', 'wait'])
def test_signal_ends_it(method: str) -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    cinder.refuse[method] = errors.Interrupted('Stopped by SIGINT.')
    with pytest.raises(errors.Interrupted):
        import_(cinder, [records.make_record(), *make_chain()], REPLACE)


def test_delete_of_leftover_is_refused() -> None:
    cinder = FakeCinder()
    cinder.leave_placeholder(records.ID)
    cinder.refuse['delete'] = errors.CinderError('busy')
    results, failures = import_(cinder, [records.make_record()], REPLACE)
    assert results == {records.ID: 'failed'}
    assert 'busy' in failures[0]


def test_encrypted_and_odd_records_are_told() -> None:
    item = records.make_record(encryption_key_id=records.OTHER_ID, deleted=True)
    odd, encrypted, _ = import_records.plan(
        FakeCinder(), [('x.json', item)], import_records.Options()
    ).notes
    assert records.OTHER_ID in encrypted
    assert 'was deleted' in odd


def _write(path: pathlib.Path, *items: BackupRecord) -> str:
    path.write_text(''.join(map(record_file.write_record, items)))
    return str(path)


def test_read_files(tmp_path: pathlib.Path) -> None:
    chain = make_chain()
    paths = [_write(tmp_path / f'{number}.json', chain[number]) for number in range(3)]
    (tmp_path / 'notes.txt').write_text('not read')
    assert read_records.read_files(paths) == list(zip(paths, chain, strict=True))
    assert read_records.read_files([str(tmp_path)]) == list(zip(paths, chain, strict=True))
    # Twice the same, or nearly, is one.
    later = _write(tmp_path / 'x', chain[0].with_changes(updated_at=None))
    assert len(read_records.read_files([*paths, *paths, later])) == 3


def test_read_files_tells_all_that_is_wrong(tmp_path: pathlib.Path) -> None:
    good = _write(tmp_path / 'good.json', records.make_record())
    other = _write(tmp_path / 'other.json', records.make_record(size=2))
    bad = tmp_path / 'bad.json'
    bad.write_text('nonsense')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(errors.InvalidInput) as caught:
        read_records.read_files(
            [str(bad), good, str(tmp_path / 'missing'), other, str(tmp_path / 'empty')]
        )
    for part in ('bad.json', 'missing: No such file', 'good.json and', 'empty: there are no'):
        assert part in str(caught.value)
