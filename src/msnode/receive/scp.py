"""The listener: Verification, Storage and Storage Commitment as SCP (PS3.4 Annexes A, B and J)."""

from __future__ import annotations

import sys
import threading
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from msnode import crash_points
from msnode.dicom import commitment
from msnode.dicom.uids import MR_IMAGE_CLASSES
from msnode.domain.arrivals import AssociationFacts
from msnode.errors import ConfigurationError, OutOfResources
from msnode.receive.accepted import TRANSFER_SYNTAXES
from msnode.receive.admission import Admission
from msnode.receive.guard import GuardedServer, end_waiting
from msnode.receive.limits import Limits
from msnode.receive.request import OUT_OF_RESOURCES, SUCCESS, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.pdu_primitives import A_ASSOCIATE

    from msnode.dicom.commitment import Report, Request
    from msnode.receive.admission import Peer
    from msnode.receive.request import StoreRequest
    from msnode.receive.spool import Spool

log = structlog.get_logger()

_WITHOUT_INSTANCES = frozenset({Verification, commitment.SOP_CLASS_UID})
"""SOP classes that bring no instance."""
_APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
_CALLING_AE_NOT_RECOGNISED, _CALLED_AE_NOT_RECOGNISED = (1, 1, 3), (1, 1, 7)
_APPLICATION_CONTEXT_NOT_SUPPORTED, _NO_REASON_GIVEN = (1, 1, 2), (1, 2, 1)
"""Result, source and reason of A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""


class CommitmentHandler(Protocol):
    """What the node does with storage commitment. It is called from several threads and never raises."""

    def report(self, report: Report, calling_ae: str) -> int:
        """Take a destination's report; returns the status that answers it."""

    def request(self, request: Request, calling_ae: str) -> int:
        """Take a peer's request for safekeeping; returns the status that answers it."""


