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

from msnode.domain.imaging import Grid, Prepared
from msnode.evaluate import metrics
from msnode.preprocess import recipes
from msnode.segment.bundle import builtin_folder, find_bundle, load_bundle
from msnode.segment.predict import Predictor
from msnode.train.cases import Case, read_nifti
from msnode.train.export import export_nnunet
from msnode.train.reading import CaseReader, predict_cases, unseen_folds
from support.environment import shared_data

RECIPE = Path(__file__).resolve().parents[2] / "config" / "recipes" / "nnunet2d.toml"
WARNINGS_OF_NNUNET = pytest.mark.filterwarnings(  # its imports and its unset folders, none of them ours
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


def write_case(folder, number, *, brain=False):
    """A head of 64 x 64 pixels with bright lesions."""
    rows, columns = np.mgrid[-1:1:64j, -1:1:64j]
    head = (rows**2 / 0.7 + columns**2 / 0.5 < 1).astype(np.float32) * 400
    random = np.random.default_rng(number)
    values = np.repeat(head[np.newaxis], 6, axis=0) + random.normal(0, 15, (6, 64, 64)).astype(np.float32)
    mask = np.zeros(values.shape, dtype=np.uint8)
    for k in range(1, 5):
        row, column = random.integers(22, 38, 2)
        mask[k, row : row + 5, column : column + 5] = 1
    values[mask == 1] += 500
    folder.mkdir(parents=True)
    images = {"FLAIR": values, "lesion_mask": mask}
    if brain:
        images["brain_mask"] = np.repeat((head > 0)[np.newaxis], 6, axis=0).astype(np.uint8)
    for name, array in images.items():
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 0.9, 6.0))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


@pytest.fixture
def data(tmp_path):
    """Four real cases, and six synthetic ones that the training finds ready in its work folder."""
    for number in range(4):
        write_case(tmp_path / "data" / f"case{number:02d}", number)
    for number in range(6):
        write_case(
            tmp_path / "out" / "work" / "synthetic" / f"synthetic{number:03d}", 10 + number, brain=True
        )
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "p1.nii.gz").write_bytes(b"not read: the synthetic scans are there")
    return tmp_path / "data"


