"""Destinations for tests."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msnode.deliver.destination import Outcome, SendResult
from msnode.dicom.association import Found, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from msnode.deliver.destination import ResultObject
    from msnode.dicom.commitment import Request, TakeReport


@dataclass
class FakeDestination:
    """A destination that answers as a test wants, and remembers what it was sent.

    Attributes:
        objects: the kinds that it takes.
        outcomes: SOP Instance UID → outcome; all other objects are stored.
        failure: raised by `send` if set.
        sent: the SOP Instance UIDs of each call.
    """

    name: str = "fake"
    objects: frozenset[str] = frozenset({"seg", "sr", "overlay"})
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failure: Exception | None = None
    sent: list[tuple[str, ...]] = field(default_factory=list)

    def takes(self, kind: str) -> bool:
        """Whether `kind` is among `objects`."""
        return kind in self.objects

    def send(self, objects: Sequence[ResultObject]) -> tuple[SendResult, ...]:
        """Remember the objects and answer as told."""
        if self.failure is not None:
            raise self.failure
        self.sent.append(tuple(o.sop_instance_uid for o in objects))
        return tuple(
            SendResult(uid, self.outcomes.get(uid, Outcome.STORED), None, "fake") for uid in self.sent[-1]
        )


@dataclass
class FakeVerificationSession:
    """A session that answers as a test wants, and remembers what it was asked.

    Attributes:
        commits: whether it takes commitment requests.
        finds: whether it can be asked what it has.
        statuses: its answers to commitment requests, 0 when they run out.
        on_request: called with each request before it is answered, for instance to report at once.
        find_failure: why it does not answer `find`; empty if it does.
        has: SOP Instance UIDs of what it has.
        requests: what it was asked to keep.
        failure: raised by every question where set.
        take_report: what takes its reports; set when the session is opened.
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
class FakeVerifiableDestination:
    """A destination with a session that a test prepared.

    Attributes:
        session: the prepared session.
        failure: raised instead of opening the session where set.
    """

    session: FakeVerificationSession = field(default_factory=FakeVerificationSession)
    failure: Exception | None = None

    @contextmanager
    def open_session(self, take_report: TakeReport) -> Iterator[FakeVerificationSession]:
        """The prepared session."""
        if self.failure is not None:
            raise self.failure
        self.session.take_report = take_report
        yield self.session
