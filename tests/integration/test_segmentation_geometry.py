"""Segmentations lie where the lesions were seen: voxel for voxel, in LPS mm, whatever way the source lies.

The lesions are drawn into the pixels of the source files: what is expected comes from the files alone.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from msnode.domain.findings import Findings, LesionMap
from msnode.domain.imaging import SourceVolume, Volume
from msnode.encode import encode_probability, encode_seg, to_bytes
from msnode.measure.burden import measure
from msnode.measure.lesions import find_lesions
from msnode.series.volume import to_volume
from support.dicom_files import change, enhanced_flair, flair_series
from support.readings import MODEL, provenance, series_of
from support.segmentations import (
    assert_same_places,
    drawn_numbers,
    drawn_places,
    pixels_with_lesions,
    places_by_dcmtk,
    places_by_frame,
    places_by_highdicom,
    places_by_simpleitk,
    places_by_vtk,
    together,
)

FORMS = ("lesions", "single", "labelmap", "probability")
THICK, ISOTROPIC = (6.0, 0.9, 1.1), (1.0, 1.0, 1.0)
_DARKEST = 100
"""Stored probability of the first drawn lesion; each further one has one more."""


def turned(paths: Sequence[Path], rotation: np.ndarray) -> list[Path]:
    """The series laid along other directions: columns of `rotation` are those of rows, columns, slices."""
    for path in paths:
        ds = dcmread(path)
        ds.ImagePositionPatient = [f"{v:.8g}" for v in rotation @ np.array(ds.ImagePositionPatient, float)]
        ds.ImageOrientationPatient = [f"{v:.10g}" for v in rotation[:, :2].T.ravel()]
        ds.save_as(path)
    return list(paths)


def classic(folder: Path, **options: object) -> list[Path]:
    return flair_series(folder, pixels=pixels_with_lesions(), **{"spacing": THICK, **options})  # type: ignore[arg-type]


def oblique(folder: Path) -> list[Path]:
    return turned(classic(folder), Rotation.from_euler("xyz", [12, -17, 23], degrees=True).as_matrix())


def shuffled(folder: Path) -> list[Path]:
    """Instance numbers, names and order of arrival all against the stack, and against each other."""
    paths = classic(folder)
    for number, path in zip((4, 1, 5, 2, 3), paths, strict=True):
        change(path, InstanceNumber=number)
        path.rename(folder / f"{(7 * number) % 5}.dcm")
    return sorted(folder.glob("*.dcm"))


def enhanced(
    folder: Path, order: Sequence[int] = (0, 1, 2, 3, 4), orientation: str = "sagittal"
) -> list[Path]:
    pixels = pixels_with_lesions()
    slices, rows, columns = pixels.shape

    def draw(ds: Dataset) -> None:
        ds.PixelData = pixels[list(order)].astype("<u2").tobytes()
        groups = ds.PerFrameFunctionalGroupsSequence
        ds.PerFrameFunctionalGroupsSequence = [groups[k] for k in order]

    made = enhanced_flair(
        folder / "in.dcm", slices=slices, rows=rows, columns=columns, orientation=orientation
    )
    return [change(made, draw)]


LAYOUTS: Mapping[str, Callable[[Path], list[Path]]] = {
    "axial, thick slices with gaps": classic,
    "sagittal": lambda folder: classic(folder, orientation="sagittal"),
    "coronal": lambda folder: classic(folder, orientation="coronal"),
    "oblique": oblique,
    "isotropic": lambda folder: classic(folder, spacing=ISOTROPIC, orientation="sagittal"),
    "shuffled": shuffled,
    "enhanced": enhanced,
    "enhanced, shuffled": lambda folder: enhanced(folder, (3, 0, 4, 2, 1), "axial"),
}


def drawn(source: SourceVolume) -> np.ndarray:
    """Numbers of the drawn lesions, on the source grid."""
    header = source.frames[0].instance.header
    if "SharedFunctionalGroupsSequence" in header:
        header = header.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    return drawn_numbers(np.rint((source.volume.data - intercept) / slope))


def found_in(source: SourceVolume, chosen: np.ndarray) -> tuple[LesionMap, Findings]:
    lesion_map = find_lesions(
        Volume(chosen.astype(np.float32), source.volume.grid), threshold=0.5, min_volume_mm3=0
    )
    findings = measure(
        lesion_map,
        patient_key=("", "PAT001"),
        series_instance_uid=source.series.series_instance_uid,
        bundle_sha256=MODEL.sha256,
    )
    return lesion_map, findings


def written(paths: Sequence[Path], folder: Path, forms: Sequence[str]) -> Mapping[str, Path]:
    """A segmentation of each form, with what was drawn."""
    source = to_volume(series_of(paths))
    values = drawn(source)
    lesion_map, findings = found_in(source, values > 0)
    files = {}
    for form in forms:
        if form == "probability":
            stored = np.where(values > 0, values + _DARKEST, 0).astype(np.uint8)
            output = encode_probability(source, stored, provenance())
        else:
            output = encode_seg(source, lesion_map, findings, provenance(), form=form)
        files[form] = folder / f"{form}.dcm"
        files[form].write_bytes(to_bytes(output))
    return files


def expected(paths: Sequence[Path]) -> Mapping[str, Mapping[int, np.ndarray]]:
    """What is where in each form; labels run by falling volume, and so do the numbers of what was drawn."""
    places = drawn_places(paths)
    values = {number + _DARKEST: found for number, found in places.items()}
    return {"lesions": places, "single": together(places), "labelmap": places, "probability": values}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_comes_back_voxel_for_voxel(layout, tmp_path):
    paths = LAYOUTS[layout](tmp_path / "in")
    places = expected(paths)
    for form, path in written(paths, tmp_path, FORMS).items():
        assert_same_places(places_by_frame(path), places[form])
        assert_same_places(places_by_highdicom(path), places[form])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return classic(tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)), ids=str)
@pytest.mark.parametrize("axes", list(permutations(range(3))), ids=str)
def test_all_48_orientations_come_back_voxel_for_voxel(axes, flips, straight, tmp_path):
    paths = [tmp_path / path.name for path in straight]
    for path, copy in zip(straight, paths, strict=True):
        copy.write_bytes(path.read_bytes())
    turned(paths, np.eye(3)[:, axes] * flips)
    places = expected(paths)
    for form, path in written(paths, tmp_path, ("lesions", "labelmap")).items():
        assert_same_places(places_by_frame(path), places[form])
        assert_same_places(places_by_highdicom(path), places[form])


@pytest.mark.peer
@pytest.mark.parametrize("layout", LAYOUTS)
def test_vtk_sees_the_voxels_at_the_same_places(layout, tmp_path):
    paths = LAYOUTS[layout](tmp_path / "in")
    places = expected(paths)
    for form, path in written(paths, tmp_path, ("single", "labelmap", "probability")).items():
        assert_same_places(places_by_vtk(path, tmp_path), places[form])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_simpleitk_sees_the_voxels_at_the_same_places(layout, tmp_path):
    paths = LAYOUTS[layout](tmp_path / "in")
    places = expected(paths)
    for form, path in written(paths, tmp_path, ("single", "probability")).items():
        assert_same_places(places_by_simpleitk(path), places[form])


@pytest.mark.peer
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dcmtk_sees_the_segments_at_the_same_places(layout, tmp_path):
    paths = LAYOUTS[layout](tmp_path / "in")
    places = expected(paths)
    for form, path in written(paths, tmp_path, ("lesions", "single")).items():
        assert_same_places(places_by_dcmtk(path), places[form])


def test_a_voxel_out_of_place_is_noticed(straight, tmp_path):
    path = written(straight, tmp_path, ("labelmap",))["labelmap"]
    right, places = expected(straight)["labelmap"], dict(places_by_frame(path))
    moved = {**places, 1: places[1] + [0.0, 0.02, 0.0]}
    with pytest.raises(AssertionError):
        assert_same_places(moved, right)
    mirrored = {number: found * [-1, 1, 1] for number, found in places.items()}
    with pytest.raises(AssertionError):
        assert_same_places(mirrored, right)
