"""Matches of lesions, by hand and against scipy."""

import numpy as np
import pytest
from scipy import ndimage

from msnode.domain.imaging import Grid, Volume
from msnode.evaluate.lesionwise import LesionMatch, MatchedLesion, match_lesions, shares
from msnode.measure.lesions import find_lesions

SHAPE = (5, 30, 30)
GRID = Grid(SHAPE, np.diag([5.0, 1.0, 1.0, 1.0]))


def found(data):
    return find_lesions(Volume(data.astype(np.float32), GRID), threshold=0.5, min_volume_mm3=0)


def test_overlaps_agree_with_scipy():
    rng = np.random.default_rng(5)
    a, b = (ndimage.gaussian_filter(rng.normal(size=SHAPE), (0.6, 1.5, 1.5)) > 0.14 for _ in range(2))
    match = match_lesions(found(a), a, found(b), b)
    assert len(match.truth) > 5
    for own, other, lesions in ((a, b, match.truth), (b, a, match.predicted)):
        labels, count = ndimage.label(own, structure=np.ones((3, 3, 3)))
        ids = range(1, count + 1)
        expected = zip(ndimage.sum(own, labels, ids) * 5.0, ndimage.mean(other, labels, ids), strict=True)
        assert sorted((round(x.volume_mm3, 6), round(x.overlap, 9)) for x in lesions) == sorted(
            (round(float(volume), 6), round(float(overlap), 9)) for volume, overlap in expected
        )


def test_lesions_that_touch_at_a_corner_are_one():
    data = np.zeros(SHAPE, dtype=bool)
    data[0, 3, 3] = data[1, 4, 4] = True
    assert len(match_lesions(found(data), data, found(data), data).truth) == 1


@pytest.mark.parametrize(
    ("overlap", "least", "matched"),
    [(0.0, 0.0, False), (0.001, 0.0, True), (0.1, 0.1, True), (0.099, 0.1, False), (1.0, 0.1, True)],
)
def test_a_match_is_any_overlap_or_a_least_share(overlap, least, matched):
    lesion = MatchedLesion(50.0, overlap)
    assert lesion.matched(least) is matched
    assert shares([lesion, MatchedLesion(1.0, 0.0)], least) == (int(matched), 2)


def test_sizes_begin_at_the_lower_edge_of_their_bin():
    volumes = (9.99, 10.0, 99.0, 100.0, 999.0, 1000.0, 5000.0)
    truth = tuple(MatchedLesion(v, 0.5 if v != 99.0 else 0.0) for v in volumes)
    assert LesionMatch(truth, ()).found_by_size() == ((1, 1), (1, 2), (2, 2), (2, 2))
    assert LesionMatch((), ()).found_by_size() == ((0, 0),) * 4


def test_false_positives_touch_nothing():
    predicted = (MatchedLesion(5.0, 0.01), MatchedLesion(500.0, 0.0), MatchedLesion(5.0, 0.0))
    assert LesionMatch((), predicted).false_positives == 2
