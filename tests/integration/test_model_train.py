"""`msnode model train` end to end on a tiny data set, and the shipped bundle on real scans."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name its own documentation uses
import torch

from msnode.domain import Prepared
from msnode.lesions import find_lesions
from msnode.preprocess import recipes
from msnode.segment.bundle import builtin_folder, find_bundle, load_bundle
from msnode.segment.predict import Predictor
from msnode.train.dataset import read_nifti
from support.environment import shared_data

RECIPE = Path(__file__).resolve().parents[2] / "config" / "recipes" / "nnunet2d.toml"
WARNINGS_OF_NNUNET = pytest.mark.filterwarnings(  # its imports and its unset folders, none of them ours
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


@pytest.fixture
def data(tmp_path):
    """Four heads of 64 x 64 pixels with bright lesions."""
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    head = (rows**2 / 0.7 + columns**2 / 0.5 < 1).astype(np.float32) * 400
    for number in range(4):
        random = np.random.default_rng(number)
        values = np.repeat(head[np.newaxis], 6, axis=0) + random.normal(0, 15, (6, 64, 64)).astype(np.float32)
        mask = np.zeros(values.shape, dtype=np.uint8)
        for k in range(1, 5):
            row, column = random.integers(22, 38, 2)
            mask[k, row : row + 5, column : column + 5] = 1
        values[mask == 1] += 500
        folder = tmp_path / "data" / f"case{number:02d}"
        folder.mkdir(parents=True)
        for name, array in (("FLAIR", values), ("lesion_mask", mask)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.9, 0.9, 6.0))
            sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path):
    """The shipped recipe, small enough for a test."""
    text = RECIPE.read_text()
    for old, new in {
        "features = [24, 48, 96, 192, 256, 256]": "features = [4, 8, 8]",
        "patch = [256, 256]": "patch = [64, 64]",
        "epochs = 46": "epochs = 2",
        "iterations_per_epoch = 50": "iterations_per_epoch = 1",
        "validation_iterations = 5": "validation_iterations = 1",
        "batch = 6": "batch = 2",
        'same_patient = [["case09", "case11"]]': 'same_patient = [["case01", "case03"]]',
        "folds = 5": "folds = 3",
        'name = "msnode-flair2d"': 'name = "tiny"',
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


TWICE = textwrap.dedent("""
    import sys
    from pathlib import Path
    from msnode import cli
    from msnode.train.recipe import load_recipe
    from msnode.train.session import Plan, train_bundle

    class PowerCut(BaseException):
        pass

    def report(step):
        if step.epoch == 1:
            raise PowerCut

    if __name__ == "__main__":  # nnU-Net spawns processes that import this file
        recipe, data, out = map(Path, sys.argv[1:])
        try:
            train_bundle(Plan(load_recipe(recipe), data, out, out / "work", 0, "interrupted"), report)
        except PowerCut:
            print("interrupted")
        sys.argv = f"msnode model train --recipe {recipe} --data {data} --out {out}".split()
        cli.main()
""")
"""One process for both halves: importing nnU-Net takes longer than this training."""


def run(*command):
    # one thread: threads that wait for each other on a busy machine cost minutes
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def nnunet_logits(folder, values):
    """Logits of nnU-Net's predictor, which reads the folder as one of its own."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - 4 s to import

    torch.set_num_threads(1)
    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=None)
    return predictor.predict_sliding_window_return_logits(torch.from_numpy(values.copy())).float().numpy()


