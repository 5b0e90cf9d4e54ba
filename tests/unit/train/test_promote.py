"""What promotion writes, and what it refuses."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

from msnode.errors import BundleCorrupt, ConfigurationError
from msnode.preprocess import recipes
from msnode.segment.bundle import Calibration, load_bundle
from msnode.train.promote import promote, record


@pytest.fixture
def copy(tiny_checkpoints, tmp_path):
    """The checkpoints in a folder that may be changed."""
    source = tiny_checkpoints["fold_0"].parent.parent
    results = shutil.copytree(source, tmp_path / "results")
    return {fold: results / fold / "checkpoint_best.pth" for fold in tiny_checkpoints}


def test_each_tensor_is_stored_once_in_half_precision(tiny_bundle, tiny_checkpoints):
    trained = torch.load(tiny_checkpoints["fold_0"], weights_only=True)["averaged_weights"]
    unique = {value.data_ptr() for value in trained.values()}
    assert len(unique) < len(trained) / 2
    with safe_open(tiny_bundle / "fold_0.safetensors", "pt") as file:
        assert len(file.keys()) == len(unique)
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            assert torch.equal(file.get_tensor(name), trained[name].half())


def test_the_manifest_says_what_the_bundle_is(stripping_bundle, tiny_brain):
    manifest = load_bundle(stripping_bundle, recipes.names()).manifest
    assert manifest.folds == ("fold_0", "fold_1")
    assert manifest.classes == ("background", "lesion")
    assert manifest.strips_skull
    assert manifest.mirror_axes == (1,)
    assert manifest.calibration is None
    brain = load_bundle(stripping_bundle / "brain", recipes.names())
    assert brain.manifest.classes == ("background", "brain", "ventricles")
    assert brain.identity == load_bundle(tiny_brain, recipes.names()).identity


def test_no_file_can_hold_code(stripping_bundle):
    suffixes = {path.suffix for path in stripping_bundle.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".md", ".safetensors"}


def test_whoever_reads_the_plans_may_read_the_weights(tiny_bundle):
    assert (tiny_bundle / "fold_0.safetensors").stat().st_mode == (tiny_bundle / "plans.json").stat().st_mode


def test_an_earlier_bundle_of_the_same_version_is_replaced(tiny_checkpoints, tiny_recipe, tmp_path):
    one = {"fold_0": tiny_checkpoints["fold_0"]}
    promote(tiny_checkpoints, tiny_recipe, tmp_path, brain=None, training={})
    folder = promote(one, tiny_recipe, tmp_path, brain=None, training={})
    assert not (folder / "fold_1.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-0.1.0"]


def test_record_completes_manifest_and_card(tiny_bundle, tiny_recipe, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    calibration = Calibration(intercept=1, logit_mean_probability=2, spread=-3, log_volume=0.5)
    scope = tiny_recipe.bundle.scope.model_copy(update={"manufacturers": ("ACME",)})
    record(bundle, tiny_recipe, calibration=calibration, scope=scope, threshold=0.45)
    loaded = load_bundle(bundle, recipes.names())
    assert loaded.manifest.calibration == calibration
    assert loaded.manifest.scope == scope
    assert loaded.manifest.training == {"seed": 1}
    card = (bundle / "model_card.md").read_text(encoding="utf-8")
    assert "ACME" in card
    assert "0.45" in card


@pytest.mark.parametrize("changes", [{"colour": "red"}, {"threshold": 2}])
def test_record_refuses_what_a_manifest_cannot_hold(tiny_bundle, tiny_recipe, tmp_path, changes):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with pytest.raises(ConfigurationError, match=f"manifest: {next(iter(changes))}"):
        record(bundle, tiny_recipe, **changes)
    load_bundle(bundle, recipes.names())


def test_nothing_to_promote(tiny_recipe, tmp_path):
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        promote({}, tiny_recipe, tmp_path, brain=None, training={})


def test_a_recipe_that_strips_needs_a_brain_bundle(tiny_checkpoints, stripping_recipe, tmp_path):
    with pytest.raises(ConfigurationError, match="name a brain bundle"):
        promote(tiny_checkpoints, stripping_recipe, tmp_path, brain=None, training={})


def test_checkpoints_of_different_plans_are_refused(copy, tiny_checkpoints, tiny_recipe, tmp_path):
    plans = copy["fold_0"].parent.parent / "plans.json"
    plans.write_text(json.dumps(json.loads(plans.read_text()) | {"plans_name": "other"}))
    mixed = {"fold_0": copy["fold_0"], "fold_1": tiny_checkpoints["fold_1"]}
    with pytest.raises(ConfigurationError, match=r"different plans\.json"):
        promote(mixed, tiny_recipe, tmp_path, brain=None, training={})


def test_weights_that_do_not_fit_the_plans_are_refused(copy, tiny_recipe, tmp_path):
    plans = copy["fold_0"].parent.parent / "plans.json"
    changed = json.loads(plans.read_text())
    changed["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 8, 8]
    plans.write_text(json.dumps(changed))
    with pytest.raises(BundleCorrupt, match="fold_0 do not fit"):
        promote(copy, tiny_recipe, tmp_path, brain=None, training={})
    assert not (tmp_path / "tiny-0.1.0").exists()


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_a_training_that_diverged_is_refused(copy, tiny_recipe, tmp_path, value):
    checkpoint = torch.load(copy["fold_1"], weights_only=True)
    checkpoint["averaged_weights"]["decoder.seg_layers.1.weight"][0] = value
    torch.save(checkpoint, copy["fold_1"])
    with pytest.raises(ConfigurationError, match=r"fold_1: decoder\.seg_layers\.1\.weight is not finite"):
        promote(copy, tiny_recipe, tmp_path, brain=None, training={})
