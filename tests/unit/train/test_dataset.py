"""Cases, folds that never split a patient, and what nnU-Net is handed."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from numpy.testing import assert_allclose

from msnode.errors import ConfigurationError
from msnode.train.dataset import (
    DATASET_NAME,
    Fold,
    check_folds,
    choose_folds,
    find_cases,
    make_folds,
    read_nifti,
    write_dataset,
)
from msnode.train.recipe import load_recipe

RECIPE = Path(__file__).resolve().parents[3] / "config" / "recipes" / "nnunet2d.toml"


@pytest.fixture
def data(tmp_path):
    """Six axial scans of eight slices, a lesion in two of them, masks of 0 and 255."""
    for number in range(1, 7):
        folder = tmp_path / "data" / f"case{number:02d}"
        folder.mkdir(parents=True)
        values = np.random.default_rng(number).normal(300, 80, (8, 20, 24)).astype(np.float32)
        mask = np.zeros((8, 20, 24), dtype=np.uint8)
        mask[2:4, 5:9, 6:10] = 255
        for name, array in (("FLAIR", values), ("lesion_mask", mask)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.9, 0.9, 7.0))
            sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
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


def test_a_case_without_a_mask_is_refused(data):
    (data / "case03" / "lesion_mask.nii.gz").unlink()
    with pytest.raises(ConfigurationError, match=r"case03 has no lesion_mask\.nii\.gz"):
        find_cases(data)


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no \*/FLAIR"):
        find_cases(tmp_path)


def test_folds_hold_out_every_case_once_and_never_split_a_patient(data):
    cases = find_cases(data, [["case02", "case05"]])
    folds = make_folds(cases, 5)
    held_out = sorted(name for fold in folds for name in fold.val)
    assert held_out == [case.name for case in cases]
    assert any(set(fold.val) == {"case02", "case05"} for fold in folds)
    for fold in folds:
        assert sorted((*fold.train, *fold.val)) == [case.name for case in cases]
    check_folds(folds, {case.name: case.patient for case in cases})


def test_more_folds_than_patients_are_refused(data):
    with pytest.raises(ConfigurationError, match="5 patients cannot fill 6 folds"):
        make_folds(find_cases(data, [["case02", "case05"]]), 6)


def test_a_fold_that_splits_a_patient_is_refused(data):
    splits = [{"train": ["case01", "case02"], "val": ["case05"]}]
    (data / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(ConfigurationError, match=r"fold 0 splits a patient.*case02.*case05"):
        choose_folds(find_cases(data, [["case02", "case05"]]), 5, data)
    assert choose_folds(find_cases(data), 5, data) == (Fold(("case01", "case02"), ("case05",)),)


def test_a_fold_of_unknown_cases_is_refused():
    with pytest.raises(ConfigurationError, match="unknown cases: case99"):
        check_folds([Fold(("case01",), ("case99",))], {"case01": "a"})


def test_nifti_positions_are_in_lps(data):
    image = sitk.ReadImage(str(data / "case01" / "FLAIR.nii.gz"))
    volume = read_nifti(data / "case01" / "FLAIR.nii.gz")
    expected = image.TransformIndexToPhysicalPoint((3, 5, 6))
    assert_allclose(volume.grid.to_lps(np.array([[6, 5, 3]]))[0], expected, atol=1e-5)
    assert volume.data[6, 5, 3] == pytest.approx(image.GetPixel(3, 5, 6))


@pytest.mark.parametrize(("min_entropy", "slices"), [(0.0, 8), (0.01, 2)])
def test_nnunet_is_handed_prepared_slices(data, tmp_path, min_entropy, slices):
    recipe = load_recipe(RECIPE)
    table = recipe.dataset.model_copy(update={"min_slice_entropy": min_entropy})
    recipe = recipe.model_copy(update={"dataset": table})
    cases = find_cases(data)
    told = []
    write_dataset(cases, make_folds(cases, 5), tmp_path / "work", recipe, told.append)
    raw = tmp_path / "work" / "nnUNet_raw" / DATASET_NAME
    image = sitk.ReadImage(str(raw / "imagesTr" / "case04_0000.nii.gz"))
    labels = sitk.ReadImage(str(raw / "labelsTr" / "case04.nii.gz"))
    values, mask = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(labels)
    assert told == [case.name for case in cases]
    assert values.shape == mask.shape == (slices, 20, 24)
    assert_allclose(image.GetSpacing(), (0.9, 0.9, 7.0), rtol=1e-5)
    assert (values.min(), values.max()) == (0, 1)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.sum() == 2 * 4 * 4
    description = json.loads((raw / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "noNorm"}
    assert description["numTraining"] == 6
    splits = json.loads(
        (tmp_path / "work/nnUNet_preprocessed" / DATASET_NAME / "splits_final.json").read_text()
    )
    assert len(splits) == 5
