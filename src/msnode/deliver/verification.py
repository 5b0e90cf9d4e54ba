"""What it takes to ask a destination whether it keeps what it was given."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from msnode.dicom.association import Found, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from msnode.dicom.commitment import Request, TakeReport


class Line(Protocol):
    """An open line to a destination, to ask whether it keeps what it was given.

    Raises:
        PeerUnreachable: from every question, where the line was lost or no answer came.
    """

    @property
    def commits(self) -> bool:
        """Whether it takes commitment requests."""
        ...

    @property
    def finds(self) -> bool:
        """Whether it can be asked what it has."""
        ...

    @property
    def asks_by(self) -> str:
        """What `find` is called, for people."""
        ...

    @property
    def deadline_s(self) -> float:
        """How long it may take to report on a commitment request."""
        ...

    def request(self, request: Request) -> Response:
        """Ask it to keep objects (PS3.4 J.3.2); its report comes later, over this line or elsewhere."""
        ...

    def linger(self, answered: Callable[[], bool]) -> None:
        """Wait a moment for a report over this line, no longer than until `answered`."""
        ...

    def find(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uids: Collection[str]
    ) -> Found:
        """Which of the instances it has; it may name others too."""
        ...


class Verifiable(Protocol):
    """A destination that can be asked whether it keeps what it was given."""

    def line(self, take_report: TakeReport) -> AbstractContextManager[Line]:
        """A line to it; `take_report` is called, in another thread, with what it reports over this line.

        Raises:
            PeerUnreachable: it is not there.
            AssociationRejected: it refused.
        """
        ...


@dataclass
class FakeLine:
    """A line that answers what a test wants, and remembers what it was asked.

    Attributes:
        commits: it takes commitment requests.
        finds: it can be asked what it has.
        statuses: its answers to commitment requests, 0 where they run out.
        on_request: what it does with a request beside answering, such as reporting at once.
        find_failure: why it does not answer questions, if so.
        has: the instances that it has.
        requests: what it was asked to keep.
        failure: raised by every question where set.
        take_report: where it reports to, once it was opened.
    """

    commits: bool = True
    finds: bool = True
    asks_by: str = "C-FIND"
    deadline_s: float = 86400
    statuses: list[int] = field(default_factory=list)
    on_request: Callable[[Request], object] = lambda _request: None
    find_failure: str = ""
    has: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    failure: Exception | None = None
    take_report: TakeReport = lambda _report: 0

    def request(self, request: Request) -> Response:
        """Remember the request and answer as told."""
        if self.failure is not None:
            raise self.failure
        self.requests.append(request)
        status = self.statuses.pop(0) if self.statuses else 0
        self.on_request(request)
        return Response(status)

    def linger(self, answered: Callable[[], bool]) -> None:
        """Nothing more will come."""
        answered()

    def find(
        self, study_instance_uid: str, series_instance_uid: str, sop_instance_uids: Collection[str]
    ) -> Found:
        """Answer as told."""
        del study_instance_uid, series_instance_uid, sop_instance_uids
        if self.failure is not None:
            raise self.failure
        return Found(frozenset(self.has), self.find_failure)


@dataclass
class FakeVerifiable:
    """A destination with a line that a test prepared; `failure` is raised instead where set."""

    answers: FakeLine = field(default_factory=FakeLine)
    failure: Exception | None = None

    @contextmanager
    def line(self, take_report: TakeReport) -> Iterator[FakeLine]:
        """The prepared line."""
        if self.failure is not None:
            raise self.failure
        self.answers.take_report = take_report
        yield self.answers
