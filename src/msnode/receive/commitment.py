"""Storage commitment at the door (PS3.4 Annex J): reports of destinations in, requests of peers in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from msnode.dicom import commitment

if TYPE_CHECKING:
    from pynetdicom.events import Event

    from msnode.dicom.commitment import Report, Request


class Commitment(Protocol):
    """What the receiver does with storage commitment; called from several threads, never raises."""

    def report(self, report: Report, calling_ae: str) -> int:
        """Take what a destination reports; returns the status that answers it."""

    def request(self, request: Request, calling_ae: str) -> int:
        """Take what a peer asks to keep; returns the status that answers it."""


@dataclass
class MemoryCommitment:
    """For tests: keeps what it was told, by calling AE title, and answers `status`."""

    status: int = commitment.SUCCESS
    reports: list[tuple[str, Report]] = field(default_factory=list)
    requests: list[tuple[str, Request]] = field(default_factory=list)

    def report(self, report: Report, calling_ae: str) -> int:
        """Keep it."""
        self.reports.append((calling_ae, report))
        return self.status

    def request(self, request: Request, calling_ae: str) -> int:
        """Keep it."""
        self.requests.append((calling_ae, request))
        return self.status


def answer_report(event: Event, there: Commitment, calling_ae: str) -> tuple[int, None]:
    """Handle an N-EVENT-REPORT; where the bytes cannot be read and this raises, pynetdicom answers 0x0110."""
    report = commitment.read_report(event)
    return (report if isinstance(report, int) else there.report(report, calling_ae)), None


def answer_request(event: Event, there: Commitment, calling_ae: str) -> tuple[int, None]:
    """Handle an N-ACTION; see `answer_report`."""
    request = commitment.read_request(event)
    return (request if isinstance(request, int) else there.request(request, calling_ae)), None
