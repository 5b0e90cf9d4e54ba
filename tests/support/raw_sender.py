"""A storage SCU of which a test decides every byte, and when it is sent."""

import socket
import struct
from collections.abc import Iterator
from io import BytesIO

from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

_CONTEXTS = (MRImageStorage, Verification)
_RELEASE_RQ = struct.pack(">BBLL", 0x05, 0, 4, 0)
_PDU_BYTES = 65536


class RawSender:
    """One association with an open socket; `close` hangs up."""

    def __init__(self, port: int, *, called: str = "MSNODE", calling: str = "SENDER") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_association_request(called, calling))
        pdu_type, body = self.receive()
        assert pdu_type == 0x02, f"association answered with PDU type {pdu_type}"
        accepted = A_ASSOCIATE_AC()
        accepted.decode(struct.pack(">BBL", 2, 0, len(body)) + body)
        self.max_pdu_bytes: int = accepted.user_information.maximum_length or _PDU_BYTES

    def receive(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 where the other side has hung up."""
        header = self._exactly(6)
        if header is None:
            return 0, b""
        pdu_type, _, length = struct.unpack(">BBL", header)
        return pdu_type, self._exactly(length) or b""

    def _exactly(self, count: int) -> bytes | None:
        found = b""
        while len(found) < count:
            try:
                part = self.socket.recv(count - len(found))
            except ConnectionResetError:
                return None
            if not part:
                return None
            found += part
        return found

    def status(self) -> int:
        """Status of the next C-STORE or C-ECHO response."""
        message = DIMSEMessage()
        while True:
            pdu_type, body = self.receive()
            assert pdu_type == 0x04, f"PDU type {pdu_type} in place of a response"
            pdu = P_DATA_TF()
            pdu.decode(struct.pack(">BBL", 4, 0, len(body)) + body)
            if message.decode_msg(pdu.to_primitive()):
                return int(message.command_set.Status)

    def store(self, instance_uid: str, data: bytes) -> int:
        """Send an instance and wait for the status."""
        self.socket.sendall(b"".join(store_pdus(instance_uid, data, max_pdu_bytes=self.max_pdu_bytes)))
        return self.status()

    def echo(self) -> int:
        """Send a C-ECHO and wait for the status."""
        self.socket.sendall(b"".join(echo_pdus()))
        return self.status()

    def release(self) -> None:
        """End the association as the standard says."""
        self.socket.sendall(_RELEASE_RQ)
        assert self.receive()[0] == 0x06
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def store_pdus(
    instance_uid: str, data: bytes, *, sop_class: str = MRImageStorage, max_pdu_bytes: int = _PDU_BYTES
) -> Iterator[bytes]:
    """The PDUs of a C-STORE request: the first carries the command, each of the others a part of the data."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class), UID(instance_uid)
    request.DataSet = BytesIO(data)
    yield from _pdus(C_STORE_RQ(), request, 1, max_pdu_bytes)


def echo_pdus() -> Iterator[bytes]:
    """The PDU of a C-ECHO request."""
    request = C_ECHO()
    request.MessageID, request.AffectedSOPClassUID = 2, Verification
    yield from _pdus(C_ECHO_RQ(), request, 3, _PDU_BYTES)


def _pdus(message: DIMSEMessage, request: object, context_id: int, max_pdu_bytes: int) -> Iterator[bytes]:
    message.primitive_to_message(request)
    for each in message.encode_msg(context_id, max_pdu_bytes):
        yield P_DATA_TF(each).encode()


def _association_request(called: str, calling: str) -> bytes:
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.called_ae_title, request.calling_ae_title = called, calling
    contexts = []
    for number, uid in enumerate(_CONTEXTS):
        context = build_context(uid, ExplicitVRLittleEndian)
        context.context_id = 2 * number + 1
        contexts.append(context)
    request.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = _PDU_BYTES, UID("1.2.3")
    request.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(request).encode())
