"""One path from a volume to its lesions."""

from contextlib import contextmanager

import numpy as np
import pytest

from msnode.domain.imaging import Grid, Volume
from msnode.errors import OutsideModelScope
from msnode.reading.segment_volume import LesionRules, segment_volume
from support.networks import FakeNetwork

RULES = LesionRules("flair2d-head-v1", threshold=0.5, min_volume_mm3=3)


@pytest.fixture
def head():
    data = np.random.default_rng(0).normal(600, 40, (12, 40, 40)).astype(np.float32)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 6.0, 0.9, 0.9, 1
    return Volume(data, Grid(data.shape, affine))


def test_probability_and_lesions_lie_on_the_grid_of_the_volume(head):
    found = segment_volume(head, FakeNetwork(), RULES)
    assert found.probability.grid.same_as(head.grid)
    assert found.lesion_map.grid.same_as(head.grid)
    assert found.lesion_map.labels.shape == head.grid.shape
    assert found.prepared.recipe == "flair2d-head-v1"


def test_a_check_that_refuses_keeps_the_network_from_running(head):
    def refuse(_prepared):
        raise OutsideModelScope("no brain")

    network = FakeNetwork()
    network.predict = lambda _: pytest.fail("the network ran")
    with pytest.raises(OutsideModelScope):
        segment_volume(head, network, RULES, check=refuse)


def test_its_stages_are_marked_in_order(head):
    entered = []

    @contextmanager
    def stage(name):
        entered.append(name)
        yield

    segment_volume(head, FakeNetwork(), RULES, stage=stage)
    assert entered == ["preprocess", "segment", "restore", "lesions"]
