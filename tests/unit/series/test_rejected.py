"""Images that a key object rejects are not read."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from msnode.domain.imaging import FLAIR, Instance, Series
from msnode.series.select import select
from msnode.series.volume import group_series, read_instance
from support.dicom_files import flair_series


def item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def key_object(series: Series, images: Sequence[Instance], code: str = "113001") -> Series:
    named = [item(ReferencedSOPInstanceUID=image.sop_instance_uid) for image in images]
    of_series = item(SeriesInstanceUID=series.series_instance_uid, ReferencedSOPSequence=named)
    header = item(
        SOPClassUID=KeyObjectSelectionDocumentStorage,
        SOPInstanceUID="1.2.7.1",
        Modality="KO",
        ConceptNameCodeSequence=[item(CodeValue=code, CodingSchemeDesignator="DCM")],
        CurrentRequestedProcedureEvidenceSequence=[item(ReferencedSeriesSequence=[of_series])],
    )
    return Series("1.2.7", series.study_instance_uid, (Instance(Path("unused"), "0" * 64, header),))


def flair(folder: Path, number: int) -> Series:
    paths = flair_series(folder, slices=12, rows=8, columns=8, series_number=number)
    (series,) = group_series(map(read_instance, paths))
    return series


@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("113001", "Rejected for Quality Reasons"),
        ("113037", "Rejected for Patient Safety Reasons"),
        ("113038", "Incorrect Modality Worklist Entry"),
        ("113039", "Data Retention Policy Expired"),
    ],
)
def test_a_rejected_series_is_not_read_and_reported(tmp_path: Path, code: str, title: str) -> None:
    series = flair(tmp_path, 1)
    selection = select([series, key_object(series, series.instances, code)])
    assert (selection.series, selection.asked_for) == ({}, True)
    assert f"rejected by a key object: {title}" in str(selection.refusal)


def test_the_scan_that_replaces_it_is_read(tmp_path: Path) -> None:
    first, second = flair(tmp_path / "a", 1), flair(tmp_path / "b", 2)
    selection = select([first, key_object(first, first.instances), second])
    assert selection.series[FLAIR] is second
    why = "rejected by a key object: Rejected for Quality Reasons"
    assert selection.remarks == (f"another FLAIR was not read: {why}",)
    assert why in {p.reason for p in selection.passed_over}


def test_rejected_images_of_a_series_are_left_out(tmp_path: Path) -> None:
    series = flair(tmp_path, 1)
    selection = select([series, key_object(series, series.instances[:2])])
    assert selection.series[FLAIR].instances == series.instances[2:]
    (remark,) = selection.remarks
    assert remark == ("2 of 12 images of the series rejected by a key object: Rejected for Quality Reasons")


def test_a_key_object_that_selects_rejects_nothing(tmp_path: Path) -> None:
    series = flair(tmp_path, 1)
    selection = select([series, key_object(series, series.instances, "113000")])
    assert selection.series[FLAIR] is series
