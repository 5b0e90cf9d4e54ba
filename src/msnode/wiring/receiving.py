"""The listening side, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from msnode.receive.guard import Limits, Peer
from msnode.receive.scp import Receiver, sop_class_uids
from msnode.receive.spool import Spool
from msnode.series.pixels import same_image

if TYPE_CHECKING:
    from msnode.record.arrivals import Arrivals
    from msnode.settings import Settings
    from msnode.store import Store


log = structlog.get_logger()


def make_receiver(settings: Settings, store: Store, arrivals: Arrivals) -> Receiver:
    """A receiver that is not listening yet; what the record lost in a power cut is recorded again.

    Raises:
        ConfigurationError: a name in receive.also_accept is no storage SOP class.
    """
    receive = settings.receive
    spool = Spool(
        store,
        arrivals,
        same_image=same_image,
        min_free_bytes=receive.min_free_mb * 2**20,
        also_accept=sop_class_uids(receive.also_accept),
    )
    lost = spool.index_again(arrivals.known_digests())
    if lost:
        log.warning("instances recorded again", count=lost)
    limits = Limits(
        max_connections=receive.max_associations,
        max_connections_per_address=receive.max_associations_per_address,
        idle_timeout_s=receive.network_timeout_s,
    )
    peers = [Peer(p.ae_title, tuple(str(a) for a in p.addresses)) for p in receive.peers]
    return Receiver(settings.node.ae_title, receive.address, receive.port, peers, spool, limits=limits)
