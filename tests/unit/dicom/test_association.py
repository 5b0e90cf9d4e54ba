import threading
from contextlib import contextmanager

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SegmentationStorage,
)
from pynetdicom.dsutils import split_dataset
from pynetdicom.pdu import P_DATA_TF

from msnode.dicom import connection
from msnode.dicom.association import Found, echo, open_association
from msnode.dicom.commitment import Reference, Request, read_request
from msnode.dicom.connection import DicomAddress
from msnode.dicom.contexts import COMMITMENT, FIND, VERIFICATION, Context
from msnode.errors import PeerUnreachable
from support.dicom_files import flair_series
from support.peers import answering_scp, in_time

MR = Context(MRImageStorage, ExplicitVRLittleEndian)
SEG = Context(SegmentationStorage, ExplicitVRLittleEndian)
SR = Context(Comprehensive3DSRStorage, ExplicitVRLittleEndian)


def _address(port, aet="ANSWERS", host="127.0.0.1"):
    return DicomAddress(aet, host, port)


def _pairs(*contexts):
    return [(c.sop_class_uid, c.transfer_syntax_uid) for c in contexts]


@contextmanager
def _mr_association(store):
    with (
        answering_scp(_pairs(MR), store=store) as port,
        open_association(_address(port), "MSNODE", [MR]) as found,
    ):
        yield found


def test_echo_says_what_the_peer_would_take():
    implicit_seg = Context(SegmentationStorage, ImplicitVRLittleEndian)
    with answering_scp(_pairs(VERIFICATION, SEG)) as port:
        result = echo(_address(port), "MSNODE", [SEG, implicit_seg, SR])
    assert result.status == 0
    assert result.elapsed_s > 0
    assert result.refusals == {
        implicit_seg: "transfer syntax(es) not supported",
        SR: "abstract syntax not supported",
    }


def test_echo_of_a_peer_without_verification():
    with answering_scp(_pairs(SEG)) as port:
        assert echo(_address(port), "MSNODE", [SEG]).status is None


def test_a_peer_that_accepts_no_context_accepts_nothing():
    with (
        answering_scp(_pairs(VERIFICATION)) as port,
        open_association(_address(port), "MSNODE", [SEG, SR]) as found,
    ):
        assert not found.accepts(SEG)
        assert set(found.refusals()) == {SEG, SR}


def test_the_data_set_goes_byte_for_byte(tmp_path):
    (path,) = flair_series(tmp_path, slices=1, PatientName="Müller^Ødegård  ")
    meta, offset = split_dataset(path)
    content = path.read_bytes()[offset:]
    received = []

    def store(event):
        received.append((event.request.DataSet.getvalue(), event.request.AffectedSOPInstanceUID))
        return 0x0000

    with (
        answering_scp(_pairs(MR), store=store) as port,
        open_association(_address(port), "MSNODE", [MR]) as a,
    ):
        assert a.store(path).status == 0
        assert a.store(path).status == 0
    assert received == [(content, meta.MediaStorageSOPInstanceUID)] * 2


def test_a_file_is_never_converted_to_another_syntax(tmp_path):
    (path,) = flair_series(tmp_path, slices=1)
    implicit = Context(MRImageStorage, ImplicitVRLittleEndian)
    with answering_scp(_pairs(implicit)) as port:
        contexts = [MR, implicit, Context(MRImageStorage, ExplicitVRBigEndian)]
        with open_association(_address(port), "MSNODE", contexts) as a:
            assert a.accepts(implicit)
            assert not a.accepts(MR)
            with pytest.raises(ValueError, match="No presentation context"):
                a.store(path)  # the caller asks `accepts` first


def test_comment_of_the_peer(tmp_path):
    (path,) = flair_series(tmp_path, slices=1)

    def store(event):
        answer = Dataset()
        answer.Status, answer.ErrorComment = 0xA700, "disk full"
        return answer

    with (
        answering_scp(_pairs(MR), store=store) as port,
        open_association(_address(port), "MSNODE", [MR]) as a,
    ):
        answer = a.store(path)
    assert (answer.status, answer.comment) == (0xA700, "disk full")


