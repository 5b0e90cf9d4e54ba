import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_primitives import C_STORE

from msnode.dicom import connection
from msnode.dicom.association import echo, open_association
from msnode.dicom.connection import DicomAddress
from msnode.dicom.contexts import VERIFICATION, Context
from msnode.errors import AssociationRejected, MsnodeError, PeerUnreachable
from support.peers import answering_scp, free_port, in_time

MR = Context(MRImageStorage, ExplicitVRLittleEndian)


def _address(port, aet="ANSWERS", host="127.0.0.1"):
    return DicomAddress(aet, host, port)


def _pairs(*contexts):
    return [(c.sop_class_uid, c.transfer_syntax_uid) for c in contexts]


@contextmanager
def _listener(behave):
    """A TCP listener that hands its first connection to `behave`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_name_without_a_dot_is_resolved():
    with answering_scp(_pairs(VERIFICATION)) as port:
        assert echo(_address(port, host="localhost"), "MSNODE").status == 0


def test_a_refused_association_says_why():
    with (
        answering_scp(_pairs(VERIFICATION)) as port,
        pytest.raises(AssociationRejected, match=r"NOBODY at 127.* permanently: called ae title not recog"),
    ):
        echo(_address(port, aet="NOBODY"), "MSNODE")


def test_nobody_listens():
    with pytest.raises(PeerUnreachable, match="no connection"):
        in_time(lambda: echo(_address(free_port()), "MSNODE"))


def test_no_such_host():
    with pytest.raises(PeerUnreachable, match="not resolved"):
        echo(_address(104, host="no-such-host.invalid"), "MSNODE")


def _silent(connection):
    connection.settimeout(60)
    with suppress(ConnectionResetError):
        while connection.recv(65536):  # until the node hangs up
            pass


def _garbage(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    _silent(connection)


def _truncated(connection):
    connection.recv(65536)
    connection.sendall(b"\x02\x00\x00\x00\x00\xff\x00\x01")


@pytest.mark.parametrize("behave", [lambda _connection: None, _silent, _garbage, _truncated])
def test_no_error_of_a_lower_layer_leaks(behave, monkeypatch):
    monkeypatch.setattr(connection, "_NEGOTIATE_S", 0.3)
    with _listener(behave) as port, pytest.raises(MsnodeError) as caught:
        in_time(lambda: echo(_address(port), "MSNODE"), timeout_s=12)  # not only after the usual 15 s
    assert isinstance(caught.value, PeerUnreachable)


def test_a_response_that_the_association_s_own_thread_took_comes_back():
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = 1, 0x0000
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = MRImageStorage, "1.2.3"
    with answering_scp(_pairs(MR)) as port, open_association(_address(port), "MSNODE", [MR]) as found:
        association = found._association
        association._reactor_checkpoint.clear()  # as while a request waits
        association._serve_request(response, 1)
        assert association.dimse.msg_queue.get_nowait() == (1, response)
        association._reactor_checkpoint.set()
        association._serve_request(response, 1)
        assert association.dimse.msg_queue.empty()
