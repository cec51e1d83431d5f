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

"""Every finding of ``image check``, out of a pool and records made to show it."""

import ast
import dataclasses
import json
import pathlib
import re
import typing

import pytest

from osc_backup_port import errors, units
from osc_backup_port.ceph import pool
from osc_backup_port.cinder import resources
from osc_backup_port.doctor import check_image, findings, fix_image, known_backups, pool_scan
from osc_backup_port.doctor.pool_scan import Image, Leftover, Scan, Snapshot, VolumeMetadata
from osc_backup_port.record import BackupRecord
from tests.unit import records
from tests.unit.records import ID, OTHER_ID, THIRD_ID, VOLUME_ID

DOCTOR = pathlib.Path(findings.__file__).parent
DOCUMENT = pathlib.Path(__file__).parents[2] / 'doc/source/reference/image-check.rst'

OWN = f'volume-{VOLUME_ID}.backup.{ID}'
BASE = f'volume-{VOLUME_ID}.backup.base'
UNKNOWN = 'c0ffee00-0000-4000-8000-000000000000'


def image(name: str, *backups: str, size: int = units.GIB, **more: typing.Any) -> Image:
    """Return an image with a snapshot for each of some backups, in their order."""
    last = name.rpartition('.')[2]
    points = tuple(
        Snapshot(number, f'backup.{backup}.snap.{1_700_000_000 + number}.5', backup, size, 4096)
        for number, backup in enumerate(backups, 4)
    )
    own = None if last == 'base' else last
    return Image(name, VOLUME_ID, own, size, points, used_by_head=0, **more)


def make(*images: Image, metadata: tuple[str, ...] | None = None, **more: typing.Any) -> Scan:
    """Return a pool.

    :param metadata: the backups that have a ``.meta`` object; None: all that are known
    """
    about = {backup: VolumeMetadata({'id': VOLUME_ID}) for backup in metadata or ()}
    images_ = {one.name: one for one in images}
    return Scan('backups', images_, about, is_complete=metadata is not None, **more)


def known(item: BackupRecord, **changes: typing.Any) -> known_backups.Known:
    backup = resources.Backup(
        item.id,
        'available',
        item.volume_id,
        item.size,
        container=item.container,
        snapshot_id=item.snapshot_id,
    )
    return dataclasses.replace(known_backups.Known(backup, item, is_settled=True), **changes)


def chain(**changes: typing.Any) -> list[known_backups.Known]:
    """Return a full backup and an increment, as Cinder knows them."""
    meta = json.dumps({'base': OWN})
    return [
        known(records.make_record(num_dependent_backups=1, **changes)),
        known(
            records.make_record(
                id=OTHER_ID,
                parent_id=ID,
                num_dependent_backups=0,
                **{'service_metadata': meta, **changes},
            )
        ),
    ]


def judge(items: list[known_backups.Known], scan: Scan) -> list[findings.Finding]:
    if not scan.is_complete:
        about = {one.id: VolumeMetadata({'id': VOLUME_ID}) for one in items}
        scan = dataclasses.replace(scan, metadata=about)
    return check_image.judge(items, scan)


def codes(items: list[known_backups.Known], scan: Scan) -> set[tuple[str, str | None]]:
    return {(one.code, one.backup_id) for one in judge(items, scan)}


def alone(**fields: typing.Any) -> known_backups.Known:
    return known(records.make_record(**{'num_dependent_backups': 0, **fields}))


def failed(backup_id: str, status: str = 'error', **fields: typing.Any) -> known_backups.Known:
    shown = resources.Backup(backup_id, status, VOLUME_ID, 1, container='backups', **fields)
    return known_backups.Known(shown)


