"""The network that OpenVINO runs against the one that torch trains."""

import json
import shutil

import numpy as np
import openvino
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.numpy import load_file, save_file

from msnode.errors import BundleCorrupt
from msnode.segment.architectures import ARCHITECTURES
from msnode.segment.nnunet import build_network
from msnode.segment.openvino_unet import NETWORKS, read_model


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def change_plans(folder, **arguments):
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"] |= arguments
    (folder / "plans.json").write_text(json.dumps(plans))


def change_weights(folder, change):
    weights = load_file(folder / "fold_0.safetensors")
    change(weights)
    save_file(weights, folder / "fold_0.safetensors")


def outputs(model, slices):
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(output) for output in compiled(slices).values()]


@pytest.mark.parametrize("patch", [(32, 32), (16, 48)])
def test_each_fold_computes_what_torch_computes(tiny_bundle, patch):
    slices = np.random.default_rng(0).random((1, 1, *patch), dtype=np.float32)
    ours = outputs(read_model(tiny_bundle, ("fold_0", "fold_1"), 1, 2, patch), slices)
    assert len(ours) == 2
    for fold, logits in zip(("fold_0", "fold_1"), ours, strict=True):
        with torch.inference_mode():
            expected = build_network(tiny_bundle, fold, 1, 2)(torch.from_numpy(slices)).numpy()
        assert expected.std() > 0.1
        assert_allclose(logits, expected, atol=2e-5)
    assert np.abs(ours[0] - ours[1]).max() > 0.1


def test_slope_and_eps_come_from_the_plans(copy):
    change_plans(copy, nonlin_kwargs={"negative_slope": 0.5}, norm_op_kwargs={"eps": 0.1, "affine": True})
    slices = np.random.default_rng(1).random((1, 1, 32, 32), dtype=np.float32)
    with torch.inference_mode():
        expected = build_network(copy, "fold_0", 1, 2)(torch.from_numpy(slices)).numpy()
    (logits,) = outputs(read_model(copy, ["fold_0"], 1, 2, (32, 32)), slices)
    assert_allclose(logits, expected, atol=2e-5)


def test_both_engines_know_the_same_architectures():
    assert NETWORKS.keys() == ARCHITECTURES.keys()


def test_an_unknown_architecture_is_refused(copy):
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "os.system"
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleCorrupt, match=r"'os\.system' is unknown"):
        read_model(copy, ["fold_0"], 1, 2, (32, 32))


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_conv_per_stage": [2, 2, 3]},
        {"strides": [[1, 1], [2, 2], [2, 1]]},
        {"nonlin": "torch.nn.ReLU"},
        {"dropout_op": "torch.nn.Dropout2d"},
        {"nonlin_kwargs": 3},
    ],
    ids=lambda a: next(iter(a)),
)
def test_plans_that_the_weights_do_not_fit_are_refused(copy, arguments):
    change_plans(copy, **arguments)
    with pytest.raises(BundleCorrupt, match="fold_0 do not fit"):
        read_model(copy, ["fold_0"], 1, 2, (32, 32))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}"])
def test_plans_that_are_none_are_refused(copy, text):
    (copy / "plans.json").write_text(text)
    with pytest.raises(BundleCorrupt, match=r"plans\.json does not describe"):
        read_model(copy, ["fold_0"], 1, 2, (32, 32))


def test_a_missing_tensor_is_refused(copy):
    change_weights(copy, lambda weights: weights.pop("decoder.transpconvs.0.bias"))
    with pytest.raises(BundleCorrupt, match="do not fit"):
        read_model(copy, ["fold_0"], 1, 2, (32, 32))


@pytest.mark.parametrize(("channels", "classes"), [(2, 2), (1, 3)])
def test_another_number_of_channels_or_classes_is_refused(copy, channels, classes):
    with pytest.raises(BundleCorrupt, match="do not fit"):
        read_model(copy, ["fold_0"], channels, classes, (32, 32))


class Intruder:
    def __reduce__(self):
        return (print, ("code ran",))


def test_weights_with_code_in_them_are_refused_unread(copy, capsys):
    torch.save({"network_weights": Intruder()}, copy / "fold_0.safetensors")
    with pytest.raises(BundleCorrupt, match=r"fold_0\.safetensors is not a safetensors file"):
        read_model(copy, ["fold_0"], 1, 2, (32, 32))
    assert "code ran" not in capsys.readouterr().out


def test_a_fold_without_weights_is_refused(copy):
    with pytest.raises(BundleCorrupt, match=r"fold_7\.safetensors"):
        read_model(copy, ["fold_7"], 1, 2, (32, 32))
