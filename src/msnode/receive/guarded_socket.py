"""A socket that reads a PDU only within the limits.

By itself, pynetdicom reads whatever length a PDU declares, before any association is accepted, and waits
forever for the rest of a header once its first byte has come. This socket refuses the former and limits the
time of the latter.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from pynetdicom.transport import AssociationSocket

from msnode.dicom import pynetdicom_seams as seams

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from msnode.receive.limits import Limits

log = structlog.get_logger()

_HEADER_BYTES = 6
_P_DATA = 0x04
_KNOWN_PDUS = range(0x01, 0x08)
_POLL_S = 0.25
_READ_SIZE = 256 * 1024
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.064
_COMMAND_BYTES = 64 * 1024  # no command set comes near
_AWAITING_CLOSE = "Sta13"  # PS3.8 Table 9-4
_REQUEST_BYTES = 256 * 1024  # for an association request; 128 contexts of many transfer syntaxes take a tenth
_DISCARDS = 8
_ABORT = struct.pack(">BBLBBBB", 0x07, 0, 4, 0, 0, 2, 6)
"""A-ABORT by the service provider: invalid PDU parameter value (PS3.8 Table 9-26)."""


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


class GuardedSocket(AssociationSocket):
    """Reads PDUs within the limits. An OSError makes pynetdicom close the connection."""

    def __init__(self, assoc: Association, client_socket: socket.socket, limits: Limits) -> None:
        super().__init__(assoc, client_socket=client_socket)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._limits = limits
        self.opened_at = time.monotonic()
        # The kernel waits for all requested bytes, but not longer than this.
        client_socket.setblocking(True)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_POLL_S))
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limits.idle_timeout_s))
        self._header: memoryview | None = None  # read, and not requested by pynetdicom yet
        self._unread = memoryview(b"")  # came with the bytes that were read before
        self._pdu_type = 0  # of the PDU whose body comes next; 0: a header comes next
        self._deadline = 0.0
        self._message_bytes = self._command_bytes = 0
        self._pause_s = _SHORTEST_PAUSE_S

    @property
    def ready(self) -> bool:
        """Whether there is something to read, after waiting for it a moment.

        pynetdicom sends what another thread has queued when this returns. Therefore the wait is short after
        something was read, since an answer may follow, and grows while nothing comes.
        """
        if not self.event_queue.empty():
            return False  # what was read before comes first
        if self.assoc.dul.state_machine.current_state == _AWAITING_CLOSE:
            self._discard()
            return False  # pynetdicom closes the connection then
        if self._unread:
            return True
        client: socket.socket | None = self.socket
        if client is None or not seams.is_connected(self):
            time.sleep(_SHORTEST_PAUSE_S)
            return False
        poll = select.poll()
        try:
            poll.register(client, select.POLLIN)
            is_ready = bool(poll.poll(1000 * self._pause_s))
        except (OSError, ValueError):  # closed by another thread
            self.event_queue.put("Evt17")
            return False
        self._pause_s = _SHORTEST_PAUSE_S if is_ready else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return is_ready

    def _discard(self) -> None:
        """Take what else has come, because a socket that is closed unread drops the answer before it."""
        client: socket.socket | None = self.socket
        self._unread = self._unread[:0]
        with suppress(OSError):
            for _ in range(_DISCARDS):
                if client is None or not client.recv(_READ_SIZE, socket.MSG_DONTWAIT):
                    return

    def next_data(self) -> memoryview | None:
        """Body of the next PDU, if that is a P-DATA-TF PDU; else None, and `recv` returns it with its header.

        Raises:
            OSError: the PDU is too long, too slow or incomplete.
        """
        self._header = self._read_header(_HEADER_BYTES)
        if self._pdu_type != _P_DATA:
            return None
        (length,) = struct.unpack_from(">L", self._header, 2)
        self._header = None
        body = self._read_body(length)
        if len(body) < length:
            raise OSError("connection closed")
        return body

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer if the peer closes the connection.

        pynetdicom asks for the 6 bytes of a PDU header and then for the rest of that PDU.

        Raises:
            OSError: the PDU is too long or too slow.
        """
        if self._header is not None:
            header, self._header = self._header, None
            return bytearray(header)
        return bytearray(self._read_header(nr_bytes) if self._pdu_type == 0 else self._read_body(nr_bytes))

    def _read_body(self, nr_bytes: int) -> memoryview:
        if nr_bytes > self._limits.max_pdu_bytes:
            raise self._refusal(
                "pdu_too_long", declared_bytes=nr_bytes, allowed_bytes=self._limits.max_pdu_bytes
            )
        body = self._read(nr_bytes)
        if self._pdu_type == _P_DATA:
            self._count_message(body)
        self._pdu_type = 0
        return body

    def _read_header(self, nr_bytes: int) -> memoryview:
        self._deadline = time.monotonic() + self._limits.pdu_timeout_s
        if self._is_before_association():
            self._deadline = min(self._deadline, self.opened_at + self._limits.association_timeout_s)
        header = self._read(nr_bytes)
        if len(header) == _HEADER_BYTES:
            self._check_header(header)
        return header

    def _is_before_association(self) -> bool:
        return self.assoc.requestor.primitive is None

    def _check_header(self, header: memoryview) -> None:
        pdu_type, _, length = struct.unpack(">BBL", header)
        if pdu_type not in _KNOWN_PDUS:
            return  # pynetdicom aborts without reading a body
        allowed = self._limits.max_pdu_bytes
        if self._is_before_association():
            allowed = min(allowed, _REQUEST_BYTES)
        if length > allowed:
            raise self._refusal("pdu_too_long", declared_bytes=length, allowed_bytes=allowed)
        self._pdu_type = pdu_type

    def _read(self, wanted: int) -> memoryview:
        """Read `wanted` bytes, or fewer if the peer closes the connection.

        Further bytes that have come are read with them: each call into the kernel lets another thread have
        the interpreter, so fewer calls are faster.

        Raises:
            OSError: the deadline has passed, or this side has ended the association.
        """
        client: socket.socket | None = self.socket
        if client is None:
            raise OSError("connection closed")
        done = len(self._unread)
        if done >= wanted:
            found, self._unread = self._unread[:wanted], self._unread[wanted:]
            return found
        view = memoryview(bytearray(max(wanted, _READ_SIZE)))
        view[:done], self._unread = self._unread, self._unread[:0]
        while done < wanted:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise self._refusal("pdu_too_slow", received_bytes=done, wanted_bytes=wanted)
            try:
                count = client.recv_into(view[done:])
            except BlockingIOError:
                if seams.is_killed(self.assoc):
                    raise
                continue
            if count == 0:
                return view[:done]
            done += count
        self._unread = view[wanted:done]
        return view[:wanted]

    def _count_message(self, body: memoryview) -> None:
        """Add up the fragments of one message (PS3.8 9.3.5.1, E.2).

        Raises:
            OSError: the message is too long.
        """
        offset = 0
        while offset + 6 <= len(body):
            length, _, control = struct.unpack_from(">LBB", body, offset)
            is_last = control & 2
            if control & 1:  # command, not data set
                self._command_bytes += length
                if self._command_bytes > _COMMAND_BYTES:
                    raise self._refusal("command_too_long", allowed_bytes=_COMMAND_BYTES)
                self._command_bytes = 0 if is_last else self._command_bytes
            else:
                self._message_bytes += length
                if self._message_bytes > self._limits.max_message_bytes:
                    raise self._refusal("message_too_long", allowed_bytes=self._limits.max_message_bytes)
                self._message_bytes = 0 if is_last else self._message_bytes
            offset += 4 + length

    def abort(self) -> None:
        """Send A-ABORT, unless the peer takes nothing any more. The caller closes the connection."""
        client: socket.socket | None = self.socket
        if client is not None:
            with suppress(OSError):
                client.send(_ABORT, socket.MSG_DONTWAIT)
            self._discard()

    def _refusal(self, event: str, **facts: int) -> OSError:
        log.warning(event, address=str(self.assoc.requestor.address), **facts)
        self.abort()
        return OSError(f"refused: {event}")
