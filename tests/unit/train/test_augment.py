"""Augmented slices keep their shape, their labels and their range."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msnode.train import augment
from msnode.train.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[3] / "config" / "recipes"
TABLE = load_recipe(RECIPES / "nnunet2d.toml").augmentation
SCALES = [[1, 1], [0.5, 0.5]]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that batchgenerators uses


def square(size=64):
    """A brain of 0.5 with a lesion of 0.9, and its labels."""
    image, mask = torch.zeros(1, size, size), torch.zeros(1, size, size, dtype=torch.int16)
    image[:, 8:56, 8:56], image[:, 30:36, 30:36] = 0.5, 0.9
    mask[:, 30:36, 30:36] = 1
    return image, mask


def only(**changes):
    """The recipe's ranges with everything off but what is named."""
    off = {
        "rotation_chance": 0.0, "elastic": 0.0, "intensity_chance": 0.0, "lesion_contrast": (1.0, 1.0),
        "brain_edge_px": 0, "strip_chance": 0.0, "shift": 0.0, "shear_deg": 0.0, "rotation_deg": 0.0,
        "scale": (1.0, 1.0),
    }  # fmt: skip
    return TABLE.model_copy(update=off | changes)


@pytest.mark.parametrize("name", ["nnunet2d", "paper-a", "brain2d"])
def test_slices_leave_with_their_shape_their_labels_and_finite_values(name):
    chain = augment.training_transforms(load_recipe(RECIPES / f"{name}.toml").augmentation, SCALES)
    changed = 0
    for _ in range(30):
        image, mask = square()
        out = chain(image=image.clone(), segmentation=mask.clone())
        assert out["image"].shape == (1, 64, 64)
        assert [tuple(s.shape) for s in out["segmentation"]] == [(1, 64, 64), (1, 32, 32)]
        assert set(torch.unique(out["segmentation"][0]).tolist()) <= {0, 1}
        assert torch.isfinite(out["image"]).all()
        changed += not torch.equal(out["image"], image)
    assert changed > 15


def test_image_and_labels_move_together():
    table = only(
        rotation_chance=1.0, rotation_deg=40.0, shift=0.2, shear_deg=20.0, scale=(0.8, 1.2), elastic=0.5
    )
    transform = augment.AffineTransform(table)
    for _ in range(20):
        mask = torch.zeros(1, 96, 96, dtype=torch.int16)
        mask[:, 40:60, 30:56] = 1
        mask[:, 44:50, 36:42] = 2
        out = transform(image=(mask > 0).float() + (mask > 1), segmentation=mask)
        expected = out["image"].round().to(torch.int16)
        differing = (expected != out["segmentation"]).float().mean()
        assert differing < 0.02  # borders between two labels only
        assert out["segmentation"].any()


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"scale": (1.2, 1.2)}, 1.44), ({"scale": (0.8, 0.8)}, 0.64), ({"rotation_deg": 40.0}, 1.0)],
)
def test_zoom_changes_the_area_by_its_square_and_rotation_does_not(changes, limit):
    transform = augment.AffineTransform(only(rotation_chance=1.0, **changes))
    mask = torch.zeros(1, 128, 128, dtype=torch.int16)
    mask[:, 40:90, 44:84] = 1
    out = transform(image=mask.float(), segmentation=mask)
    assert float(out["segmentation"].sum()) / float(mask.sum()) == pytest.approx(limit, rel=0.04)


def test_a_shift_stays_within_its_share_of_the_slice():
    transform = augment.AffineTransform(only(rotation_chance=1.0, shift=0.2))
    mask = torch.zeros(1, 100, 60, dtype=torch.int16)
    mask[:, 48:52, 28:32] = 1
    places = []
    for _ in range(60):
        moved = transform(image=mask.float(), segmentation=mask)["segmentation"][0].nonzero().float().mean(0)
        places.append((moved - torch.tensor([49.5, 29.5])).tolist())
    rows, columns = np.abs(np.array(places)).max(axis=0)
    assert 12 < rows <= 21
    assert 7 < columns <= 13


def test_a_bias_field_is_smooth_positive_and_never_the_same():
    transform = augment.BiasFieldTransform(0.35)
    first, second = (transform(image=torch.ones(1, 40, 40))["image"] for _ in range(2))
    assert (first > 0).all()
    assert first[0].diff(dim=0).abs().max() < 0.5 * first.max()
    assert not torch.equal(first, second)
    assert not transform(image=torch.zeros(1, 8, 8))["image"].any()


def test_stripped_background_stays_zero_whatever_happens_to_the_brain():
    chain = augment.training_transforms(only(intensity_chance=1.0), SCALES)
    image, mask = square()
    out = chain(image=image, segmentation=mask)["image"]
    assert not out[:, :8].any()
    assert not torch.equal(out, image)
    assert out.min() >= 0


def test_lesion_contrast_changes_lesions_and_little_else():
    transform = augment.LesionContrastTransform((0.5, 0.5))
    image, mask = square()
    out = transform(image=image, segmentation=mask)["image"]
    assert float(out[0, 33, 33]) == pytest.approx(0.7)
    assert torch.equal(out[0, :28], image[0, :28])
    plain = torch.where(mask > 0, 0.5, image)
    assert torch.equal(transform(image=plain, segmentation=torch.zeros_like(mask))["image"], plain)


def test_a_brain_edge_is_lost_and_fluid_inside_is_not_widened():
    transform = augment.BrainEdgeTransform(3)
    image, mask = square()
    image[:, 20:22, 20:22] = 0  # dark fluid, four pixels
    out = transform(image=image, segmentation=mask)["image"]
    lost = int((image > 0).sum() - (out > 0).sum())
    assert 48 * 4 - 4 <= lost <= 48 * 4 * 3
    assert torch.equal(out[0, 16:48, 16:48], image[0, 16:48, 16:48])


def test_a_stripped_image_keeps_what_is_labelled_only():
    image, mask = square()
    out = augment.StripTransform()(image=image, segmentation=mask)["image"]
    assert torch.equal(out > 0, mask > 0)


def test_only_columns_are_mirrored():
    assert augment.MIRROR_AXES == (1,)