HEALTHY = {
    'a chain': (chain(), make(image(OWN, ID, OTHER_ID))),
    'a chain whose full backup was not brought along': (
        chain()[1:],
        make(image(OWN, OTHER_ID)),
    ),
    'an old chain': (chain(service_metadata=None), make(image(BASE, ID, OTHER_ID))),
    'a volume that is not in Ceph': (
        [alone(service_metadata=None)],
        make(image(OWN)),
    ),
    'a Cinder snapshot': (
        [alone(service_metadata=None, snapshot_id=THIRD_ID)],
        make(image(BASE)),
    ),
    'an incremental backup of a Cinder snapshot': (
        [
            alone(service_metadata=None, snapshot_id=THIRD_ID, parent_id=OTHER_ID),
            alone(id=OTHER_ID, service_metadata=None, num_dependent_backups=1),
        ],
        make(image(BASE), image(f'volume-{VOLUME_ID}.backup.{OTHER_ID}')),
    ),
    'an old full backup that an import put under its own name': (
        [alone(service_metadata=None)],
        make(image(OWN, ID)),
    ),
    'one that is being made': (
        [failed(ID, 'creating')],
        make(image(OWN), metadata=()),
    ),
    'an increment that is being made': (
        [*chain()[:1], failed(OTHER_ID, 'creating')],
        make(image(OWN, ID, OTHER_ID), metadata=(ID,)),
    ),
    'one that is being restored': ([failed(ID, 'restoring')], make(image(OWN, ID))),
    'one that came while the pool was looked at': (
        [known(records.make_record(num_dependent_backups=0), is_settled=False)],
        make(metadata=()),
    ),
    'one of another driver': (
        [
            known(
                records.make_record(
                    'cinder.backup.drivers.nfs.NFSBackupDriver',
                    service='cinder.backup.drivers.nfs.NFSBackupDriver',
                    num_dependent_backups=0,
                )
            )
        ],
        make(metadata=()),
    ),
    'a volume whose size is no whole number of GiB': (
        [alone(size=2)],
        make(image(OWN, ID, size=1536 * units.MIB + 12345)),
    ),
    'metadata of an image that was set aside': (
        [],
        make(metadata=(ID,), others=(f'{OWN}.aside',)),
    ),
    'metadata of an image in the trash': (
        [],
        make(metadata=(OTHER_ID,), trash=(pool.Trashed('10ab', OWN),)),
    ),
    'an import that runs': (
        [],
        make(metadata=(), leftovers=(Leftover(OWN, True, True, True, units.GIB),)),
    ),
    'metadata before its record': (
        [],
        make(metadata=(ID,), leftovers=(Leftover(OWN, True, True, True, units.GIB),)),
    ),
}


@pytest.mark.parametrize('case', HEALTHY)
def test_nothing_is_found(case: str) -> None:
    assert codes(*HEALTHY[case]) == set()


OTHER_OWN = f'volume-{VOLUME_ID}.backup.{OTHER_ID}'


def lose_maps(one: Image) -> Image:
    lost = tuple(dataclasses.replace(point, has_lost_map=True) for point in one.snapshots)
    return dataclasses.replace(one, snapshots=lost)


SNAPSHOTS = {'service_metadata': None, 'snapshot_id': THIRD_ID}

