from dataclasses import replace

import numpy as np
import pytest

from msnode.encode import ResultIdentity, encode_rejection_summary, encode_summary
from msnode.encode.page import reading_page, rejection_page
from msnode.encode.sheet import SIZE
from support.dicom_files import change_all, enhanced_flair, flair_series
from support.readings import MARK_BELOW, provenance, read

HEAD = {
    "slices": 6,
    "rows": 48,
    "columns": 48,
    "PatientName": "Zwiebel^Xaver",
    "PatientBirthDate": "19610203",
}


@pytest.fixture
def reading(tmp_path):
    return read(flair_series(tmp_path / "in", **HEAD), 12, confidences=[0.83, 0.34])


def page_of(reading, made_by=None):
    identity = ResultIdentity.of_reading(reading.source, made_by or provenance())
    return reading_page(
        reading.source, reading.lesion_map, reading.findings, mark_below=MARK_BELOW, identity=identity
    )


def said(page):
    return "\n".join(w.text for w in page.words)


def limited(reading, **changes):
    return replace(reading, findings=replace(reading.findings, **changes))


def summary(reading, made_by=None):
    identity = ResultIdentity.of_reading(reading.source, made_by or provenance())
    return encode_summary(page_of(reading, made_by), reading.source, identity=identity).dataset


def refusal(reading, reason, made_by):
    instances = [f.instance for f in reading.source.frames]
    identity = ResultIdentity.of_rejection(instances, reason, made_by)
    page = rejection_page(reason, identity=identity)
    return encode_rejection_summary(page, instances, identity=identity).dataset, page


def test_one_colour_image_that_lies_nowhere_in_space(reading):
    ds = summary(reading)
    assert ds.pixel_array.shape == (SIZE[1], SIZE[0], 3)
    np.testing.assert_array_equal(ds.pixel_array, page_of(reading).pixels)
    assert (ds.Modality, ds.ConversionType, ds.BurnedInAnnotation) == ("OT", "WSD", "NO")
    assert (ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber) == ("MS AI SUMMARY", 9805, 1)
    for keyword in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        assert keyword not in ds
    sources = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert sources == [f.instance.sop_instance_uid for f in reading.source.frames]


def test_an_enhanced_source_is_named_once(tmp_path):
    ds = summary(read([enhanced_flair(tmp_path / "in.dcm", slices=6)], 2))
    assert len(ds.SourceImageSequence) == 1


def test_the_page_says_what_was_read_what_was_found_and_who_did_it(reading):
    text = said(page_of(limited(reading, brain_volume_ml=1234.4)))
    total = reading.findings.total_volume_mm3 / 1000
    first = reading.findings.lesions[0].lesion
    for part in (
        "AI result, not verified",
        'Series 301, "Ax T2 FLAIR"',
        "6 slices, axial, 6.0 mm apart, pixels of 0.90 x 0.90 mm",
        "12\nlesions",
        f"{total:#.3g} ml\ntotal lesion volume",
        "1234 ml\nbrain with ventricles",
        f"1\n{first.volume_mm3:.0f} mm3\n{first.longest_axial_mm:.1f} mm\n83 %",
        "low: 34 %",
        "+ 4 more: see the report",
        "Dashed contour: confidence under 50 % (1 of 12 lesions).",
        "msnode 0.1.0, model flair-unet 1.2.3 (SHA-256 abababababab), on 2024-01-03 04:05 UTC",
    ):
        assert part in text, part


def test_the_page_names_no_patient_and_no_date_of_acquisition(reading):
    for page in (page_of(reading), refusal(reading, "why", provenance())[1]):
        for secret in ("Zwiebel", "Xaver", "1961", "PAT001", "ACC0001", "20240102", "2024-01-02"):
            assert secret not in said(page)


def test_what_is_said_is_to_be_seen(reading):
    page = page_of(limited(reading, limitations=("Low quality: much motion.",)))
    for word in page.words:
        top, left = int(word.baseline - 0.7 * word.size), int(word.left)
        place = page.pixels[top : int(word.baseline), left : left + max(8, int(word.size / 2))]
        assert place.size
        assert np.ptp(place.astype(int), axis=(0, 1)).max() > 60, word.text


