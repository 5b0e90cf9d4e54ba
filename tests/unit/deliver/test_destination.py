import pytest

from msnode.deliver import DESTINATION_TYPES
from msnode.deliver.destination import Outcome, ResultObject
from msnode.dicom.contexts import Context
from msnode.errors import DeliveryRefused, OutOfResources
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


def test_every_type_has_a_name_and_kinds(tmp_path):
    assert set(DESTINATION_TYPES) == {"dicom", "dicomweb", "folder"}
    made = DESTINATION_TYPES["folder"](name="share", objects=frozenset({"sr"}), folder=tmp_path)
    assert made.name == "share"
    assert made.takes("sr")
    assert not made.takes("seg")
