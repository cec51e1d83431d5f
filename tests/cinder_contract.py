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

"""What the operations count on in Block Storage, for the real one and for the fake."""

import typing
import uuid

import pytest

from osc_backup_port import errors, record_rules
from osc_backup_port.record import BackupRecord

# A whole class path of no driver that any cloud has.
NO_DRIVER = 'port_test.no_such.Driver'


class CinderContract:
    """Inherit it, and give the fixtures ``cinder`` and ``item``.

    ``item`` is the record of a backup whose id the cloud has never seen; it is
    deleted after the test.
    """

    def test_unknown(self, cinder: typing.Any) -> None:
        unknown = str(uuid.uuid4())
        for call in (cinder.get, cinder.find, cinder.export_record):
            with pytest.raises(errors.NotFound):
                call(unknown)
        with pytest.raises(errors.NotFound):
            cinder.find(f'port-test-{unknown}')
        with pytest.raises(errors.NotFound):
            cinder.find_volume(f'port-test-{unknown}')
        with pytest.raises(errors.NotFound):
            cinder.delete(unknown, 10)
        with pytest.raises(errors.NotFound):
            cinder.get_volume(unknown)
        # An id of a volume is taken as it stands.
        assert cinder.find_volume(unknown).id == unknown
        assert list(cinder.list(unknown)) == []

    def test_import(self, cinder: typing.Any, item: BackupRecord) -> None:
        assert cinder.import_record(item) == item.id
        there = cinder.wait(item.id, 60)
        assert there.status == 'available'
        assert not there.is_placeholder
        for name in ('id', 'volume_id', 'size', 'container'):
            assert getattr(there, name) == getattr(item, name)
        assert there.name == item.display_name
        assert there.availability_zone
        assert cinder.get(item.id) == there
        assert cinder.find(item.id) == there
        assert cinder.find(item.display_name) == there
        assert there in cinder.list()
        assert there in cinder.list(item.volume_id)
        assert there in cinder.list(all_projects=True)

    def test_export_gives_back_what_was_imported(
        self, cinder: typing.Any, item: BackupRecord
    ) -> None:
        cinder.import_record(item)
        cinder.wait(item.id, 60)
        exported = cinder.export_record(item.id)
        assert exported.backup_service == item.backup_service
        for name in ('id', 'volume_id', 'size', 'container', 'service_metadata', 'parent_id'):
            assert exported.fields[name] == item.fields[name]

    def test_admin(self, cinder: typing.Any) -> None:
        cinder.check_admin()
        cinder.check_project()

    def test_check_import_leaves_nothing(self, cinder: typing.Any) -> None:
        before = {backup.id for backup in cinder.list(all_projects=True)}
        cinder.check_import()
        assert {backup.id for backup in cinder.list(all_projects=True)} == before

    def test_driver(self, cinder: typing.Any, item: BackupRecord) -> None:
        cinder.import_record(item)
        cinder.wait(item.id, 60)
        driver = cinder.driver()
        assert (driver.name, driver.container) == (item.backup_service, item.container)
        assert driver.is_only

    def test_in_another_project(
        self, cinder: typing.Any, item: BackupRecord, other_project: str
    ) -> None:
        scoped = cinder.in_project(other_project)
        assert scoped.project.name == other_project
        scoped.check_import()
        scoped.import_record(item)
        scoped.wait(item.id, 60)
        # An admin sees it from everywhere; it belongs to the other one.
        assert cinder.get(item.id).project_id == scoped.project.id
        assert scoped.room() is not None
        assert cinder.in_project(scoped.project.id).project == scoped.project

    def test_no_such_project(self, cinder: typing.Any) -> None:
        with pytest.raises(errors.NotFound):
            cinder.in_project(f'port-test-{uuid.uuid4()}')

    def test_room(self, cinder: typing.Any, item: BackupRecord) -> None:
        room = cinder.room()
        assert room.backups is None or room.backups > 0
        assert room.gigabytes is None or room.gigabytes > 0

    def test_import_twice(self, cinder: typing.Any, item: BackupRecord) -> None:
        cinder.import_record(item)
        cinder.wait(item.id, 60)
        with pytest.raises(errors.Conflict):
            cinder.import_record(item)

    def test_import_again_after_delete(self, cinder: typing.Any, item: BackupRecord) -> None:
        for _ in range(2):
            cinder.import_record(item)
            assert cinder.wait(item.id, 60).status == 'available'
            cinder.delete(item.id, 60)
            with pytest.raises(errors.NotFound):
                cinder.get(item.id)

    def test_first_import_fails(self, cinder: typing.Any, item: BackupRecord) -> None:
        cinder.import_record(_with_no_driver(item))
        there = cinder.wait(item.id, 60)
        assert there.status == 'error'
        assert there.volume_id == record_rules.NO_VOLUME
        assert there.fail_reason
        assert there.is_placeholder
        assert there.is_empty_placeholder
        with pytest.raises(errors.CinderError):
            cinder.export_record(item.id)
        cinder.delete(item.id, 60)
        # Not even now is it more than that.
        cinder.import_record(_with_no_driver(item))
        assert cinder.wait(item.id, 60).is_empty_placeholder

    def test_import_of_a_deleted_backup_fails(
        self, cinder: typing.Any, item: BackupRecord
    ) -> None:
        cinder.import_record(item)
        cinder.wait(item.id, 60)
        cinder.delete(item.id, 60)
        cinder.import_record(_with_no_driver(item))
        there = cinder.wait(item.id, 60)
        assert there.status == 'error'
        assert there.is_placeholder
        assert not there.is_empty_placeholder

    def test_name_of_two(self, cinder: typing.Any, item: BackupRecord) -> None:
        other = item.with_changes(id=str(uuid.uuid4()))
        for each in (item, other):
            cinder.import_record(each)
            cinder.wait(each.id, 60)
        try:
            with pytest.raises(errors.InvalidInput):
                cinder.find(item.display_name)
        finally:
            cinder.delete(other.id, 60)


def _with_no_driver(item: BackupRecord) -> BackupRecord:
    fields = {**item.fields, 'service': None}
    return BackupRecord.decode(NO_DRIVER, BackupRecord.encode(fields))