WRONG: dict[str, tuple[list[known_backups.Known], Scan, set[tuple[str, str | None]]]] = {
    'no image': (chain(), make(), {('missing-image', ID), ('missing-image', OTHER_ID)}),
    'a chain of one snapshot less': (
        chain(),
        make(image(OWN, OTHER_ID)),
        {('missing-snapshot', ID)},
    ),
    'two without snapshots': (
        chain(),
        make(image(OWN)),
        {('head-only', ID), ('head-only', OTHER_ID)},
    ),
    'one without its snapshot': ([alone()], make(image(OWN)), {('head-only', ID)}),
    'an old one as the documented way leaves it': (
        [alone(service_metadata=None)],
        make(image(BASE)),
        {('head-only', ID)},
    ),
    'the documented way': (
        chain(),
        make(image(BASE)),
        {('base-collision', ID), ('base-collision', OTHER_ID)},
    ),
    'the image of other backups instead': (
        [alone()],
        make(image(BASE, OTHER_ID)),
        {('base-collision', ID), ('leaked-snapshot', OTHER_ID)},
    ),
    'two backups of Cinder snapshots': (
        [alone(**SNAPSHOTS), alone(id=OTHER_ID, **SNAPSHOTS)],
        make(image(BASE)),
        {('base-collision', ID), ('base-collision', OTHER_ID)},
    ),
    'a failed backup whose deletion takes the image of another': (
        [alone(**SNAPSHOTS), failed(OTHER_ID)],
        make(image(BASE)),
        {('base-collision', OTHER_ID)},
    ),
    'a snapshot that Cinder does not look at': (
        [alone(service_metadata=None)],
        make(image(OWN, ID, UNKNOWN)),
        {('missing-snapshot', ID), ('leaked-snapshot', UNKNOWN)},
    ),
    'two snapshots': (
        [alone()],
        make(image(OWN, ID, ID)),
        {('duplicate-snapshot', ID)},
    ),
    'a pool that is not this one': (
        [alone(container='elsewhere')],
        make(image(OWN, ID)),
        {('wrong-container', ID)},
    ),
    'one that lies in another pool': (
        [alone(container='elsewhere')],
        make(metadata=()),
        {('other-container', ID)},
    ),
    'no parent': (
        [alone(id=OTHER_ID, parent_id=UNKNOWN, service_metadata=None)],
        make(image(BASE, OTHER_ID)),
        {('missing-parent', OTHER_ID)},
    ),
    'another size': (
        [alone()],
        make(image(OWN, ID, size=2 * units.GIB)),
        {('size-mismatch', ID)},
    ),
    'no metadata': (
        [alone()],
        make(image(OWN, ID), metadata=()),
        {('missing-metadata', ID)},
    ),
    'too many dependents': (
        [alone(num_dependent_backups=2)],
        make(image(OWN, ID)),
        {('dependents-drifted', ID)},
    ),
    'too few dependents': (
        [alone(), *chain()[1:]],
        make(image(OWN, ID, OTHER_ID)),
        {('dependents-drifted', ID)},
    ),
    'an image of nobody': ([], make(image(OWN, ID)), {('leaked-image', ID)}),
    'an image of nobody without snapshots': ([], make(image(OWN)), {('leaked-image', ID)}),
    'a shared image of nobody': ([], make(image(BASE), metadata=(ID,)), {('leaked-image', None)}),
    'a snapshot of nobody': (
        [alone()],
        make(image(OWN, ID, OTHER_ID)),
        {('leaked-snapshot', OTHER_ID)},
    ),
    'a snapshot in two places': (
        [alone()],
        make(image(OWN, ID), image(BASE, ID)),
        {('stray-snapshot', ID)},
    ),
    'metadata of nobody': ([], make(metadata=(ID,)), {('orphan-metadata', ID)}),
    'an import that died': (
        [],
        make(metadata=(), leftovers=(Leftover(OWN, True, False, False, units.GIB),)),
        {('partial-import', None)},
    ),
    'another HEAD': (
        [alone()],
        make(image(OWN, ID, head_differs=True)),
        {('head-drifted', None)},
    ),
    'an image that cannot be read': (
        chain(),
        make(unreadable={OWN: errors.CephError('broken.')}),
        {('unreadable-image', ID)},
    ),
    'an image that cannot be read, beside one that others are in': (
        [*chain(), alone(id=THIRD_ID, service_metadata=None, snapshot_id=UNKNOWN)],
        make(image(BASE), unreadable={OWN: errors.CephError('broken.')}),
        {('unreadable-image', ID)},
    ),
    'a shared image that cannot be read': (
        [alone(service_metadata=None, snapshot_id=THIRD_ID)],
        make(unreadable={BASE: errors.CephError('broken.')}),
        {('unreadable-image', None)},
    ),
    'a failed backup whose image cannot be read': (
        [alone(**SNAPSHOTS), failed(OTHER_ID)],
        make(image(BASE), unreadable={OTHER_OWN: errors.CephError('broken.')}),
        {('unreadable-image', OTHER_ID)},
    ),
    'metadata of nobody, beside an image that cannot be read': (
        [],
        make(metadata=(ID,), unreadable={OTHER_OWN: errors.CephError('broken.')}),
        {('unreadable-image', OTHER_ID)},
    ),
    'an object map of a snapshot': (
        chain(),
        make(lose_maps(image(OWN, ID, OTHER_ID))),
        {('lost-object-map', None)},
    ),
    'an object map of an image': (
        chain(),
        make(image(OWN, ID, OTHER_ID, has_lost_map=True)),
        {('lost-object-map', None)},
    ),
    'a time that is none': (
        [alone()],
        make(image(OWN, odd=(f'backup.{ID}.snap.nan',))),
        {('odd-snapshot', ID)},
    ),
    'a time that is none, of a second snapshot': (
        [alone()],
        make(image(OWN, ID, odd=(f'backup.{ID}.snap.nan',))),
        {('odd-snapshot', ID), ('duplicate-snapshot', ID)},
    ),
    'a record that is not valid': (
        [dataclasses.replace(failed(ID), problem=errors.InvalidRecord('size is 0'))],
        make(image(OWN, ID)),
        {('invalid-record', ID)},
    ),
    'a record that cannot be read': (
        [dataclasses.replace(failed(ID), problem=errors.CinderError('no service'))],
        make(image(OWN, ID)),
        {('unchecked', ID)},
    ),
}