def test_a_peer_that_aborts_in_the_middle(tmp_path):
    (path,) = flair_series(tmp_path, slices=1)

    def store(event):
        event.assoc.abort()
        return 0x0000

    with (
        answering_scp(_pairs(MR), store=store) as port,
        open_association(_address(port), "MSNODE", [MR]) as a,
    ):
        with pytest.raises(PeerUnreachable, match="association lost"):
            a.store(path)
        with pytest.raises(PeerUnreachable, match="association lost"):
            a.store(path)


def test_a_peer_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 0.3)
    (path,) = flair_series(tmp_path, slices=1)
    release = threading.Event()

    def store(event):
        release.wait(120)
        return 0x0000

    with answering_scp(_pairs(MR), store=store) as port:
        with (
            open_association(_address(port), "MSNODE", [MR]) as a,
            pytest.raises(PeerUnreachable, match="no answer"),
        ):
            in_time(lambda: a.store(path))
        release.set()


def test_a_peer_that_stops_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_STALL_S", 0.3)
    monkeypatch.setattr(connection, "ANSWER_S", 2)
    pixels = np.zeros((1, 4096, 4096), dtype=np.uint16)  # 32 MiB: more than the sockets' buffers hold
    (path,) = flair_series(tmp_path, pixels=pixels)
    release = threading.Event()

    def hold(event):
        if isinstance(event.pdu, P_DATA_TF):
            release.wait(120)

    with answering_scp(_pairs(MR), EVT_PDU_RECV=hold) as port:
        with (
            open_association(_address(port), "MSNODE", [MR]) as a,
            pytest.raises(PeerUnreachable, match="association lost"),
        ):
            in_time(lambda: a.store(path))
        release.set()


def _found(uids, status=0x0000):
    """A C-FIND handler that names these instances of the series that is asked for."""

    def handle(event):
        asked = event.identifier
        assert (asked.QueryRetrieveLevel, asked.StudyInstanceUID) == ("IMAGE", "1.2.1")
        for uid in uids:
            match = Dataset()
            match.QueryRetrieveLevel, match.SeriesInstanceUID = "IMAGE", asked.SeriesInstanceUID
            match.SOPInstanceUID = uid
            yield 0xFF00, match
        if status:
            yield status, None

    return handle


@contextmanager
def _association(contexts, proposed=None, **handlers):
    with (
        answering_scp(_pairs(*contexts), **handlers) as port,
        open_association(_address(port), "MSNODE", proposed or contexts) as found,
    ):
        yield found


def test_find_names_the_instances_of_a_series():
    with _association([FIND], EVT_C_FIND=_found(["1.2.3.1", "1.2.3.2"])) as a:
        assert a.find("1.2.1", "1.2.2") == Found(frozenset({"1.2.3.1", "1.2.3.2"}))


def test_find_that_fails_is_no_answer():
    with _association([FIND], EVT_C_FIND=_found(["1.2.3.1"], 0xA700)) as a:
        assert a.find("1.2.1", "1.2.2").failure == "C-FIND answered with status 0xA700"


def test_a_peer_that_goes_away_while_it_is_asked():
    def leave(event):
        event.assoc.abort()
        yield 0x0000, None

    with (
        _association([FIND], EVT_C_FIND=leave) as a,
        pytest.raises(PeerUnreachable, match="association lost"),
    ):
        a.find("1.2.1", "1.2.2")


def test_a_commitment_request_over_the_wire():
    request = Request("1.2.9", (Reference("1.2.840.1", "1.2.3.1"), Reference("1.2.840.1", "1.2.3.2")))
    seen = []

    def act(event):
        seen.append(read_request(event))
        return (0x0000 if len(seen) == 1 else 0x0213), None

    with _association([COMMITMENT], EVT_N_ACTION=act) as a:
        assert a.accepts(COMMITMENT)
        assert [a.request_commitment(request).status for _ in range(2)] == [0x0000, 0x0213]
    assert seen == [request, request]


def test_a_commitment_request_that_is_not_answered():
    def leave(event):
        event.assoc.abort()
        return 0x0000, None

    with (
        _association([COMMITMENT], EVT_N_ACTION=leave) as a,
        pytest.raises(PeerUnreachable, match="association lost"),
    ):
        a.request_commitment(Request("1.2.9", (Reference("1.2.840.1", "1.2.3.1"),)))