@pytest.fixture
def recipe(tmp_path):
    """The shipped recipe, small enough for a test, for whole heads."""
    text = RECIPE.read_text()
    for old, new in {
        'preprocess = "flair2d-brain-v1"': 'preprocess = "flair2d-head-v1"',
        "scans = 80": "scans = 6",
        'lesion_masks = "../ljubljana/lesion_masks_mni"': 'lesion_masks = "../masks"',
        "features = [16, 32, 64, 128, 192, 192]": "features = [4, 8, 8]",
        "patch = [224, 192]": "patch = [64, 64]",
        "\nepochs = ": "\nepochs = 2 #",
        "pretraining_epochs = ": "pretraining_epochs = 1 #",
        "\niterations_per_epoch = 50": "\niterations_per_epoch = 1",
        "validation_iterations = 5": "validation_iterations = 1",
        "batch = 6": "batch = 2",
        "oversample_lesion = 0.5": "oversample_lesion = 0.5\neven_slices = true\naveraging = 0.5",
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
        if step.fold == 0 and step.epoch == 1:
            raise PowerCut

    if __name__ == "__main__":  # nnU-Net spawns processes that import this file
        recipe, data, out = map(Path, sys.argv[1:])
        plan = Plan(load_recipe(recipe), data, out, out / "work", (0, 1), None, 1, 1, "cpu", "interrupted")
        try:
            train_bundle(plan, report)
        except PowerCut:
            print("interrupted")
        sys.argv = f"msnode model train --recipe {recipe} --data {data} --out {out} --fold 0 --fold 1".split()
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


def nnunet_logits(folder, values, folds=None):
    """Logits of nnU-Net's predictor, which reads the folder as one of its own."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - 4 s to import

    torch.set_num_threads(1)
    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=folds)
    return predictor.predict_logits_from_preprocessed_data(torch.from_numpy(values.copy())).float().numpy()


@WARNINGS_OF_NNUNET
def test_an_interrupted_training_is_resumed_and_its_bundle_loads_everywhere(
    data, recipe, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    script = tmp_path / "twice.py"
    script.write_text(TWICE)
    done = run(script, recipe, data, out)
    assert done.returncode == 0, done.stderr
    folder = out / "tiny-2.0.0"
    assert done.stdout.split() == ["interrupted", str(folder)]
    log = (out / "work" / "nnunet.log").read_text()
    # the pretraining and two folds begin once; the fold that was cut off goes on with its second epoch
    assert [log.count(f": Epoch {epoch}\n") for epoch in (0, 1)] == [3, 2]

    left = json.loads((out / "work" / "plan.json").read_text())
    assert (left["stage"], left["left"]) == ("done", [])
    assert left["epochs_done"] == {"pretraining": 1, "fold 0": 2, "fold 1": 2}

    bundle = load_bundle(folder, recipes.names())
    manifest = bundle.manifest
    assert manifest.folds == ("fold_0", "fold_1")
    assert set(manifest.evaluation["cases"]) == {"case00", "case01", "case03"}  # 01 and 03 are one patient
    assert "msnode model train --recipe" in manifest.evaluation["command"]
    training = manifest.training
    assert training["folds"]["fold_0"] == {"train": ["case01", "case02", "case03"], "val": ["case00"]}
    assert training["patients"]["case03"] == "case01"
    assert len(training["curves"]["fold_1"]["train"]) == 2
    assert set(training["data"]["case02"]) == {"FLAIR.nii.gz", "lesion_mask.nii.gz"}
    for name in training["folds"]["fold_1"]["val"]:
        case = Case(name, "x", data / name)
        assert unseen_folds(bundle, case) == ("fold_1",)

    exported = run("-m", "msnode", "model", "export", folder, "--nnunet", tmp_path / "nnunet")
    assert exported.returncode == 0, exported.stderr
    prepared = recipes.get(manifest.recipe).apply(read_nifti(data / "case00" / "FLAIR.nii.gz"))
    ours = Predictor(bundle, "cpu", threads=1, preset="best").predict(prepared).probability
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", os.devnull)
    theirs = torch.softmax(torch.from_numpy(nnunet_logits(tmp_path / "nnunet", prepared.data)), 0).numpy()
    assert np.abs(ours - theirs).mean() < 0.02  # ours may run in bfloat16, and the network is hardly trained

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
def test_the_built_in_model_segments_as_nnunet_itself_does(builtin, tmp_path, monkeypatch):
    reader = CaseReader(builtin.path, "fast")
    image = read_nifti(shared_data("ms3seg/case06/FLAIR.nii.gz"))
    whole = recipes.get(builtin.manifest.recipe).apply(image, reader.networks(None).extract)
    few, brain = whole.data[:, 9:13], whole.brain[9:13]
    rows, columns = (np.flatnonzero(few.any(axis=axes)) for axes in ((0, 1, 3), (0, 1, 2)))
    box = (..., slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))  # as both cut a volume
    few, brain = np.ascontiguousarray(few[box]), np.ascontiguousarray(brain[box])
    grid = Grid(few.shape[1:], whole.grid.affine.copy())
    prepared = Prepared(few, grid, grid, whole.recipe, brain)
    predictor = Predictor(builtin, "cpu", folds=builtin.manifest.folds[:1], preset="best")
    ours = predictor.predict(prepared).probability[1] >= 0.5
    export_nnunet(builtin.path, tmp_path / "nnunet")
    for part in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{part}", os.devnull)
    logits = nnunet_logits(tmp_path / "nnunet", few, folds=(0,))
    theirs = logits[1] >= logits[0]
    assert ours.sum() > 500
    assert (
        2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) >= 0.98
    )  # ours may run in bfloat16; `make bench` has both precisions


@pytest.mark.data
def test_the_recorded_figures_are_those_of_the_shipped_files(builtin):
    """One held-out scan, read again by the fold that did not see it: the card is this bundle's."""
    folder = shared_data("ms3seg/case01/FLAIR.nii.gz").parent
    (result,) = predict_cases(builtin.path, [Case("case01", "case01", folder)], mode="held-out")
    assert result.fold == "fold_0"
    recorded = builtin.manifest.evaluation["cases"]["case01"]
    assert len(result.lesions.lesions) == pytest.approx(recorded["predicted_count"], abs=1)
    total = sum(lesion.volume_mm3 for lesion in result.lesions.lesions) / 1000
    assert total == pytest.approx(recorded["predicted_ml"], rel=0.02)
    score = metrics.score(result.truth, result.lesions)
    assert score.dice == pytest.approx(recorded["dice"], abs=0.005)
