import re

import numpy as np
import pytest
from pydicom import Dataset

from msnode.domain import Grid
from msnode.segment.bundle import Scope
from msnode.segment.scope import acquisition_plane, outside_scope

SCOPE = Scope(
    plane="axial", slice_distance_mm=(2.5, 9.0), field_strength_t=(1.5,), manufacturers=("TOSHIBA",)
)


def grid(distance=6.0, axis=2):
    affine = np.zeros((4, 4))
    others = [a for a in range(3) if a != axis]
    affine[axis, 0], affine[others[1], 1], affine[others[0], 2], affine[3, 3] = distance, 0.9, 0.9, 1
    return Grid((20, 256, 256), affine)


def header(**values):
    dataset = Dataset()
    dataset.Manufacturer, dataset.MagneticFieldStrength = "Toshiba Medical", 1.5
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def test_what_was_seen_in_training_is_in_scope():
    assert outside_scope(SCOPE, grid(), header()) == ()


@pytest.mark.parametrize(
    ("where", "what", "says"),
    [
        (grid(axis=0), {}, "sagittal"),
        (grid(axis=1), {}, "coronal"),
        (grid(distance=1.0), {}, r"slice distance 1\.0 mm"),
        (grid(), {"MagneticFieldStrength": 3}, "3 T"),
        (grid(), {"Manufacturer": "SIEMENS"}, "manufacturer"),
    ],
)
def test_what_was_not_seen_is_said(where, what, says):
    (sentence,) = outside_scope(SCOPE, where, header(**what))
    assert sentence.startswith("Outside the model's scope: ")
    assert re.search(says, sentence)


def test_a_missing_attribute_says_nothing():
    assert outside_scope(SCOPE, grid(), Dataset()) == ()
    assert outside_scope(SCOPE, grid(), header(MagneticFieldStrength=None, Manufacturer="")) == ()


def test_the_plane_of_a_tilted_stack_is_the_nearest():
    tilted = grid()
    affine = tilted.affine.copy()
    affine[:3, 0] = [0, 2.0, 5.6]
    assert acquisition_plane(Grid(tilted.shape, affine)) == "axial"
