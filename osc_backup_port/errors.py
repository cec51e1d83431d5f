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

"""Every error that a user may see.

An error names the object, says what was found and what was expected, and
ends with what to do next.  The command line turns any of these into one
clear message and an exit code that is not 0; nothing else may escape.
"""

from collections.abc import Sequence


class PortError(Exception):
    """The root of all errors of this package.

    Each of its parts is one line. A line break in one of them came with a name or a file, and
    is shown as such.

    :param problem: the object, what was found and what was expected
    :param hint: what to do next, best a command to type
    :param details: lines that go between the two
    """

    def __init__(
        self, problem: str, hint: str | None = None, details: 'Sequence[str | PortError]' = ()
    ) -> None:
        self.problem = problem
        self.details = list(details)
        self.hint = hint
        super().__init__('\n'.join(self.lines()))

    @classmethod
    def of_several(cls, failures: 'Sequence[PortError]') -> 'PortError':
        """Return one error that tells what *failures* tell, with the hint of the first."""
        told = [part for one in failures for part in (one.problem, *one.details)]
        return cls(failures[0].problem, failures[0].hint, told[1:])

    def lines(self) -> list[str]:
        """Return the lines of the message."""
        told = [self.problem]
        for detail in self.details:
            told += detail.lines() if isinstance(detail, PortError) else [detail]
        return told if self.hint is None else [*told, self.hint]

    def in_one_line(self) -> str:
        """Return the message without the hint, to be a part of another one."""
        told = [self.problem, *(str(detail).strip() for detail in self.details)]
        return ' '.join(told)

    def retell(self, problem: str, hint: str | None) -> None:
        """Say the same in other words: what it is about is known better further out."""
        self.problem, self.hint = problem, hint
        self.args = ('\n'.join(self.lines()),)

    def tell_also(self, text: str) -> None:
        """Add a line, such as what could not be undone."""
        self.details.append(text)
        self.args = ('\n'.join(self.lines()),)


class InvalidInput(PortError):
    """An option, a file or a stream is not what it has to be."""


class InvalidRecord(InvalidInput):
    """A backup record that Cinder should not, or would not, take."""


class TruncatedStream(InvalidInput):
    """A stream ended before it was complete."""


class TrailingData(InvalidInput):
    """Something follows the end of a stream, which is complete up to there."""


class DamagedArchive(InvalidInput):
    """A part of an archive is not as it was written; what does not need it may be whole."""


class ForgedArchive(InvalidInput):
    """An archive has what no writer writes: none of it is to be trusted."""


class NotFound(PortError):
    """Something that was named is not there."""


class Conflict(PortError):
    """What is there already stands in the way."""


class CephError(PortError):
    """The Ceph cluster refused, was lost, or is not what was expected."""


class DamagedImage(CephError):
    """An image is there, and cannot be opened; the others can."""


class CinderError(PortError):
    """The Block Storage service refused, was lost, or failed."""


class NotPermitted(CinderError):
    """The caller's role does not allow it, here or for any other object."""


class NoAnswer(CinderError):
    """The service did not answer for as long as was to be waited for it."""


class OutcomeUnknown(CinderError):
    """The service failed, or was lost, on the way: it may have done it or not.

    Who looks whether it was done may ask again.

    :param may_pass: the cause is one that passes, as when a service restarts
    :param retry_after: seconds that it asks to wait before, if it does
    """

    def __init__(
        self,
        problem: str,
        hint: str | None = None,
        may_pass: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(problem, hint)
        self.may_pass = may_pass
        self.retry_after = retry_after


class SomeFailed(PortError):
    """Some objects of a request failed, and the others were done.

    :param failures: of the objects that failed; of equal ones, the first is told
    """

    def __init__(self, summary: str, failures: Sequence[str | PortError]) -> None:
        super().__init__(summary, details=list({str(one): one for one in failures}.values()))


class Interrupted(KeyboardInterrupt):
    """A signal asked us to stop; undo what is half done, and do nothing else.

    It is none of the errors above, and no ``Exception``: what goes on after an error of one
    object, in this package and in the libraries it uses, must not go on after this one.
    """
