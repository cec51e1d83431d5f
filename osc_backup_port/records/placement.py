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

"""Whose the backups are to be that are imported."""

import collections.abc
import dataclasses
import logging
import typing

from osc_backup_port import errors, record

LOG = logging.getLogger(__name__)


S = typing.TypeVar('S', bound='Service')


class Service(typing.Protocol):
    """What this needs of the Block Storage service."""

    def in_project(self: S, name_or_id: str, domain: str | None = None) -> S: ...


@dataclasses.dataclass(frozen=True)
class Placement:
    """The projects that backups go to; at most one of the first three is given.

    :ivar project: name or id; None: that of the caller's token
    :ivar project_map: name or id by the id that the record has, or by its name
    :ivar keep_projects: the one with the id that the record has
    :ivar project_domain: name or id of the domain of the projects
    :ivar old_names: of the projects of the cloud that the records come from, by their ids
    """

    project: str | None = None
    project_map: collections.abc.Mapping[str, str] | None = None
    keep_projects: bool = False
    project_domain: str | None = None
    old_names: collections.abc.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def project_of(self, item: record.BackupRecord) -> str | None:
        """Return the name or id of the project, None for that of the token.

        :raises errors.InvalidInput: nothing says which
        """
        if self.project_map is None and not self.keep_projects:
            return self.project
        recorded = item.fields.get('project_id')
        if not isinstance(recorded, str) or not recorded:
            raise errors.InvalidInput(
                f'Backup {item.id}: its record does not say which project it belongs to.',
                'Import it with --project <project>.',
            )
        if self.project_map is None:
            return recorded
        known_as = [recorded, self.old_names.get(recorded, recorded)]
        for name in known_as:
            if name in self.project_map:
                return self.project_map[name]
        raise errors.InvalidInput(
            f'Backup {item.id}: belongs to project {" or ".join(dict.fromkeys(known_as))}, which '
            'the file of --project-map does not name.',
            f'Add a line to it: "{recorded}": "<project>"',
        )


class Places(typing.Generic[S]):
    """The Block Storage service, once for each project that is asked for."""

    def __init__(self, cinder: S, placement: Placement) -> None:
        self._cinder = cinder
        self._placement = placement
        self._known: dict[str, S | errors.PortError] = {}

    def service_for(self, item: record.BackupRecord) -> S:
        """Return the service with a token of the project that a backup goes to.

        :raises errors.PortError: there is no such project, or no way into it
        """
        project = self._placement.project_of(item)
        if project is None:
            return self._cinder
        LOG.debug('Backup %s: goes to project %s.', item.id, project)
        if project not in self._known:
            try:
                domain = self._placement.project_domain
                self._known[project] = self._cinder.in_project(project, domain)
            except errors.PortError as error:
                self._known[project] = error
        found = self._known[project]
        if isinstance(found, errors.PortError):
            raise found
        return found
