"""What speaks against a brain mask."""

import numpy as np
import pytest

from msnode.domain.imaging import Grid, Volume
from msnode.preprocess.quality import judge_brain

SPACING = (6.0, 2.0, 2.0)
SHAPE = (30, 110, 100)


def brain(size=1.0, *, shape=SHAPE, shift_mm=(0.0, 0.0, 0.0), label=1):
    """An ellipsoid of 1.3 l (at size 1) on a grid of 180 x 220 x 200 mm, `shift_mm` off its centre."""
    where = [
        (np.arange(n) - (n - 1) / 2) * step - shift
        for n, step, shift in zip(shape, SPACING, shift_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*where, indexing="ij")
    inside = (z / 62) ** 2 + (y / 80) ** 2 + (x / 63) ** 2 < size**2
    affine = np.diag([*SPACING, 1.0])[[2, 1, 0, 3]]
    return Volume(inside.astype(np.uint8) * np.uint8(label), Grid(shape, affine))


def cut(volume, first, last):
    data = volume.data[first:last]
    return Volume(data.copy(), Grid(data.shape, volume.grid.affine.copy()))


@pytest.mark.parametrize("label", [1, 2])
def test_nothing_speaks_against_a_whole_brain(label):
    assert judge_brain(brain(label=label)) == ()


@pytest.mark.parametrize(("size", "ml"), [(0.7, 449), (1.2, 2262)])
def test_a_volume_that_no_adult_has_is_named(size, ml):
    (sentence,) = judge_brain(brain(size))
    assert sentence.startswith("the brain's volume of")
    assert int(sentence.split()[4]) == pytest.approx(ml, rel=0.03)
    assert sentence.endswith("ml is outside 700-2000 ml")


def test_a_brain_that_is_cut_off_at_the_base_is_named_and_its_volume_is_not_judged():
    (sentence,) = judge_brain(cut(brain(0.7), 14, 30))
    assert sentence.startswith("the brain is cut off at the base: the lowest slice still shows ")
    assert sentence.endswith("cm2 of it")


def test_the_lowest_slices_of_a_base_may_be_missing():
    whole = brain()
    lowest = int(np.flatnonzero(whole.data.any(axis=(1, 2)))[0])
    assert judge_brain(cut(whole, lowest + 1, 30)) == ()


def test_a_brain_that_is_cut_off_at_the_vertex_is_named_and_its_volume_is_not_judged():
    (sentence,) = judge_brain(cut(brain(0.8), 0, 17))
    assert "cut off at the vertex" in sentence
    assert sentence.endswith("cm2 of it")


def test_the_last_slices_of_a_vertex_may_be_missing():
    whole = brain()
    top = int(np.flatnonzero(whole.data.any(axis=(1, 2)))[-1])
    assert judge_brain(cut(whole, 0, top)) == ()


@pytest.mark.parametrize(
    ("name", "shift_mm"),
    [
        ("anterior", (0, -45, 0)),
        ("posterior", (0, 45, 0)),
        ("right", (0, 0, -50)),
        ("left", (0, 0, 50)),
    ],
)
def test_a_border_that_the_brain_touches_is_named(name, shift_mm):
    assert judge_brain(brain(shift_mm=shift_mm)) == (
        f"the brain touches the {name} border of the field of view",
    )


def test_a_few_stray_voxels_on_a_border_say_nothing():
    whole = brain()
    data = whole.data.copy()
    data[10:12, 50:54, 0] = 1  # 96 mm2
    assert judge_brain(Volume(data, whole.grid)) == ()


def test_no_brain_at_all_is_said():
    assert judge_brain(Volume(np.zeros(SHAPE, np.uint8), brain().grid)) == ("no brain was found",)