@WARNINGS_OF_NNUNET
def test_an_interrupted_training_is_resumed_and_its_bundle_loads_everywhere(
    data, recipe, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    script = tmp_path / "twice.py"
    script.write_text(TWICE)
    done = run(script, recipe, data, out)
    assert done.returncode == 0, done.stderr
    folder = out / "tiny-1.0.0"
    assert done.stdout.split() == ["interrupted", str(folder)]
    log = (out / "work" / "nnunet.log").read_text()
    assert [log.count(f": Epoch {epoch}\n") for epoch in (0, 1)] == [1, 1]

    bundle = load_bundle(folder, recipes.names())
    assert set(bundle.manifest.evaluation["cases"]) == {"case00"}  # case01 and case03 are one patient
    assert "msnode model train --recipe" in bundle.manifest.evaluation["command"]
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert "optimizer_state" not in checkpoint

    prepared = recipes.get(bundle.manifest.recipe).apply(read_nifti(data / "case00" / "FLAIR.nii.gz"))
    ours = Predictor(bundle, "cpu", threads=1).predict(prepared)
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", os.devnull)
    theirs = torch.softmax(torch.from_numpy(nnunet_logits(folder, prepared.data)), 0).numpy()
    assert np.abs(ours - theirs).max() < 0.01

    recipe.write_text(recipe.read_text().replace("seed = ", "seed = 1"))
    changed = run("-m", "msnode", "model", "train", "--recipe", recipe, "--data", data, "--out", out)
    assert changed.returncode == 2
    assert "holds a training with another recipe" in changed.stderr


def test_misuse_is_one_line(data, recipe, tmp_path):
    fold = run(
        "-m", "msnode", "model", "train", "--recipe", recipe, "--data", data, "--out", tmp_path, "--fold", "7"
    )
    assert fold.returncode == 2
    assert "fold 7 does not exist; there are 3, from 0" in fold.stderr
    assert "Traceback" not in fold.stderr
    missing = run("-m", "msnode", "model", "show", "nothing-here")
    assert missing.returncode == 1
    assert "no bundle 'nothing-here'; there is: msnode-flair2d@" in missing.stderr


def test_bundles_can_be_listed_and_shown_as_json():
    listed = json.loads(run("-m", "msnode", "model", "list", "--json").stdout)
    assert listed[0]["name"] == "msnode-flair2d"
    shown = json.loads(run("-m", "msnode", "model", "show", "--json").stdout)
    assert shown["name"] == "msnode-flair2d"
    assert len(shown["sha256"]) == 64
    assert shown["evaluation"]["mean"]["dice"] == listed[0]["dice"]
    assert "Held-out" in run("-m", "msnode", "model", "show").stdout.replace("held-out", "Held-out")


@pytest.fixture(scope="module")
def builtin():
    return load_bundle(find_bundle("msnode-flair2d", [builtin_folder()]), recipes.names())


@pytest.mark.data
@WARNINGS_OF_NNUNET
def test_the_built_in_model_segments_as_nnunet_itself_does(builtin, monkeypatch):
    source = read_nifti(shared_data("ms3seg/case06/FLAIR.nii.gz"))
    whole = recipes.get(builtin.manifest.recipe).apply(source)
    few = np.ascontiguousarray(whole.data[:, 9:13])
    grid = type(whole.grid)(few.shape[1:], whole.grid.affine.copy())
    ours = Predictor(builtin, "cpu").predict(Prepared(few, grid, grid, whole.recipe))[1] >= 0.5
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", os.devnull)
    logits = nnunet_logits(builtin.path, few)
    theirs = logits[1] >= logits[0]
    assert ours.sum() > 500
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= 0.999


@pytest.mark.data
def test_the_recorded_figures_are_those_of_the_shipped_files(builtin):
    """One held-out scan, read again: the model card tells of this very bundle."""
    source = read_nifti(shared_data("ms3seg/case01/FLAIR.nii.gz"))
    prepared = recipes.get(builtin.manifest.recipe).apply(source)
    probability = recipes.restore(Predictor(builtin, "cpu").predict(prepared)[1], prepared)
    lesions = find_lesions(
        probability, threshold=builtin.manifest.threshold, min_volume_mm3=builtin.manifest.min_volume_mm3
    )
    recorded = builtin.manifest.evaluation["cases"]["case01"]
    assert len(lesions.lesions) == pytest.approx(recorded["predicted_count"], abs=1)
    total = sum(lesion.volume_mm3 for lesion in lesions.lesions) / 1000
    assert total == pytest.approx(recorded["predicted_ml"], rel=0.02)
