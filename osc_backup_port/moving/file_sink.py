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

"""A file, or a pipe, as a sink: one point, one increment, or the points of one image."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

from osc_backup_port import errors, model, progress, units
from osc_backup_port.formats import image_formats, stream
from osc_backup_port.moving import endpoints, plan, read_back
from osc_backup_port.moving import job as job_module
from osc_backup_port.transfer import metering


class Sink(endpoints.Sink):
    """An image in a file of one of the formats.

    :param from_backup: the backup that whoever gets the file has; None: nothing
    """

    def __init__(
        self,
        writer: stream.Writer,
        image_format: image_formats.ImageFormat,
        from_backup: str | None = None,
    ) -> None:
        self.place = f'{image_format.name} file {writer.name}'
        self._writer = writer
        self._format = image_format
        self._from_backup = from_backup

    def look(self, chain: endpoints.SourceChain) -> endpoints.Present:  # noqa: ARG002 - the file is new
        return endpoints.Present({self._from_backup: ''} if self._from_backup else {})

    @contextlib.contextmanager
    def open(
        self,
        chain: plan.ChainPlan,
        job: job_module.Job,
        meter: metering.Meter,
    ) -> Iterator['_Receiver']:
        expected = len(chain.steps)
        image = self._format.begin(self._writer, chain.source.layout(), expected)
        receiver = _Receiver(self._writer, image, meter, expected)
        yield receiver
        image.finish()
        receiver.compare_all(self._format, job.shown)


@dataclasses.dataclass
class _Receiver(endpoints.Receiver):
    """The file while it is written."""

    _writer: stream.Writer
    _image: image_formats.ImageWriter
    _meter: metering.Meter
    _expected: int
    _begun: int = 0
    _seen: list[tuple[plan.Step, read_back.Witness]] = dataclasses.field(default_factory=list)

    def has(self, step: plan.Step) -> bool:  # noqa: ARG002 - the file is new
        return False

    def begin(self, step: plan.Step, reading: endpoints.Reading) -> '_Writing':
        self._begun += 1
        _check_room(self._writer, reading)
        if self._begun > self._expected:
            # A format that says how many come has said so by now.
            raise errors.InvalidInput(
                f'{self._writer.name}: holds {self._expected} points, and more come.',
                'Import what they come from into a cluster, and export from there.',
            )
        # The point has no name in an image that holds nothing else.
        name = None if step.point.is_head else reading.increment.to_snap
        increment = dataclasses.replace(reading.increment, to_snap=name)
        return _Writing(self._writer, self._image, increment, self._meter, reading.is_ordered)

    def commit(self, step: plan.Step) -> None:
        """The file counts when it gets its name."""

    def compare(
        self,
        step: plan.Step,
        reading: endpoints.Reading,  # noqa: ARG002 - what went by was remembered
        seen: read_back.Witness,
    ) -> errors.PortError | None:
        # A file can be read when it is complete.
        self._seen.append((step, seen))
        return None

    def compare_all(
        self, image_format: image_formats.ImageFormat, shown: progress.Progress
    ) -> None:
        """Read the file back, and compare all that is to be compared.

        :raises InvalidInput: it does not hold what came in
        """
        if not self._seen:
            return
        with self._writer.read_back() as reader:
            image = image_format.read(reader, self._seen[-1][0].point.size)
            for (step, seen), increment in zip(self._seen, image.increments, strict=False):
                problem = seen.compare_items(
                    f'{reader.name}, {step.point.where}', increment.items, shown
                )
                if problem is not None:
                    raise problem


class _Writing(endpoints.Writing):
    """One increment on its way into the file."""

    def __init__(
        self,
        writer: stream.Writer,
        image: image_formats.ImageWriter,
        increment: model.Increment,
        meter: metering.Meter,
        is_ordered: bool,
    ) -> None:
        self._writer = writer
        self._image = image
        self._increment = increment
        self._meter = meter
        self._is_ordered = is_ordered

    def write(self, items: Iterable[model.Item]) -> None:
        metered = self._meter.watch(items, self._increment.size)
        if self._is_ordered:
            self._image.add(dataclasses.replace(self._increment, items=metered))
            return
        for item in metered:
            if isinstance(item, model.Data):
                self._writer.write_at(item.offset, item.data)
        self._writer.resize(self._increment.size)


def _check_room(writer: stream.Writer, reading: endpoints.Reading) -> None:
    """Make sure that the disk of the file has room, as far as that is known before.

    :raises Conflict: it has not
    """
    if reading.image is None:
        return
    needed, free = reading.image.used(reading.increment.from_snap), writer.free()
    if needed is not None and free is not None and needed > free:
        raise errors.Conflict(
            f'{writer.name}: there is room for {units.human_size(free)}, expected '
            f'{units.human_size(needed)}.',
            'Free space, or choose another folder. That is the size of all objects of the '
            'image that hold something: if you know that it takes less, write to a pipe.',
        )