def test_limits_and_warnings_are_said_and_counted_where_room_ends(reading):
    few = limited(reading, limitations=("Outside the model's scope: 7 mm slices.", "Low quality: motion."))
    few = replace(few, source=replace(few.source, warnings=("The images were compressed with loss.",)))
    text = said(page_of(few))
    order = [text.index(note) for note in (*few.findings.limitations, *few.source.warnings)]
    assert order == sorted(order)
    assert text.count("see the report") == 1  # the table's
    many = limited(reading, limitations=tuple(f"Limit {n} of this reading." for n in range(20)))
    lines = said(page_of(many)).splitlines()
    shown = [line for line in lines if line.startswith("Limit")]
    (rest,) = [line for line in lines if line.startswith("+") and line != "+ 4 more: see the report"]
    assert rest == f"+ {20 - len(shown) + 1} more: see the report"  # one note is the page's own


def test_a_long_note_is_wrapped_and_stays_on_the_page(reading):
    page = page_of(limited(reading, limitations=("word " * 60,)))
    lines = [w for w in page.words if w.text.startswith("word")]
    assert len(lines) > 1
    assert (page.pixels[:, SIZE[0] - 40 :][1480:1670] == page.pixels[1600, 5]).all()


def test_a_reading_without_lesions_says_so_and_has_neither_table_nor_plot(tmp_path):
    text = said(page_of(read(flair_series(tmp_path / "in", **HEAD), 0)))
    assert "No lesion was found." in text
    assert "not measured\nbrain with ventricles" in text
    assert text.count("no lesion") == 4  # the middle of six slices
    for absent in ("mm3", "Confidence", "total lesion volume"):
        assert absent not in text


def test_a_refusal_says_why_and_carries_no_count_and_no_volume(reading):
    reason = "slices 3 and 4 lie 12.1 mm apart"
    ds, page = refusal(reading, reason, provenance(model=None))
    np.testing.assert_array_equal(ds.pixel_array, page.pixels)
    text = said(page)
    for part in ("AI result, not verified", "This study was not read.", f"Reason: {reason}", "no model"):
        assert part in text
    assert "This is not a negative finding." in text
    large = [w for w in page.words if "not read" in w.text or "negative finding" in w.text]
    assert min(w.size for w in large) >= 60
    body, foot = text.replace(reason, "").split("Made by")
    assert not any(c.isdigit() for c in body)
    assert " ml" not in text
    assert "0.1.0" in foot
    assert "FrameOfReferenceUID" not in ds


def test_a_reason_without_end_does_not_run_off_the_page(reading):
    _, page = refusal(reading, "the series is split " * 100, provenance())
    assert max(w.baseline for w in page.words) < SIZE[1]
    assert "This is not a negative finding." in said(page)


@pytest.mark.parametrize(
    ("description", "shown"),
    [("MR Schädel tra", 'Series 301, "MR Schadel tra"'), ("頭部 FLAIR", "Series 301"), ("", "Series 301")],
)
def test_a_description_that_the_font_cannot_show_is_left_out(description, shown, tmp_path):
    paths = flair_series(tmp_path / "in", description=description, **HEAD)
    assert shown in said(page_of(read(paths, 1))).splitlines()


def test_a_series_without_number_is_just_a_series(tmp_path):
    paths = flair_series(tmp_path / "in", **HEAD)
    change_all(paths, SeriesNumber=None)
    assert 'Series, "Ax T2 FLAIR"' in said(page_of(read(paths, 1))).splitlines()


def test_a_revision_says_which_one_it_replaces(reading):
    assert "revision 2, replaces revision 1" in said(page_of(reading, provenance(revision=2)))
    assert "replaces" not in said(page_of(reading))


@pytest.mark.parametrize("count", [1, 150])
def test_any_number_of_lesions_has_bars_in_their_colours(count, tmp_path):
    page = page_of(read(flair_series(tmp_path / "in", slices=20, rows=96, columns=96), count))
    plot = page.pixels[1180:1440, 730:1170]
    bright = (plot.max(axis=2) > 200) & (np.ptp(plot.astype(int), axis=2) > 80)
    assert bright.any(axis=0).sum() > (30 if count == 1 else 400)
