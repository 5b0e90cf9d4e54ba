import threading

from msnode.dicom.association import open_association
from msnode.dicom.commitment import Reference, Request
from msnode.dicom.connection import DicomAddress
from msnode.dicom.contexts import COMMITMENT
from support.commitment_peer import commitment_pacs, kept


def _requests(*uids):
    return [Request(uid, (Reference("1.2.840.1", "1.2.3.1"),)) for uid in uids]


def test_a_report_that_is_being_answered_is_answered_before_what_comes_next():
    began = threading.Event()
    taken = []

    def take(report):
        began.set()
        threading.Event().wait(0.1)  # a database takes its time
        taken.append(report.transaction_uid)
        return 0x0000

    with commitment_pacs(on_association=lambda asked: [kept(asked)]) as pacs:
        with open_association(
            DicomAddress("PACS", "127.0.0.1", pacs.port), "MSNODE", [COMMITMENT], take_report=take
        ) as a:
            for request in _requests("1.2.8", "1.2.9"):
                began.clear()
                assert a.request_commitment(request).status == 0x0000
                assert began.wait(10)
        pacs.wait()
        assert (taken, pacs.answers) == (["1.2.8", "1.2.9"], [0x0000, 0x0000])