class Receiver:
    """Listens for associations and hands every instance to the spool.

    Args:
        ae_title: our AE title; callers must name it.
        address: where to listen.
        port: 0 takes any free port; the property `port` says which.
        peers: who may call; if empty, any AE title from loopback.
        spool: what stores instances; its `also_accept` classes are accepted too.
        limits: what a peer may send, hold and open.
        commitment: takes reports and requests of storage commitment; if None, the class is not accepted.
        reporters: destinations that may report on storage commitment. One that is not among `peers` may do
            nothing else.
    """

    def __init__(
        self,
        ae_title: str,
        address: str,
        port: int,
        peers: Sequence[Peer],
        spool: Spool,
        *,
        limits: Limits | None = None,
        commitment: CommitmentHandler | None = None,
        reporters: Sequence[Peer] = (),
    ) -> None:
        self._address = address
        self._wanted_port = port
        self._admission = Admission(peers, reporters)
        self._spool = spool
        self._commitment = commitment
        self._limits = limits or Limits()
        self._ae = self._application_entity(ae_title)
        self._facts: dict[Association, AssociationFacts] = {}
        self._recorded: set[Association] = set()
        self._lock = threading.Lock()
        self._server: GuardedServer | None = None
        self._thread: threading.Thread | None = None

    def _application_entity(self, ae_title: str) -> AE:
        ae = AE(ae_title=ae_title)
        # The guard bounds connections; pynetdicom would also count those that it has not ended quite yet.
        ae.maximum_associations = sys.maxsize
        ae.maximum_pdu_size = self._limits.announced_pdu_bytes
        ae.acse_timeout = self._limits.association_timeout_s
        ae.dimse_timeout = self._limits.idle_timeout_s
        ae.network_timeout = self._limits.idle_timeout_s
        ae.add_supported_context(Verification)
        for uid in sorted(MR_IMAGE_CLASSES | self._spool.also_accept):
            ae.add_supported_context(uid, list(TRANSFER_SYNTAXES))
        if self._commitment is not None:
            # A destination that reports is the SCP on an association that it opens, and negotiates that role.
            ae.add_supported_context(commitment.SOP_CLASS_UID, scu_role=True, scp_role=True)
        return ae

    @property
    def port(self) -> int:
        """The port listened on."""
        if self._server is None:
            raise RuntimeError("not started")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Start to listen, and return at once.

        Raises:
            ConfigurationError: the address or port is not available.
        """
        handlers = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_CONN_CLOSE, lambda event: end_waiting(event.assoc)),
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            *self._commitment_handlers(),
        ]
        try:
            server = GuardedServer(
                self._ae,
                (self._address, self._wanted_port),
                handlers=handlers,
                limits=self._limits,
                store=self._store,
                ended=self._ended,
                admission=self._admission,
                disk=self._spool.disk,
            )
        except OSError as error:
            where = f"{self._address}:{self._wanted_port}"
            raise ConfigurationError(f"cannot listen on {where}: {error.strerror}") from error
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.1,), name="receiver", daemon=True
        )
        self._thread.start()

    def _commitment_handlers(self) -> list[tuple[Any, Callable[[Event], Any]]]:
        """What handles reports and requests. If it raises on unreadable bytes, pynetdicom answers 0x0110."""
        handler = self._commitment
        if handler is None:
            return []

        def answer_report(event: Event) -> tuple[int, None]:
            report = commitment.read_report(event)
            if isinstance(report, int):  # the status that refuses it
                return report, None
            return handler.report(report, _calling_ae(event.assoc)), None

        def answer_request(event: Event) -> tuple[int, None]:
            request = commitment.read_request(event)
            if isinstance(request, int):
                return request, None
            return handler.request(request, _calling_ae(event.assoc)), None

        return [(evt.EVT_N_EVENT_REPORT, answer_report), (evt.EVT_N_ACTION, answer_request)]

    def stop(self) -> None:
        """Stop listening and abort open associations, whose series then count as interrupted."""
        if self._server is None or self._thread is None:
            return
        self._server.stop_listening()
        self._thread.join()
        for association in self._server.active_associations:
            association.abort()
            end_waiting(association)
            association.join()
        self._server = self._thread = None

    def _requested(self, event: Event) -> None:
        association = event.assoc
        calling, called = _calling_ae(association), _called_ae(association)
        address = str(association.requestor.address)
        if reason := _malformed(cast("A_ASSOCIATE", association.requestor.primitive)):
            if count := self._counted("association_request_malformed", address):
                log.warning("association_request_malformed", address=address, count=count)
            _reject(association, *reason)
        elif called != self._ae.ae_title:
            if count := self._counted("called_ae_rejected", address):
                log.warning(
                    "called_ae_rejected", calling_ae=calling, called_ae=called, address=address, count=count
                )
            _reject(association, *_CALLED_AE_NOT_RECOGNISED)
        elif self._admission.admits(calling, address):
            return
        elif self._admission.may_report(calling, address):
            association.acceptor.supported_contexts = [
                c for c in association.acceptor.supported_contexts if c.abstract_syntax in _WITHOUT_INSTANCES
            ]
        else:
            if count := self._counted("caller_rejected", address):
                log.warning("caller_rejected", calling_ae=calling, address=address, count=count)
            _reject(association, *_CALLING_AE_NOT_RECOGNISED)

    def _counted(self, *key: str) -> int:
        """How many of these to log now; see `Counted`."""
        return 0 if self._server is None else self._server.counted.count(*key)

    def _accepted(self, event: Event) -> None:
        association = event.assoc
        if all(c.abstract_syntax in _WITHOUT_INSTANCES for c in association.accepted_contexts):
            return  # it can bring no instance, so it needs no record
        facts = AssociationFacts(
            association_id=uuid.uuid4().hex,
            calling_ae=_calling_ae(association),
            called_ae=_called_ae(association),
            address=str(association.requestor.address),
            opened_at=datetime.now(UTC),
        )
        with self._lock:
            self._facts[association] = facts
        self._record_opening(association, facts)

    def _record_opening(self, association: Association, facts: AssociationFacts) -> bool:
        """Record that an association was opened; False if the record has no room now."""
        try:
            self._spool.ledger.association_opened(facts)
        except OutOfResources as error:
            if count := self._counted("association_not_recorded"):
                log.error("association_not_recorded", count=count, error=error)  # noqa: TRY400 - a traceback adds nothing
            return False
        with self._lock:
            self._recorded.add(association)
        log.info("association_opened", association_id=facts.association_id, calling_ae=facts.calling_ae)
        return True

    def _store(self, association: Association, request: StoreRequest) -> Answer:
        with self._lock:
            facts, is_recorded = self._facts[association], association in self._recorded
        if is_recorded or self._record_opening(association, facts):
            return self._spool.receive(request, facts)
        return Answer(OUT_OF_RESOURCES, "no room to record")

    def _ended(self, association: Association) -> None:
        """Record the end of an association, whatever its reason."""
        with self._lock:
            facts, is_recorded = self._facts.pop(association, None), association in self._recorded
            self._recorded.discard(association)
        if facts is None or not is_recorded:
            return  # it was never accepted, or brought no instance
        released = bool(association.is_released)
        log.info(
            "association_closed",
            association_id=facts.association_id,
            state="released" if released else "interrupted",
        )
        crash_points.reach("association-ended")
        try:
            self._spool.ledger.association_closed(
                facts.association_id, released=released, at=datetime.now(UTC)
            )
        except OutOfResources as error:
            log.error(  # noqa: TRY400 - a traceback adds nothing
                "association_end_not_recorded", association_id=facts.association_id, error=error
            )


def _calling_ae(association: Association) -> str:
    return str(cast("A_ASSOCIATE", association.requestor.primitive).calling_ae_title).strip()


def _called_ae(association: Association) -> str:
    return str(cast("A_ASSOCIATE", association.requestor.primitive).called_ae_title).strip()


def _malformed(request: A_ASSOCIATE) -> tuple[int, int, int] | None:
    """Result, source and reason to reject what lacks part of a request (PS3.8 9.3.2); None if it has all."""
    if str(request.application_context_name or "") != _APPLICATION_CONTEXT_NAME:
        return _APPLICATION_CONTEXT_NOT_SUPPORTED
    context_ids = [context.context_id for context in request.presentation_context_definition_list]
    if not context_ids or len(set(context_ids)) < len(context_ids) or not request.user_information:
        return _NO_REASON_GIVEN
    return None


def _reject(association: Association, result: int, source: int, reason: int) -> None:
    association.acse.send_reject(result, source, reason)
    association.kill()  # waits until the rejection is sent
