"""Cases, who they show, and what is wrong with them."""

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from numpy.testing import assert_allclose

from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError
from msnode.train.cases import (
    BRAIN,
    Case,
    find_cases,
    longitudinal_brains,
    patients_of,
    read_nifti,
    synthetic_cases,
    write_nifti,
)


def write(path, array, spacing=(0.9, 0.9, 7.0), origin=(0.0, 0.0, 0.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def data(tmp_path):
    """Six axial scans of eight slices, a lesion in two of them."""
    for number in range(1, 7):
        folder = tmp_path / "data" / f"case{number:02d}"
        mask = np.zeros((8, 20, 24), dtype=np.uint8)
        mask[2:4, 5:9, 6:10] = 255
        values = np.random.default_rng(number).normal(300, 80, (8, 20, 24)).astype(np.float32)
        write(folder / "FLAIR.nii.gz", values)
        write(folder / "lesion_mask.nii.gz", mask)
    return tmp_path / "data"


def test_cases_know_their_patient(data):
    cases = find_cases(data, [["case02", "case05"]])
    patients = {case.name: case.patient for case in cases}
    assert list(patients) == [f"case{n:02d}" for n in range(1, 7)]
    assert patients["case05"] == patients["case02"]
    assert len(set(patients.values())) == 5


def test_a_list_of_patients_beside_the_cases_is_read(data):
    (data / "patients.json").write_text(json.dumps({"case01": "p1", "case06": "p1"}))
    patients = {case.name: case.patient for case in find_cases(data)}
    assert patients["case01"] == patients["case06"] == "p1"
    assert patients_of(data, [["case02", "case03"]])["case03"] == "case02"


def test_a_case_without_a_mask_is_refused_unless_it_is_only_looked_at(data):
    (data / "case03" / "lesion_mask.nii.gz").unlink()
    with pytest.raises(ConfigurationError, match=r"case03 has no lesion_mask\.nii\.gz"):
        find_cases(data)
    looked_at = {case.name: case.mask for case in find_cases(data, masks_needed=False)}
    assert looked_at["case03"] is None
    assert looked_at["case04"] is not None


def test_only_cases_with_a_brain_mask_train_a_brain(data):
    write(data / "case02" / BRAIN, np.ones((8, 20, 24), dtype=np.uint8))
    assert [case.name for case in find_cases(data, mask=BRAIN)] == ["case02"]


@pytest.mark.parametrize(
    ("shape", "origin"),
    [((8, 20, 23), (0.0, 0.0, 0.0)), ((8, 20, 24), (0.0, 4.0, 0.0))],
    ids=["size", "place"],
)
def test_a_mask_on_another_grid_is_refused(data, shape, origin):
    write(data / "case05" / "lesion_mask.nii.gz", np.zeros(shape, dtype=np.uint8), origin=origin)
    with pytest.raises(ConfigurationError, match=r"case05: lesion_mask.*another grid.*resample"):
        find_cases(data)


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no \*/FLAIR"):
        find_cases(tmp_path)


def test_a_file_that_is_no_image_is_one_clear_line(tmp_path):
    path = tmp_path / "FLAIR.nii.gz"
    path.write_bytes(b"no image")
    with pytest.raises(ConfigurationError, match="cannot be read as a NIfTI image"):
        read_nifti(path)


def test_nifti_positions_are_in_lps_and_come_back(data, tmp_path):
    image = sitk.ReadImage(str(data / "case01" / "FLAIR.nii.gz"))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    image.SetOrigin((-3.0, 7.0, 11.0))
    sitk.WriteImage(image, str(tmp_path / "turned.nii.gz"))
    volume = read_nifti(tmp_path / "turned.nii.gz")
    expected = image.TransformIndexToPhysicalPoint((3, 5, 6))
    assert_allclose(volume.grid.to_lps(np.array([[6, 5, 3]]))[0], expected, atol=1e-5)
    assert volume.data[6, 5, 3] == pytest.approx(image.GetPixel(3, 5, 6))
    write_nifti(volume, tmp_path / "again.nii.gz")
    again = read_nifti(tmp_path / "again.nii.gz")
    assert again.grid.same_as(volume.grid)
    assert (again.data == volume.data).all()


def test_ventricles_are_part_of_the_brain(tmp_path):
    brain, ventricles = np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)
    brain[:, 2:6, 2:6], ventricles[1, 3:5, 3:5] = 255, 1
    write(tmp_path / "brain_mask.nii.gz", (brain > 0).astype(np.uint8))
    write(tmp_path / "ventricle_mask.nii.gz", ventricles)
    labels = Case("a", "a", tmp_path).brain().data
    assert ((labels > 0) == (brain > 0)).all()
    assert ((labels == 2) == (ventricles > 0)).all()


def test_a_brain_mask_on_the_common_grid_lands_on_the_scan(tmp_path):
    """The common grid lies 5 mm to the left of the scan: its transform maps its points to the scan's."""
    source = tmp_path / "source" / "patient01"
    flair = np.full((10, 60, 60), 100, np.float32)
    flair[4:6, 28:32, 28:32] = 10  # a dark, deep ventricle
    write(source / "study1_FLAIR.nii.gz", flair, (1.0, 1.0, 3.0))
    brain = np.zeros((10, 60, 60), np.uint8)
    brain[1:9, 10:50, 15:55] = 1
    write(source / "brainmask.nii.gz", brain, (1.0, 1.0, 3.0))
    way = sitk.TranslationTransform(3, (-5.0, 0.0, 0.0))
    sitk.WriteTransform(way, str(source / "study1_FLAIR_to_common_space.txt"))
    (case,) = longitudinal_brains(tmp_path / "source", tmp_path / "work", ["patient01/study1"])
    labels = case.brain().data
    assert (case.name, case.patient) == ("patient01_study1", "longitudinal-patient01")
    assert (labels[5] > 0).sum() == pytest.approx(1600, rel=0.03)
    assert labels[5, 30, 10:50].all()
    assert not labels[5, 30, :9].any()


def test_synthetic_scans_need_lesion_masks(tmp_path):
    with pytest.raises(ConfigurationError, match="lesion masks in MNI space"):
        synthetic_cases({}, 2, 1, tmp_path)
    assert synthetic_cases({}, 0, 1, tmp_path) == ()


def test_a_synthetic_scan_is_made_once_and_is_the_same_for_a_seed(tmp_path):
    mask = np.zeros((40, 50, 40), np.uint8)
    mask[18:24, 20:30, 12:18] = 1
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, ::-1] * 3
    affine[:3, 3] = (-60, -75, -40)
    write_nifti(Volume(mask, Grid(mask.shape, affine)), tmp_path / "p01.nii.gz")
    masks = {"p01": tmp_path / "p01.nii.gz"}
    (one,) = synthetic_cases(masks, 1, 7, tmp_path / "a")
    (two,) = synthetic_cases(masks, 1, 7, tmp_path / "b")
    first, second = read_nifti(one.image), read_nifti(two.image)
    assert (first.data == second.data).all()
    brain = one.brain()
    assert 0.1 < (brain.data > 0).mean() < 0.6
    assert (brain.data == 2).any()
    assert one.mask is not None
    made = one.image.stat().st_mtime_ns
    synthetic_cases(masks, 1, 7, tmp_path / "a")
    assert one.image.stat().st_mtime_ns == made
