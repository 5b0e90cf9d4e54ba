"""The listening side, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from msnode.deliver.retry import RetryPolicy
from msnode.receive.accepted import sop_class_uids
from msnode.receive.admission import Peer
from msnode.receive.limits import Limits
from msnode.receive.scp import Receiver
from msnode.receive.spool import Spool
from msnode.series.comparison import same_image
from msnode.services.answer_commitments import CommitmentListener
from msnode.services.confirm_storage import Reports
from msnode.settings import DicomDestination
from msnode.wiring.destinations import reporting_addresses

if TYPE_CHECKING:
    from msnode.record.arrivals import Arrivals
    from msnode.record.database import Database
    from msnode.services.dispatch import Dispatcher
    from msnode.settings import Settings
    from msnode.store import Store

log = structlog.get_logger()


def make_receiver(
    settings: Settings, store: Store, arrivals: Arrivals, database: Database, dispatch: Dispatcher
) -> Receiver:
    """A receiver that is not listening yet; what the record lost in a power cut is recorded again.

    Raises:
        ConfigurationError: a name in receive.also_accept is not a storage SOP class.
    """
    receive = settings.receive
    spool = Spool(
        store,
        arrivals,
        same_image=same_image,
        min_free_bytes=receive.min_free_mb * 2**20,
        also_accept=sop_class_uids(receive.also_accept),
    )
    lost = spool.recover_unrecorded()
    if lost:
        log.warning("instances_recorded_again", count=lost)
    limits = Limits(
        max_connections=receive.max_associations,
        max_connections_per_address=receive.max_associations_per_address,
        idle_timeout_s=receive.network_timeout_s,
    )
    peers = [Peer(p.ae_title, tuple(str(a) for a in p.addresses)) for p in receive.peers]
    return Receiver(
        settings.node.ae_title, receive.address, receive.port, peers, spool,
        limits=limits,
        commitment=_commitment_listener(settings, database, dispatch),
        reporters=[Peer(d.ae_title, (d.host,)) for d in _committing(settings)],
    )  # fmt: skip


def _commitment_listener(settings: Settings, database: Database, dispatch: Dispatcher) -> CommitmentListener:
    reporters: dict[str, set[str]] = {}
    for each in _committing(settings):
        reporters.setdefault(each.ae_title, set()).add(each.name)
    reports = Reports(database, RetryPolicy(**settings.retry.model_dump()), dispatch)
    return CommitmentListener(
        database, reports.take, reporters, reporting_addresses(settings), dispatch.enqueue_report
    )


def _committing(settings: Settings) -> list[DicomDestination]:
    """The destinations that confirm by storage commitment, and so may call to report."""
    return [d for d in settings.destinations if isinstance(d, DicomDestination) and d.verify == "commitment"]
