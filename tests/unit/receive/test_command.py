import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.pdu import P_DATA_TF

from msnode.receive.command import command_pdus, file_meta, store_command


def request_command(instance: str = "1.2.3.45") -> bytes:
    """The command set of a request as pynetdicom writes it."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = MRImageStorage
    request.AffectedSOPInstanceUID = instance
    request.Priority = 2
    request.DataSet = BytesIO(b"data")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    first = next(message.encode_msg(1, 0))
    return first.presentation_data_value_list[0][1][1:]


def read_response(pdus: bytes) -> C_STORE:
    """A response as pynetdicom reads it."""
    message, offset = DIMSEMessage(), 0
    while offset < len(pdus):
        (length,) = struct.unpack_from(">L", pdus, offset + 2)
        pdu = P_DATA_TF()
        pdu.decode(pdus[offset : offset + 6 + length])
        done = message.decode_msg(pdu.to_primitive())
        offset += 6 + length
    assert done
    return message.message_to_primitive()


@pytest.mark.parametrize("instance", ["1.2.3.45", "1.2.3.456"])
def test_request_is_read(instance: str) -> None:
    command = store_command(request_command(instance))
    assert (command.message_id, command.has_data_set) == (7, True)
    assert (command.sop_class_uid, command.sop_instance_uid) == (MRImageStorage, instance)


@pytest.mark.parametrize("max_pdu_bytes", [0, 16384, 50])
@pytest.mark.parametrize(
    ("status", "comment"), [(0x0000, ""), (0xA700, "no room to store"), (0xC000, "x" * 99)]
)
def test_response_says_what_it_answers(max_pdu_bytes: int, status: int, comment: str) -> None:
    command = store_command(request_command())
    response = read_response(command_pdus(1, command.response(status, comment), max_pdu_bytes))
    assert (response.MessageIDBeingRespondedTo, response.Status) == (7, status)
    assert (response.AffectedSOPClassUID, response.AffectedSOPInstanceUID) == (MRImageStorage, "1.2.3.45")
    assert (response.ErrorComment or "") == comment[:64]


def test_command_of_another_message_is_none() -> None:
    echo = struct.pack("<HHLH", 0, 0x0100, 2, 0x0030)
    assert store_command(echo) is None


@pytest.mark.parametrize("cut", [1, 4, 9, 30])
def test_command_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="not a command set"):
        store_command(request_command()[:-cut])


@given(noise=st.binary(max_size=100))
def test_noise_is_no_request(noise: bytes) -> None:
    try:
        assert store_command(noise) is None or len(noise) > 50
    except ValueError as error:
        assert str(error) == "not a command set"  # noqa: PT017 - either is right


@pytest.mark.parametrize("instance", ["1.2.3.45", "1.2.3.456"])
def test_file_meta_is_that_of_pynetdicom(instance: str) -> None:
    """Of an instance sent again after an upgrade the bytes, and so the digest, must be those known."""
    theirs = create_file_meta(
        sop_class_uid=MRImageStorage, sop_instance_uid=UID(instance), transfer_syntax=ExplicitVRLittleEndian
    )
    assert file_meta(MRImageStorage, instance, ExplicitVRLittleEndian) == encode_file_meta(theirs)
