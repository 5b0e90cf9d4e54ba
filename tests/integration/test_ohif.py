"""Results in OHIF, in a real browser on a real archive: opened, listed, and drawn where they belong."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from scipy import ndimage

from msnode.encode import codes, encode_rejection, to_bytes
from msnode.series.volume import read_instance
from support.dicom_files import flair_series
from support.heads import head, head_series
from support.ohif import Viewer, astray, coloured, letterboxed, likeness, viewer
from support.peers import orthanc, wait_until
from support.readings import Read, provenance, read

pytestmark = pytest.mark.peer

WINDOW = {"WindowCenter": 1200, "WindowWidth": 2400}


@dataclass
class Stored:
    """One study in the archive with its results."""

    reading: Read
    results: dict[str, list[Dataset]]

    @property
    def study(self) -> str:
        return str(self.results["sr"][0].StudyInstanceUID)

    @property
    def spacing(self) -> tuple[float, float]:
        _, rows, columns = self.reading.source.volume.grid.spacing
        return rows, columns

    def source_instance(self, k: int) -> str:
        return self.reading.source.frames[k].instance.sop_instance_uid

    def lesions_of_slices(self) -> list[int]:
        return [len(np.unique(labels[labels > 0])) for labels in self.reading.lesion_map.labels]

    def fullest(self) -> int:
        """The slice with most lesions."""
        return int(np.argmax(self.lesions_of_slices()))


def sagittal_series(folder: Path, **changes: object) -> list[Path]:
    """The head of the other series in sagittal slices of 3.6 mm, as 3D sequences are read out."""
    data = ndimage.zoom(head().data, (7 / 3.6, 0.25, 0.25), order=1)
    pixels = np.clip(data, 0, 4095).astype(np.uint16).transpose(2, 0, 1)[::-1, ::-1]
    return flair_series(
        folder,
        pixels=pixels,
        spacing=(3.6, 3.6, 3.6),
        orientation="sagittal",
        description="3D Sag FLAIR",
        **changes,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    with orthanc(folder, env={"TCP_NODELAY": "1"}, settings={"DefaultEncoding": "Utf8"}) as found:
        yield found


@pytest.fixture(scope="module")
def studies(archive, tmp_path_factory) -> dict[str, Stored]:
    folder = tmp_path_factory.mktemp("studies")
    series = {
        "axial": head_series(folder / "a", slices=14, patient_id="A", patient_name="山田^太郎", **WINDOW),
        "sagittal": sagittal_series(folder / "s", patient_id="S", patient_name="الجنيد^عمر", **WINDOW),
        "healthy": head_series(folder / "h", slices=6, patient_id="H", patient_name="Healthy", **WINDOW),
    }
    stored = {}
    for name, paths in series.items():
        reading = read(paths, lesions={"axial": 30, "sagittal": 6, "healthy": 0}[name])
        reading = replace(reading, findings=replace(reading.findings, brain_volume_ml=1234.5))
        archive.upload(*paths)
        results: dict[str, list[Dataset]] = {}
        for output in reading.outputs():
            archive.request("POST", "/instances", to_bytes(output))
            results.setdefault(output.kind, []).append(output.dataset)
        stored[name] = Stored(reading, results)
    return stored


@pytest.fixture(scope="module")
def opened(archive, tmp_path_factory) -> Iterator[Viewer]:
    with viewer(archive, tmp_path_factory.mktemp("ohif")) as found:
        yield found


def segments_are_drawn(page: Viewer, stored: Stored, k: int) -> bool:
    """Whether the lesions of slice k, and nothing else, have colour, each its own."""
    picture = page.picture()
    labels = letterboxed(stored.reading.lesion_map.labels[k], picture.shape, stored.spacing)
    colour, reach = coloured(picture), 4  # pixels of the screen
    grey = letterboxed(stored.reading.source.volume.data[k], picture.shape, stored.spacing)
    if (
        likeness(picture[~colour][:, 0], np.clip(grey[~colour], 0, WINDOW["WindowWidth"])) < 0.9
    ):  # air is noise, and drawn smooth
        return False
    if astray(colour, labels > 0, reach) > 0 or astray(labels > 0, colour, reach) > 0.02:
        return False
    for label in np.unique(labels[labels > 0]):
        own = picture[labels == label].astype(float)
        distance = np.linalg.norm(own - codes.lesion_colour(int(label)), axis=1)
        if distance.min() > 60:  # its outline is opaque
            return False
    return True


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_a_study_opens_with_its_segments_drawn_where_the_lesions_are(studies, opened, plane):
    stored = studies[plane]
    opened.open_study(stored.study)
    described = [str(s.SegmentLabel) for s in stored.results["seg"][0].SegmentSequence]
    assert opened.wait_for_segments(len(described)) == described
    counts = {stored.source_instance(k): n for k, n in enumerate(stored.lesions_of_slices())}
    assert counts[opened.shown_instance()] == max(counts.values())
    with_lesions = np.flatnonzero(stored.lesions_of_slices()).tolist()
    for k in dict.fromkeys([stored.fullest(), with_lesions[0], with_lesions[-1]]):
        opened.show_instance(stored.source_instance(k))
        wait_until(
            lambda k=k: segments_are_drawn(opened, stored, k), what=f"segments of slice {k}", timeout_s=20
        )
        opened.keep(f"{plane}-seg-{k}")
    assert opened.complaints() == []


def test_overlay_report_and_summary_open(studies, opened):
    stored = studies["axial"]
    opened.open_study(stored.study)
    opened.wait_for_segments(len(stored.reading.findings.lesions))  # until then they would be laid over it
    k = stored.fullest()
    overlay = stored.results["overlay"][k]
    opened.open_series("MS AI OVERLAY", str(overlay.SeriesInstanceUID))
    opened.show_instance(str(overlay.SOPInstanceUID))

    def overlay_is_shown() -> bool:
        picture = opened.picture()
        expected = letterboxed(overlay.pixel_array, picture.shape)
        alike = likeness(picture, expected) > 0.95
        colours = coloured(picture), coloured(expected)
        return alike and max(astray(*colours, 4), astray(*colours[::-1], 4)) < 0.05

    wait_until(overlay_is_shown, what="overlay", timeout_s=20)
    opened.keep("axial-overlay")
    (summary,) = stored.results["summary"]
    opened.open_series("MS AI SUMMARY", str(summary.SOPInstanceUID))

    def summary_is_shown() -> bool:
        picture = opened.picture()
        return likeness(picture, letterboxed(summary.pixel_array, picture.shape)) > 0.8

    wait_until(summary_is_shown, what="summary", timeout_s=20)
    opened.keep("axial-summary")
    # Points in space are shown over any series that has their frame of reference.
    source = stored.reading.source.series.series_instance_uid
    opened.open_series("MS AI REPORT", source, str(overlay.SeriesInstanceUID))
    count = len(stored.reading.findings.lesions) + 2  # all lesions together, and the brain
    wait_until(lambda: len(opened.points()) == count, what="the measurements of the report")
    drawn = opened.points()
    for finding in stored.reading.findings.lesions:
        assert drawn[finding.tracking_uid] == pytest.approx(finding.lesion.centroid_lps_mm, abs=0.01)
    opened.keep("axial-report")
    assert opened.complaints() == []


def test_a_report_without_lesions_opens(studies, opened):
    stored = studies["healthy"]
    opened.open_study(stored.study)
    source = stored.reading.source.series.series_instance_uid
    overlay = str(stored.results["overlay"][0].SeriesInstanceUID)
    opened.open_series("MS AI REPORT", source, overlay)
    wait_until(lambda: len(opened.points()) == 2, what="the measurements of the report")
    opened.keep("healthy-report")
    assert opened.complaints() == []


NAMES = {"GB18030": "王^小东", "ISO_IR 144": "Люксембург^Роза", "ISO_IR 100": "Buc^Jérôme"}


@pytest.mark.usefixtures("studies")
def test_names_are_shown_in_their_own_letters(archive, opened, tmp_path):
    for code, name in NAMES.items():  # the archive has the node's answer alone, not the source
        folder = tmp_path / code
        paths = flair_series(folder, slices=2, patient_id=code, patient_name=name, SpecificCharacterSet=code)
        instances = [read_instance(path) for path in paths]
        for output in encode_rejection(instances, "too few slices", provenance(model=None)):
            archive.request("POST", "/instances", to_bytes(output))
    listed = opened.open_list()
    opened.keep("list")
    for name in (*NAMES.values(), "山田^太郎", "الجنيد^عمر"):
        assert name.replace("^", ", ") in listed
