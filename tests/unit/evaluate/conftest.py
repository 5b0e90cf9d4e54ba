"""One evaluation that several tests look at."""

import pytest

from msnode.evaluate.evaluation import evaluate_cases
from unit.evaluate.scans import SPOTS, about, result, six


@pytest.fixture(scope="session")
def evaluation():
    loss = {"fold_0": {"train": [1.0, 0.5, 0.2], "validation": [1.1, 0.7, 0.5]}}
    scans = [*six(ceiling=SPOTS[1:]), result(6, truth=None, found=SPOTS[:2], fold=None)]
    return evaluate_cases(scans, about(loss=loss))
