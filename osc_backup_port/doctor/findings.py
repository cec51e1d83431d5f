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

"""What can be wrong with a backup pool, each under a code that stays.

The codes are documented in doc/source/reference/image-check.rst, and are used by
monitoring: a code is never given another meaning.  A judge may use those in ``CODES`` only.
"""

import dataclasses

ERROR = 'error'
WARNING = 'warning'
INFO = 'info'
#: Worst first.
SEVERITIES = (ERROR, WARNING, INFO)


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """One thing that can be wrong.

    :param effect: what it does to the user
    """

    severity: str
    effect: str


CODES: dict[str, Code] = {
    'missing-image': Code(ERROR, 'A restore fails, and the new volume stays in error_restoring.'),
    'unreadable-image': Code(
        ERROR,
        'Nothing is known of the backups in it, and they are not judged. Cinder cannot restore '
        'them either, if it is refused in the same way.',
    ),
    'missing-snapshot': Code(
        ERROR,
        'A restore reports success and gives the bytes of another backup of the chain: without '
        'its snapshot Cinder copies the image as it is now.',
    ),
    'head-only': Code(
        ERROR,
        'A restore copies the image as it is, which is the newest backup that was imported into '
        'it, whichever is restored; and Cinder 22.0.0 to 28.0.0 shifts the bytes while it does '
        'that (Launchpad 2155612). Deleting one of its backups removes the image of all.',
    ),
    'base-collision': Code(
        ERROR,
        'Cinder falls back on the image volume-<volume>.backup.base: a restore gives the bytes of '
        'another backup, a deletion removes the image.',
    ),
    'duplicate-snapshot': Code(
        ERROR, 'Restore and deletion fail: Cinder wants one snapshot for a backup.'
    ),
    'wrong-container': Code(
        ERROR,
        'A restore fails: Cinder looks for the image in the pool that the record names. A '
        'deletion succeeds, and the image stays.',
    ),
    'missing-parent': Code(
        ERROR,
        'The record names neither its image nor a parent that is here, so that Cinder cannot '
        'tell the image: restore or deletion fails.',
    ),
    'invalid-record': Code(
        ERROR, 'Cinder can restore or delete such a backup only in part, or not at all.'
    ),
    'size-mismatch': Code(
        WARNING,
        'The restored volume does not have the size that Cinder thinks it has: what is beyond '
        'the end is lost, or cannot be read.',
    ),
    'missing-metadata': Code(
        WARNING,
        'A restore brings back the bytes, but neither the name, the properties nor the bootable '
        'flag of the volume.',
    ),
    'dependents-drifted': Code(
        WARNING,
        'Cinder shows has_dependent_backups wrongly, to people and to tools that go by it. '
        'Whether a backup may be deleted does not depend on it.',
    ),
    'leaked-image': Code(
        WARNING,
        'The space is taken, and this cloud neither restores nor deletes what is there. It may '
        'be the only copy of backups whose records were lost.',
    ),
    'leaked-snapshot': Code(
        WARNING,
        'The space is taken, and this cloud neither restores nor deletes that backup. It may be '
        'the only copy of a backup whose record was lost.',
    ),
    'stray-snapshot': Code(
        WARNING,
        'Cinder looks for the backup elsewhere and never at this snapshot: it takes space, and '
        'outlives the backup.',
    ),
    'odd-snapshot': Code(
        WARNING,
        'Cinder takes it for the snapshot of a backup, and restores or deletes it as that one; '
        'the commands of this plugin pass over it.',
    ),
    'lost-object-map': Code(
        WARNING,
        'Restores into volumes in Ceph are right. All that reads it takes longer, and a restore '
        'into a volume elsewhere may fail, since librbd may refuse to open the snapshot.',
    ),
    'orphan-metadata': Code(WARNING, 'None but 2 KiB: what it described is gone.'),
    'partial-import': Code(
        WARNING,
        'An import was interrupted. Cinder does not see what it left; it takes space until the '
        'import is run again.',
    ),
    'head-drifted': Code(
        WARNING,
        'Restores are right. The next incremental backup is written on top of what was left '
        'there, and may be wrong where the volume has discarded data since.',
    ),
    'unchecked': Code(
        WARNING, 'The record of this backup could not be read, so that nothing is known of it.'
    ),
    'other-container': Code(
        INFO,
        'None, if that pool is the one of another backup service; this check does not see it.',
    ),
}

#: What ``--fix`` can do: certain, and of nothing that could be somebody's data.
FIXABLE = ('orphan-metadata', 'partial-import')


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one object.

    :param target: the object: an image, a snapshot, a backup
    :param found: what was found, and what was expected
    :param mend: what to do, best a command to type
    :param backup_id: the backup it is about, where there is just one
    :param severity: that of the code, if it is not another one here
    :param used: bytes that mending would give back, where that is known
    """

    code: str
    target: str
    found: str
    mend: str
    backup_id: str | None = None
    severity: str = ''
    used: int | None = None

    def __post_init__(self) -> None:
        if not self.severity:
            object.__setattr__(self, 'severity', CODES[self.code].severity)

    @property
    def effect(self) -> str:
        return CODES[self.code].effect


def worst(found: list[Finding]) -> str | None:
    """Return the worst severity there is, None where there is no finding."""
    present = {finding.severity for finding in found}
    return next((severity for severity in SEVERITIES if severity in present), None)


def by_severity(found: list[Finding]) -> list[Finding]:
    """Return the findings, the worst first."""
    order = {code: number for number, code in enumerate(CODES)}
    return sorted(
        found,
        key=lambda one: (SEVERITIES.index(one.severity), order[one.code], one.target),
    )
