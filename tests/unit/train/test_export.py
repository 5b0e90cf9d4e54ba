"""The folder that nnU-Net loads; `segment/test_predict.py` compares what it then computes."""

import shutil

import pytest
import torch

from msnode.errors import BundleCorrupt, ConfigurationError
from msnode.segment.nnunet import build_network
from msnode.train.export import export_nnunet


def test_the_folder_is_a_model_folder_of_nnunet(tiny_bundle, tmp_path):
    out = export_nnunet(tiny_bundle, tmp_path / "model")
    for name in ("plans.json", "dataset.json"):
        assert (out / name).read_bytes() == (tiny_bundle / name).read_bytes()
    for number in (0, 1):
        path = out / f"fold_{number}" / "checkpoint_final.pth"
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["trainer_name"] == "nnUNetTrainer"
        assert checkpoint["init_args"] == {"configuration": "2d", "fold": number}
        assert checkpoint["inference_allowed_mirroring_axes"] == (1,)
        expected = build_network(tiny_bundle, f"fold_{number}", 1, 2).state_dict()
        assert checkpoint["network_weights"].keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(checkpoint["network_weights"][name], value)


def test_a_folder_that_holds_something_is_left_alone(tiny_bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="not an empty folder"):
        export_nnunet(tiny_bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_bundle_is_not_exported(tiny_bundle, tmp_path):
    damaged = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (damaged / "fold_1.safetensors").unlink()
    with pytest.raises(BundleCorrupt):
        export_nnunet(damaged, tmp_path / "model")
    assert not (tmp_path / "model").exists()