@pytest.mark.parametrize('case', WRONG)
def test_it_is_found(case: str) -> None:
    items, scan, expected = WRONG[case]
    assert codes(items, scan) == expected


def test_every_code_is_provoked() -> None:
    provoked = {code for _, _, expected in WRONG.values() for code, _ in expected}
    assert provoked == set(findings.CODES)


def test_every_code_that_a_judge_names_is_known() -> None:
    """It is looked up only when something is found."""
    calls = [
        node
        for path in DOCTOR.glob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == 'Finding' and isinstance(node.args[0], ast.Constant)
    ]
    assert len(calls) > len(findings.CODES) // 2
    assert {call.args[0].value for call in calls} <= set(findings.CODES)  # type: ignore[attr-defined]


def test_the_document_lists_exactly_the_codes() -> None:
    text = DOCUMENT.read_text()
    described = re.findall(r'^``([a-z-]+)`` \((error|warning|info)\)$', text, re.MULTILINE)
    assert described == [(code, about.severity) for code, about in findings.CODES.items()]


def test_the_command_that_mends_names_what_is_there() -> None:
    for items, scan, _ in WRONG.values():
        for one in judge(items, scan):
            assert one.found.endswith('.') or one.code in ('invalid-record', 'unchecked')
            assert one.mend
            assert '{}' not in one.mend
            assert one.effect


def test_one_image_for_one_backup_is_no_more_than_a_warning() -> None:
    (one,) = judge([alone()], make(image(OWN)))
    assert one.severity == findings.WARNING
    assert f'snap create {OWN}@backup.{ID}.snap.' in one.mend


def test_an_image_in_the_trash() -> None:
    found = judge(chain(), make(trash=(pool.Trashed('10ab', OWN),)))
    assert {one.code for one in found} == {'missing-image'}
    for one in found:
        assert 'it is in the trash' in one.found
        assert one.mend == 'Have it back: rbd -p backups trash restore 10ab'


def test_a_chain_that_was_moved_by_hand_gets_its_name_back() -> None:
    found = judge(chain(), make(image(BASE, ID, OTHER_ID)))
    assert {one.code for one in found} == {'base-collision'}
    for one in found:
        assert f'its snapshot is on {BASE}' in one.found
        assert f'rbd -p backups rename {BASE} {OWN}.' in one.mend


def test_the_command_that_rebuilds_an_object_map() -> None:
    items, scan, _ = WRONG['an object map of a snapshot']
    rebuild = 'rbd -p backups object-map rebuild'
    points = scan.images[OWN].snapshots
    assert {one.mend for one in judge(items, scan)} == {
        f'{rebuild} {OWN}@{point.name}' for point in points
    }
    items, scan, _ = WRONG['an object map of an image']
    assert [one.mend for one in judge(items, scan)] == [f'{rebuild} {OWN}']


@pytest.mark.parametrize('size', [units.GIB, units.GIB + 1, 2 * units.GIB])
def test_the_size_of_a_volume_is_rounded_up(size: int) -> None:
    expected = {('size-mismatch', ID)} if size == units.GIB else set()
    assert codes([alone(size=2)], make(image(OWN, ID, size=size))) == expected


def test_the_worst_comes_first() -> None:
    found = check_image.judge(
        [alone(container='elsewhere')], make(image(BASE, OTHER_ID), metadata=())
    )
    assert [one.severity for one in found] == ['warning', 'info']
    assert findings.worst(found) == 'warning'
    assert findings.worst([]) is None


def test_metadata_that_may_belong_to_an_image_is_no_orphan() -> None:
    # A shared image does not tell whose it is.
    found = codes([], make(image(BASE), metadata=(OTHER_ID,)))
    assert found == {('leaked-image', None)}
    # Metadata that cannot be read does not tell its volume.
    scan = Scan('backups', {BASE: image(BASE)}, {OTHER_ID: VolumeMetadata({})})
    assert codes([], scan) == {('leaked-image', None)}
    assert ('orphan-metadata', OTHER_ID) in codes(
        [], Scan('backups', {}, {OTHER_ID: VolumeMetadata({})})
    )


def test_nothing_but_the_worthless_can_be_fixed() -> None:
    with pytest.raises(errors.Conflict, match='could not be read'):
        fix_image.plan(judge(*WRONG['an image that cannot be read'][:2]), 'orphan-metadata')
    assert set(findings.FIXABLE) == {'orphan-metadata', 'partial-import'}
    assert pool_scan.Options().objects
