"""Augmented slices keep their shape, their labels and their range."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msnode.train import augment
from msnode.train.recipe import load_recipe

TABLE = load_recipe(Path(__file__).resolve().parents[3] / "config" / "recipes" / "nnunet2d.toml").augmentation
SCALES = [[1, 1], [0.5, 0.5]]


@pytest.fixture
def chain():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that batchgenerators uses
    return augment.training_transforms(TABLE, (48, 48), SCALES)


def test_slices_leave_in_patch_size_with_labels_0_and_1(chain):
    changed = 0
    for _ in range(30):
        image, mask = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int16)
        image[:, 12:52, 12:52], image[:, 30:36, 30:36] = 0.5, 0.9
        mask[:, 30:36, 30:36] = 1
        out = chain(image=image.clone(), segmentation=mask.clone())
        assert out["image"].shape == (1, 48, 48)
        assert [tuple(s.shape) for s in out["segmentation"]] == [(1, 48, 48), (1, 24, 24)]
        assert set(torch.unique(out["segmentation"][0]).tolist()) <= {0, 1}
        assert torch.isfinite(out["image"]).all()
        lesion = out["segmentation"][0][0] == 1
        assert 10 < int(lesion.sum()) < 80
        changed += not torch.equal(out["image"], image[:, 8:56, 8:56])
    assert changed > 20


def test_a_bias_field_is_smooth_positive_and_never_the_same():
    np.random.seed(1)  # noqa: NPY002 - the generator that batchgenerators uses
    transform = augment.BiasFieldTransform(0.35)
    first, second = (transform(image=torch.ones(1, 40, 40))["image"] for _ in range(2))
    assert (first > 0).all()
    assert first[0].diff(dim=0).abs().max() < 0.5 * first.max()
    assert not torch.equal(first, second)
    assert not transform(image=torch.zeros(1, 8, 8))["image"].any()


def test_only_columns_are_mirrored():
    assert augment.MIRROR_AXES == (1,)
