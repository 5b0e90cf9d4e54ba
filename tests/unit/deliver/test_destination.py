import pytest

from msnode.deliver import DESTINATION_TYPES
from msnode.deliver.destination import Outcome, ResultObject
from msnode.deliver.fakes import FakeDestination
from msnode.deliver.retry import RetryPolicy
from msnode.dicom.contexts import Context
from msnode.errors import DeliveryRefused, OutOfResources, PeerUnreachable
from support.dicom_files import flair_series


def test_result_object_reads_the_meta_information_alone(tmp_path):
    (path,) = flair_series(tmp_path, slices=1)
    found = ResultObject.from_file("overlay", path)
    assert found.kind == "overlay"
    assert found.context == Context("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1")
    assert found.sop_instance_uid.startswith("2.25.")


@pytest.mark.parametrize("content", [b"", b"no DICOM at all" * 100])
def test_a_file_that_is_no_dicom_is_refused(tmp_path, content):
    path = tmp_path / "seg.dcm"
    path.write_bytes(content)
    with pytest.raises(DeliveryRefused, match=r"seg\.dcm cannot be sent"):
        ResultObject.from_file("seg", path)


def test_a_file_that_is_not_there_may_come_back_with_its_disk(tmp_path):
    with pytest.raises(OutOfResources, match=r"seg\.dcm cannot be read"):
        ResultObject.from_file("seg", tmp_path / "seg.dcm")


def test_delays_grow_to_the_longest_and_end_at_the_limit():
    policy = RetryPolicy(first_s=10, factor=2, max_s=100, limit=8)
    delays = [policy.delay(attempt, "deliver:1") for attempt in range(1, 9)]
    assert delays[-1] is None
    for delay, wanted in zip(delays[:-1], [10, 20, 40, 80, 100, 100, 100], strict=True):
        assert 0.9 * wanted <= delay <= 1.1 * wanted


def test_delays_are_the_same_for_one_key_and_differ_between_keys():
    policy = RetryPolicy()
    assert policy.delay(3, "a") == policy.delay(3, "a")
    assert len({policy.delay(3, key) for key in "abcdefgh"}) == 8


def test_a_very_late_attempt_has_a_delay():
    assert RetryPolicy(limit=10**9).delay(10**6, "a") <= 990


@pytest.mark.parametrize(
    ("outcome", "delivered", "final"),
    [
        (Outcome.STORED, True, True),
        (Outcome.STORED_WITH_WARNING, True, True),
        (Outcome.ALREADY_THERE, True, True),
        (Outcome.REFUSED, False, True),
        (Outcome.TRY_LATER, False, False),
        (Outcome.UNCLEAR, False, False),
    ],
)
def test_outcomes(outcome, delivered, final):
    assert (outcome.is_delivered, outcome.is_final) == (delivered, final)


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


def test_every_type_has_a_name_and_kinds(tmp_path):
    assert set(DESTINATION_TYPES) == {"dicom", "dicomweb", "folder"}
    made = DESTINATION_TYPES["folder"](name="share", objects=frozenset({"sr"}), folder=tmp_path)
    assert made.name == "share"
    assert made.takes("sr")
    assert not made.takes("seg")
