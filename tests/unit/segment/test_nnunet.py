"""Networks are built from a table, and weights are read without running code."""

import json
import shutil

import pytest
import torch
from safetensors.numpy import load_file, save_file

from msnode.errors import BundleCorrupt
from msnode.segment.nnunet import build_network


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def test_a_network_comes_ready_for_inference(tiny_bundle):
    network = build_network(tiny_bundle, "fold_0", 1, 2)
    assert not network.training
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 64, 32)).shape == (2, 2, 64, 32)


def test_an_unknown_architecture_is_refused(copy):
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "os.system"
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleCorrupt, match=r"'os\.system' is unknown"):
        build_network(copy, "fold_0", 1, 2)


def test_the_weights_are_the_trainers_in_half_precision(tiny_bundle, tiny_checkpoints):
    network = build_network(tiny_bundle, "fold_1", 1, 2)
    trained = torch.load(tiny_checkpoints["fold_1"], weights_only=True)["averaged_weights"]
    loaded = network.state_dict()
    assert loaded.keys() == trained.keys()
    for name, value in trained.items():
        assert torch.equal(loaded[name], value.half().float())


def test_weights_of_another_network_are_refused(copy):
    with pytest.raises(BundleCorrupt, match="do not fit"):
        build_network(copy, "fold_0", 3, 2)


def test_a_missing_tensor_is_refused(copy):
    weights = load_file(copy / "fold_0.safetensors")
    del weights["decoder.transpconvs.0.bias"]
    save_file(weights, copy / "fold_0.safetensors")
    with pytest.raises(BundleCorrupt, match="do not fit"):
        build_network(copy, "fold_0", 1, 2)


class Intruder:
    def __reduce__(self):
        return (print, ("code ran",))


def test_weights_with_code_in_them_are_refused_unread(copy, capsys):
    torch.save({"network_weights": Intruder()}, copy / "fold_0.safetensors")
    with pytest.raises(BundleCorrupt, match=r"fold_0\.safetensors is not a safetensors file"):
        build_network(copy, "fold_0", 1, 2)
    assert "code ran" not in capsys.readouterr().out
