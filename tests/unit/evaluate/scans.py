"""Small scans with an expert's mask and a prediction."""

from dataclasses import replace

import numpy as np

from msnode.domain.findings import LesionMap
from msnode.domain.imaging import Grid, Volume
from msnode.evaluate.cases import CaseResult
from msnode.evaluate.evaluation import About
from msnode.measure.lesions import find_lesions

SHAPE = (10, 48, 40)
GRID = Grid(SHAPE, np.diag([6.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]])
SPOTS = tuple(np.s_[k, 10 + 4 * k : 13 + 4 * k, 12:16] for k in range(1, 8))
STRAY = np.s_[0, 40:42, 20:22]


def mask(boxes):
    data = np.zeros(SHAPE, dtype=np.uint8)
    for box in boxes:
        data[box] = 1
    return Volume(data, GRID)


def result(
    number,
    *,
    truth=SPOTS,
    found=SPOTS,
    patient=None,
    held_out=True,
    confidence=0.8,
    fold="fold_0",
    ceiling=None,
):
    """A scan; `truth` None is a scan without an expert's mask; `ceiling`, what could be found at best."""
    data = np.zeros(SHAPE, dtype=np.float32)
    data[:, 4:-4, 4:-4] = 100 + number
    for box in (*(truth or ()), *found):
        data[box] = 200
    probability = Volume(mask(found).data.astype(np.float32) * 0.9, GRID)
    lesions = find_lesions(probability, threshold=0.5, min_volume_mm3=0)
    known = tuple(replace(one, confidence=confidence) for one in lesions.lesions)
    return CaseResult(
        case=f"case{number:02}",
        patient=patient or f"patient{number:02}",
        fold=fold,
        image=Volume(data, GRID),
        truth=None if truth is None else mask(truth),
        lesions=LesionMap(lesions.labels, GRID, known),
        probability=probability,
        held_out=held_out,
        ceiling=None if ceiling is None else find_lesions(mask(ceiling), threshold=1, min_volume_mm3=0),
    )


def about(bundle="node 1.0.0", **changes):
    facts = {
        "bundle": bundle,
        "bundle_sha256": "ab" * 32,
        "mode": "held-out",
        "preset": "standard",
        "data": "somewhere",
        "command": "msnode model evaluate",
        "min_volume_mm3": 5.0,
        "threshold": 0.5,
        "repeats": 200,
    }
    return About(**(facts | changes))


def six(missed=1, **changes):
    """Six patients; each more of whose lesions is missed, and one stray lesion in each second."""
    return [
        result(n, found=(*SPOTS[(n % 3) * missed :], *([STRAY] if n % 2 else [])), **changes)
        for n in range(6)
    ]
