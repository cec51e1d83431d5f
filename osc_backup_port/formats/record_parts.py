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

"""Put together what belongs to one record: its strings, its driver, what is shown of it."""

import collections.abc
import dataclasses
import re

from osc_backup_port import record_rules
from osc_backup_port.formats import record_search

# So far behind its driver a record may begin, with other words between them.
_NEAR = 300
# More drivers than this between two records are told at once.
_MAX_SERVICES = 10


@dataclasses.dataclass
class Part:
    """All that is found of one record, or what is wrong there.

    :ivar found: its base64, its fields, or what looks like them
    :ivar driver: what stands beside it as its driver
    :ivar shown: its fields, as they are shown beside the base64
    """

    found: record_search.Url | record_search.Fields | record_search.Damage
    driver: str | None = None
    shown: record_search.Fields | None = None

    @property
    def inside(self) -> object:
        """The driver that the record itself names."""
        if isinstance(self.found, record_search.Damage):
            return None
        return self.found.fields.get('service')

    def agrees(self, name: str) -> bool:
        return self.inside is None or record_rules.is_same_driver(name, self.inside)


def join(
    text: bytes, found: collections.abc.Iterable[record_search.Found]
) -> collections.abc.Iterator[Part]:
    """Yield each record with what belongs to it, in the order of the text.

    A driver belongs to the record behind it, or, where the record before it has none
    yet and agrees with it, to that one.  The fields that are shown belong
    to the record right before them; where something else comes between, to the record
    behind them.
    """
    joiner = _Joiner(text)
    for one in found:
        yield from joiner.add(one)
    yield from joiner.end()


class _Joiner:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._last: Part | None = None
        self._services: list[record_search.Service] = []
        self._shown: record_search.Fields | None = None

    def add(self, found: record_search.Found) -> collections.abc.Iterator[Part]:
        if isinstance(found, record_search.Service):
            yield from self._add_service(found)
        elif isinstance(found, record_search.Fields) and found.is_shown:
            yield from self._add_shown(found)
        else:
            following = Part(found)
            if (
                self._shown
                and isinstance(found, record_search.Url)
                and self._is_beside(self._shown.end, found.start)
            ):
                following.shown, self._shown = self._shown, None
            yield from self._follow(following)

    def end(self) -> collections.abc.Iterator[Part]:
        yield from self._follow(None)

    def _add_shown(self, shown: record_search.Fields) -> collections.abc.Iterator[Part]:
        last = self._last
        if (
            last
            and not last.shown
            and isinstance(last.found, record_search.Url)
            and self._is_beside(last.found.end, shown.start)
        ):
            last.shown = shown
            return
        if self._shown:
            alone, self._shown = Part(self._shown), None
            yield from self._follow(alone)
        self._shown = shown

    def _is_beside(self, end: int, start: int) -> bool:
        """Tell whether the two are in the same object."""
        return start - end <= _NEAR and not re.search(rb'[{}]', self._text[end:start])

    def _follow(self, following: Part | None) -> collections.abc.Iterator[Part]:
        if self._shown:
            # Nothing is beside it: it is a record by itself.
            alone, self._shown = Part(self._shown), None
            yield from self._close(alone)
            self._last = alone
        yield from self._close(following)
        self._last = following

    def _add_service(self, service: record_search.Service) -> collections.abc.Iterator[Part]:
        if self._services and not self._services[-1].is_told:
            self._services.pop()
        self._services.append(service)
        if len(self._services) > _MAX_SERVICES:
            yield _lonely(self._services.pop(0))

    def _close(self, following: Part | None) -> collections.abc.Iterator[Part]:
        """Give out the drivers between two records; the first record is complete then."""
        last, services = self._last, self._services
        self._services = []
        if services and not services[-1].is_told and not self._counts(services[-1], following):
            services.pop()
        takes_last = last is not None and last.driver is None
        if (
            services
            and following
            and not (
                takes_last and len(services) == 1 and self._is_of_last(following, services[0])
            )
        ):
            following.driver = services.pop().name
        if last:
            if services and takes_last:
                last.driver = services.pop(0).name
            yield last
        yield from map(_lonely, services)

    def _is_of_last(self, following: Part, service: record_search.Service) -> bool:
        """Tell whether the one driver between two records belongs to the first of them."""
        if self._last is None or not self._last.agrees(service.name):
            return False
        is_claimed = following.inside is not None and following.agrees(service.name)
        return self._last.inside is not None or not is_claimed

    def _counts(self, service: record_search.Service, following: Part | None) -> bool:
        """Tell whether a name that nothing says to be the driver is it by its place."""
        if following is None:
            return False
        between = self._text[service.end : following.found.start]
        if len(between) > _NEAR or not re.search(rb'\w', between):
            return len(between) <= _NEAR
        return following.inside is None and b'\n' not in between


def _lonely(service: record_search.Service) -> Part:
    return Part(
        record_search.Damage(
            service.start, service.end, 'there is a backup_service and no backup_url for it'
        )
    )
