"""What the listener allows a peer to send, to hold and to open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the listener, with defaults for one node.

    Attributes:
        max_pdu_bytes: longest PDU that a peer may declare; the length announced in negotiation is shorter.
        announced_pdu_bytes: Maximum Length offered to peers for P-DATA (PS3.8 D.1).
        pdu_timeout_s: time for one PDU to arrive, from its first byte on.
        max_message_bytes: largest data set of one message.
        max_held_bytes: memory for the data sets of all associations together. A large one is on disk, but for
            8 MiB. What finds no room is answered 0xA700.
        max_connections: open connections in all.
        max_connections_per_address: open connections from one address.
        association_timeout_s: time from the connection until the association request has come in whole.
        idle_timeout_s: silence after which an association is ended.
    """

    max_pdu_bytes: int = 1024 * 1024
    announced_pdu_bytes: int = 256 * 1024
    pdu_timeout_s: float = 30
    max_message_bytes: int = 1024**3
    max_held_bytes: int = 2 * 1024**3
    max_connections: int = 64
    max_connections_per_address: int = 32
    association_timeout_s: float = 10
    idle_timeout_s: float = 60
