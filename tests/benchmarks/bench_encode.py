"""Seconds to write the result objects of a reading as complete files in memory, by kind of object."""

import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from msnode.domain.provenance import Output
from msnode.encode import (
    ResultIdentity,
    ResultRules,
    encode_overlay,
    encode_pdf,
    encode_probability,
    encode_results,
    encode_seg,
    encode_sr,
    encode_summary,
    to_bytes,
)
from support.dicom_files import flair_series
from support.readings import MARK_BELOW, Read, provenance, read

_RUNS = 5
_SIDE = 256
_Write = Callable[[], Iterable[Output]]


@dataclass(frozen=True)
class Case:
    """A reading: its slices, their distance in mm, its lesions; and the seconds that it may take to write."""

    slices: int
    distance_mm: float
    lesions: int
    limit_s: float

    @property
    def name(self) -> str:
        return f"{self.slices} slices, {self.lesions} lesions"


_CASES = (Case(20, 6.0, 30, 1.0), Case(192, 1.0, 300, 5.0))


def run() -> str:
    """A Markdown table: median seconds, and size."""
    found = {case: _measure(case) for case in _CASES}
    lines = [
        (
            f"Slices of {_SIDE} x {_SIDE}; from the lesion map to the bytes of the files; median of {_RUNS} "
            f"in one process, which has written each once before, seconds and MB."
        ),
        "",
        "| objects | " + " | ".join(case.name for case in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    for row in found[_CASES[0]]:
        cells = " | ".join("{:.2f} s, {:.1f} MB".format(*each[row]) for each in found.values())
        lines.append(f"| {row} | {cells} |")
    lines.append("| limit | " + " | ".join(f"{case.limit_s:.0f} s" for case in found) + " |")
    return "\n".join(lines)


def _measure(case: Case) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory(prefix="encode-") as folder:
        paths = flair_series(
            Path(folder), slices=case.slices, rows=_SIDE, columns=_SIDE,
            spacing=(case.distance_mm, 0.9, 0.9),
        )  # fmt: skip
        reading = read(paths, case.lesions, confidences=[0.7] * case.lesions)
        return {name: _time(write) for name, write in _rows(reading).items()}


def _rows(reading: Read) -> dict[str, _Write]:
    """The kinds beyond the usual ones first, so that the last line but the limit is the sum that counts."""
    source, lesion_map, findings = reading.source, reading.lesion_map, reading.findings
    made_by = provenance()
    shared = {"mark_below": MARK_BELOW, "identity": ResultIdentity.of_reading(source, made_by)}
    write_seg = partial(encode_seg, source, lesion_map, findings, made_by, **shared)
    write_sr = partial(encode_sr, source, findings, made_by, write_seg(), **shared)
    half = (source.volume.data > np.median(source.volume.data)).astype(np.uint8)
    return {
        "SEG, one segment": lambda: [write_seg(form="single")],
        "SEG, label map": lambda: [write_seg(form="labelmap")],
        "probability of half of all voxels": lambda: [
            encode_probability(source, half, made_by, identity=shared["identity"])
        ],
        "SR, Comprehensive": lambda: [write_sr(kind="sr-comprehensive")],
        "PDF": lambda: [encode_pdf(source, lesion_map, findings, **shared)],
        "SEG, a segment a lesion": lambda: [write_seg()],
        "SR, Comprehensive 3D": lambda: [write_sr()],
        "overlay": lambda: encode_overlay(source, lesion_map, made_by, findings, **shared),
        "summary": lambda: [encode_summary(source, lesion_map, findings, made_by, **shared)],
        "all that every reading makes": lambda: encode_results(
            source, lesion_map, findings, made_by, ResultRules(mark_below=MARK_BELOW)
        ),
    }


def _time(write: _Write) -> tuple[float, float]:
    """Median seconds, and megabytes."""
    seconds, size = [], 0
    for _ in range(_RUNS + 1):
        begin = perf_counter()
        size = sum(len(to_bytes(output)) for output in write())
        seconds.append(perf_counter() - begin)
    return statistics.median(seconds[1:]), size / 1e6
