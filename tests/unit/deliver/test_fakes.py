import pytest

from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.fakes import FakeDestination, FakeVerifiableDestination, FakeVerificationSession
from msnode.dicom.commitment import Report, Request
from msnode.errors import PeerUnreachable
from support.dicom_files import flair_series


def test_the_fake_answers_as_told(tmp_path):
    paths = flair_series(tmp_path, slices=2)
    first, second = (ResultObject.from_file("seg", path) for path in paths)
    fake = FakeDestination(objects=frozenset({"seg"}), outcomes={second.sop_instance_uid: Outcome.REFUSED})
    assert fake.takes("seg")
    assert not fake.takes("sr")
    assert [r.outcome for r in fake.send([first, second])] == [Outcome.STORED, Outcome.REFUSED]
    assert fake.sent == [(first.sop_instance_uid, second.sop_instance_uid)]
    fake.failure = PeerUnreachable("down")
    with pytest.raises(PeerUnreachable):
        fake.send([first])


def test_the_fake_session_answers_as_told():
    destination = FakeVerifiableDestination(FakeVerificationSession(statuses=[0x0213], has={"1.2"}))
    reports, request = [], Request("1.2.9", ())
    with destination.open_session(lambda report: reports.append(report) or 0) as session:
        session.on_request = lambda asked: session.take_report(Report(asked.transaction_uid, ()))
        assert [session.request(request).status for _ in range(2)] == [0x0213, 0x0000]
        assert session.find("1.1", "1.2", ["1.2"]).sop_instance_uids == {"1.2"}
        session.failure = PeerUnreachable("down")
        with pytest.raises(PeerUnreachable):
            session.find("1.1", "1.2", ["1.2"])
    assert session.requests == [request, request]
    assert [r.transaction_uid for r in reports] == ["1.2.9"] * 2
    destination.failure = PeerUnreachable("down")
    with pytest.raises(PeerUnreachable), destination.open_session(lambda _report: 0):
        pass
