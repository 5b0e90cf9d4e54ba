"""Cases, folds that never split a patient, and what nnU-Net is handed."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
from numpy.testing import assert_allclose

from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError
from msnode.train.cases import Case, find_cases
from msnode.train.dataset import (
    DATASET_NAME,
    Fold,
    check_folds,
    choose_folds,
    known_brain,
    make_folds,
    pretraining_fold,
    write_dataset,
)
from msnode.train.recipe import load_recipe

RECIPE = Path(__file__).resolve().parents[3] / "config" / "recipes" / "nnunet2d.toml"


def whole(volume):
    """An extractor to which everything is brain."""
    return Volume(np.ones(volume.grid.shape, np.uint8), volume.grid)


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


@pytest.mark.parametrize(("min_entropy", "slices"), [(0.0, 8), (0.01, 2)])
def test_nnunet_is_handed_prepared_slices(data, tmp_path, min_entropy, slices):
    recipe = load_recipe(RECIPE)
    table = recipe.dataset.model_copy(update={"min_slice_entropy": min_entropy})
    recipe = recipe.model_copy(update={"dataset": table})
    cases = find_cases(data)
    told = []
    write_dataset(cases, make_folds(cases, 5), tmp_path / "work", recipe, lambda _: whole, told.append)
    raw = tmp_path / "work" / "nnUNet_raw" / DATASET_NAME
    image = sitk.ReadImage(str(raw / "imagesTr" / "case04_0000.nii.gz"))
    labels = sitk.ReadImage(str(raw / "labelsTr" / "case04.nii.gz"))
    values, mask = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(labels)
    assert told == [case.name for case in cases]
    assert values.shape == mask.shape == (slices, 20, 24)
    assert_allclose(image.GetSpacing(), (0.9, 0.9, 7.0), rtol=1e-5)
    assert values.min() >= 0
    assert 0.5 < values.max() <= 1
    assert set(np.unique(mask)) == {0, 1}
    assert mask.sum() == 2 * 4 * 4
    description = json.loads((raw / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "noNorm"}
    assert description["numTraining"] == 6
    splits = json.loads(
        (tmp_path / "work/nnUNet_preprocessed" / DATASET_NAME / "splits_final.json").read_text()
    )
    assert len(splits) == 5


def test_synthetic_cases_only_ever_train(data):
    cases = (
        *find_cases(data),
        *(Case(f"synthetic{n}", f"synthetic{n}", data, synthetic=True) for n in range(6)),
    )
    for fold in make_folds(cases, 3):
        assert {f"synthetic{n}" for n in range(6)} <= set(fold.train)
        assert not any(name.startswith("synthetic") for name in fold.val)
    pretraining = pretraining_fold(cases)
    assert pretraining == Fold(("synthetic0", "synthetic1"), tuple(f"synthetic{n}" for n in range(2, 6)))


def test_a_longer_list_of_patients_keeps_the_deal_of_another_data_set(data):
    cases = find_cases(data)
    whole_deal = make_folds(cases, 3)
    some = [case for case in cases if case.name != "case02"]
    for fold, same in zip(make_folds(some, 3, [case.patient for case in cases]), whole_deal, strict=True):
        assert set(fold.val) == set(same.val) - {"case02"}


def test_masks_without_any_lesion_are_refused(data, tmp_path):
    for path in data.glob("*/lesion_mask.nii.gz"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * 0, str(path))
    cases = find_cases(data)
    with pytest.raises(ConfigurationError, match="nothing to learn"):
        write_dataset(
            cases, make_folds(cases, 5), tmp_path, load_recipe(RECIPE), lambda _: whole, lambda _: None
        )


def test_a_known_brain_is_off_by_a_pixel_or_two_and_always_the_same():
    labels = np.zeros((4, 40, 40), dtype=np.uint8)
    labels[:, 8:32, 8:32] = 1
    labels[:, 18:22, 18:22] = 2
    grid = Grid((4, 40, 40), np.diag([7.0, 0.9, 0.9, 1.0])[[2, 1, 0, 3]])
    brain, sizes = Volume(labels, grid), set()
    for number in range(12):
        extract = known_brain(Case(f"synthetic{number}", "s", Path("x"), synthetic=True), brain)
        found = extract(Volume(np.zeros(grid.shape, np.float32), grid)).data
        assert (found == extract(Volume(np.zeros(grid.shape, np.float32), grid)).data).all()
        assert ((found == 2) == (labels == 2)).all()
        sizes.add(int((found > 0).sum()))
    assert len(sizes) > 2
