"""How often a training sees which case and which slice."""

from collections import Counter

import numpy as np
import pytest

from msnode.train.sampling import Cases, balanced


class Source:
    """One case, whose first slice with lesions holds 30 voxels of them and whose second holds one."""

    def __init__(self):
        self.reads = 0
        voxels = [(0, 2, row, 5) for row in range(30)] + [(0, 7, 1, 1)]
        self.properties = {"class_locations": {1: np.array(voxels)}, "spacing": (1, 1, 1)}

    def load_case(self, identifier):
        self.reads += 1
        assert identifier == "case01"
        return np.ones((1, 8, 40, 40)), np.zeros((1, 8, 40, 40)), None, self.properties


@pytest.fixture
def source():
    return Source()


def drawn(cases):
    """Slices that lesion voxels come from, in 200 loads."""
    slices = Counter()
    for _ in range(200):
        voxels = cases.load_case("case01")[3]["class_locations"][1]
        slices[int(voxels[np.random.randint(len(voxels))][1])] += 1  # noqa: NPY002 - as nnU-Net draws
    return slices


def test_slices_with_lesions_are_drawn_evenly(source):
    np.random.seed(3)  # noqa: NPY002 - the generator that batchgenerators uses
    slices = drawn(Cases(source, ["case01"], even_slices=True))
    assert slices.keys() == {2, 7}
    assert 70 < slices[7] < 130


def test_without_it_they_count_by_their_lesion_area(source):
    np.random.seed(3)  # noqa: NPY002 - the generator that batchgenerators uses
    assert drawn(Cases(source, ["case01"], even_slices=False))[7] < 25


def test_a_case_without_lesion_is_given_as_it_is(source):
    source.properties = {"class_locations": {1: []}}
    assert Cases(source, ["case01"], even_slices=True).load_case("case01")[3]["class_locations"] == {1: []}


def test_a_case_is_read_once_and_its_properties_stay(source):
    cases = Cases(source, ["case01"], even_slices=True)
    for _ in range(3):
        data, labels, before, properties = cases.load_case("case01")
    assert (data.shape, labels.shape, before, properties["spacing"]) == (
        (1, 8, 40, 40),
        (1, 8, 40, 40),
        None,
        (1, 1, 1),
    )
    assert source.reads == 1
    assert len(source.properties["class_locations"][1]) == 31


@pytest.mark.parametrize(("share", "expected"), [(0.5, 4), (0.2, 16), (0, 2)])
def test_real_cases_are_named_as_often_as_the_synthetic_share_asks(share, expected):
    names = [f"synthetic{n}" for n in range(4)] + ["case01", "case02"]
    found = balanced(names, share)
    assert sum(name.startswith("case") for name in found) == expected
    assert sum(name.startswith("synthetic") for name in found) == (4 if share else 0)
