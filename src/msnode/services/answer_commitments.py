"""Storage commitment on the listening side (PS3.4 Annex J): takes requests and reports, answers requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from msnode.dicom import commitment
from msnode.dicom.association import open_association
from msnode.dicom.contexts import COMMITMENT
from msnode.errors import AssociationRejected, OutOfResources, PeerUnreachable
from msnode.record import promises

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from msnode.deliver.retry import RetryPolicy
    from msnode.dicom.commitment import Report, Request
    from msnode.dicom.connection import DicomAddress
    from msnode.record.database import Database, Transaction
    from msnode.record.promises import OpenReport
    from msnode.store import Store

    EnqueueReport = Callable[[Transaction, OpenReport], None]
    """Has the engine run `CommitmentResponder.run(open_.id)` as workflow `open_.workflow_id` in time."""

log = structlog.get_logger()


class CommitmentListener:
    """What the receiver's `Commitment` is in a node.

    Args:
        database: the record.
        take_report: notes what a destination reports, with the names that its sender may speak for.
        reporters: calling AE title → names of the destinations of that title.
        requesters: calling AE titles of the peers whose requests are answered.
        enqueue: has the engine answer a request, in the given transaction.
    """

    def __init__(
        self,
        database: Database,
        take_report: Callable[[Report, Collection[str]], int],
        reporters: Mapping[str, Collection[str]],
        requesters: Collection[str],
        enqueue: EnqueueReport,
    ) -> None:
        self._database = database
        self._take_report = take_report
        self._reporters = reporters
        self._requesters = requesters
        self._enqueue = enqueue

    def report(self, report: Report, calling_ae: str) -> int:
        """Note what a destination reports; returns the status that answers it."""
        return self._take_report(report, self._reporters.get(calling_ae, ()))

    def request(self, request: Request, calling_ae: str) -> int:
        """Note what a peer asks to keep, to be answered later; returns the status that answers it now."""
        if calling_ae not in self._requesters:
            log.warning("commitment_request_refused", calling_ae=calling_ae)
            return commitment.NOT_AUTHORISED
        try:
            with self._database.write() as tx:
                taken = promises.note_request(tx, request, calling_ae=calling_ae, at=_now())
                if taken is not None:
                    self._enqueue(tx, taken)
        except OutOfResources as error:
            log.warning("commitment_request_not_noted", calling_ae=calling_ae, error=error)
            return commitment.PROCESSING_FAILURE
        log.info(
            "commitment_request_taken", transaction_uid=request.transaction_uid, calling_ae=calling_ae,
            count=len(request.instances),
        )  # fmt: skip
        return commitment.SUCCESS


class CommitmentResponder:
    """Runs the workflow `report`: decides about a peer's request, and tells the peer.

    Args:
        database: the record.
        store: where received bytes lie.
        addresses: calling AE title of a peer → where it takes reports.
        calling_ae: our AE title.
        retry: when to try again, and when that was enough.
        enqueue: has the engine try again, in the given transaction.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        addresses: Mapping[str, DicomAddress],
        *,
        calling_ae: str,
        retry: RetryPolicy,
        enqueue: EnqueueReport,
    ) -> None:
        self._database = database
        self._store = store
        self._addresses = addresses
        self._calling_ae = calling_ae
        self._retry = retry
        self._enqueue = enqueue

    def run(self, request_id: int) -> None:
        """Answer one request; safe to call again after a crash.

        Raises:
            OutOfResources: the record cannot be used; call again.
        """
        with (
            self._database.write() as tx
        ):  # a promise is kept from here on, whether the peer hears of it or not
            open_ = promises.open_report(tx, request_id)
            if open_ is None:
                return
            report = promises.promise(tx, open_.request, has_bytes=self._store.has_blob)
        failure = self._tell(open_, report)
        with self._database.write() as tx:
            if not failure:
                promises.reported(tx, open_, report, at=_now())
            elif open_.calling_ae not in self._addresses:
                promises.report_never(tx, open_, at=_now(), note=failure)
            else:
                later = promises.report_later(tx, open_, at=_now(), delay=self._retry.delay, note=failure)
                if later is not None:
                    self._enqueue(tx, later)
        log.info(
            "commitment_request_answered", state="not yet" if failure else "reported",
            transaction_uid=report.transaction_uid, calling_ae=open_.calling_ae,
            kept_count=len(report.kept), failed_count=len(report.failed), attempt=open_.attempts + 1,
        )  # fmt: skip

    def _tell(self, open_: OpenReport, report: Report) -> str:
        """Report over an association of our own; returns why that failed, empty where it did not."""
        address = self._addresses.get(open_.calling_ae)
        if address is None:
            return "the configuration no longer says where this peer takes reports"
        try:
            with open_association(address, self._calling_ae, [COMMITMENT], reporting=True) as association:
                if not association.accepts(COMMITMENT):
                    return f"{address} takes no reports of storage commitment"
                status = association.report_commitment(report).status
        except (PeerUnreachable, AssociationRejected) as error:
            return str(error)
        return f"report answered with status 0x{status:04X}" if status != commitment.SUCCESS else ""


def _now() -> datetime:
    return datetime.now(UTC)
