"""Networks are built from a table, and weights are read without running code."""

import json
import pickle
import shutil

import pytest
import torch

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


def test_weights_of_another_network_are_refused(copy):
    with pytest.raises(BundleCorrupt, match="do not fit"):
        build_network(copy, "fold_0", 3, 2)


class Intruder:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_checkpoint_cannot_run_code(copy, capsys):
    torch.save({"network_weights": Intruder()}, copy / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(pickle.UnpicklingError):
        build_network(copy, "fold_0", 1, 2)
    assert "code ran" not in capsys.readouterr().out
