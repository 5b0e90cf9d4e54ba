"""CPU seconds to write the result objects of a reading as complete files in memory, by kind of object.

With MSNODE_FORMER=FOLDER, the checkout of another version, both versions are measured in the same run.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from msnode.domain.provenance import Output
    from support.readings import Read

_ROOT = Path(__file__).resolve().parents[2]
_RUNS = 5
_SIDE = 256
_Write = Callable[[], Iterable["Output"]]
_Figures = Mapping[str, tuple[float, float]]
"""Row → median seconds, megabytes."""


@dataclass(frozen=True)
class Case:
    """A reading: its number of slices, their distance in mm, its number of lesions."""

    slices: int
    distance_mm: float
    lesions: int

    @property
    def name(self) -> str:
        return f"{self.slices} slices, {self.lesions} lesions"


_CASES = (Case(20, 6.0, 30), Case(192, 1.0, 300))
_TOGETHER, _USUAL = "SEG and SR", "all that every reading makes"
_LIMITS_S = {_TOGETHER: (0.4, 4.0), _USUAL: (1.0, 6.0)}


def run() -> str:
    """A Markdown table: median seconds and size, with the other version's seconds where there is one."""
    found = {"": _figures_of(_ROOT)}
    if former := os.environ.get("MSNODE_FORMER"):
        found[", former"] = _figures_of(Path(former))
    columns = [(case, version) for case in range(len(_CASES)) for version in found]
    lines = [
        (
            f"Slices of {_SIDE} x {_SIDE}; from the lesion map to the bytes of the files. CPU seconds, the "
            f"median of {_RUNS} in one process that has written each once before, and MB."
        ),
        "",
        "| objects | " + " | ".join(_CASES[case].name + version for case, version in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row in found[""][0]:
        cells = ["{:.2f} s, {:.1f} MB".format(*found[version][case][row]) for case, version in columns]
        lines.append(f"| {row} | {' | '.join(cells)} |")
        if row in _LIMITS_S:
            limits = [f"{_LIMITS_S[row][case]} s" for case, _ in columns]
            lines.append(f"| limit | {' | '.join(limits)} |")
    return "\n".join(lines)


def _figures_of(checkout: Path) -> list[_Figures]:
    """The figures of each case, measured in a process of its own with the code of `checkout`."""
    path = os.pathsep.join(str(checkout / folder) for folder in ("src", "tests"))
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[_Figures] = json.loads(done.stdout)
    return found


def _measure(case: Case) -> _Figures:
    from support.dicom_files import flair_series  # noqa: PLC0415 - of the checkout that is measured
    from support.readings import read  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="encode-") as folder:
        paths = flair_series(
            Path(folder), slices=case.slices, rows=_SIDE, columns=_SIDE,
            spacing=(case.distance_mm, 0.9, 0.9),
        )  # fmt: skip
        reading = read(paths, case.lesions, confidences=[0.7] * case.lesions)
        return {name: _time(write) for name, write in _rows(reading).items()}


def _rows(reading: "Read") -> Mapping[str, _Write]:
    """What is measured, by functions that versions since 0.4.0 have in common."""
    from msnode import encode  # noqa: PLC0415 - of the checkout that is measured
    from msnode.encode.kinds import KIND_NUMBERS  # noqa: PLC0415
    from support.readings import MARK_BELOW, provenance  # noqa: PLC0415

    source, lesion_map, findings = reading.source, reading.lesion_map, reading.findings
    made_by = provenance()
    shared = {"mark_below": MARK_BELOW, "identity": encode.ResultIdentity.of_reading(source, made_by)}
    write_seg = partial(encode.encode_seg, source, lesion_map, findings, made_by, **shared)
    write_sr = partial(encode.encode_sr, source, findings, made_by, **shared)
    half = (source.volume.data > np.median(source.volume.data)).astype(np.uint8)
    seg = write_seg()

    def together() -> Iterable["Output"]:
        written = write_seg()
        return written, write_sr(written)

    def everything(kinds: Iterable[str]) -> Iterable["Output"]:
        rules = encode.ResultRules(frozenset(kinds), mark_below=MARK_BELOW)
        return encode.encode_results(source, lesion_map, findings, made_by, rules, probability=half)

    return {
        "SEG, a segment for each lesion": lambda: [write_seg()],
        "SEG, one segment": lambda: [write_seg(form="single")],
        "SEG, label map": lambda: [write_seg(form="labelmap")],
        "probability of half of all voxels": lambda: [
            encode.encode_probability(source, half, made_by, identity=shared["identity"])
        ],
        "SR, Comprehensive 3D": lambda: [write_sr(seg)],
        "SR, Comprehensive": lambda: [write_sr(seg, kind="sr-comprehensive")],
        "overlay": lambda: encode.encode_overlay(source, lesion_map, made_by, findings, **shared),
        _TOGETHER: together,
        _USUAL: lambda: everything(encode.ResultRules().kinds),
        "every kind of object": lambda: everything(KIND_NUMBERS),
    }


def _time(write: _Write) -> tuple[float, float]:
    """Median seconds, and megabytes."""
    from msnode.encode import to_bytes  # noqa: PLC0415 - of the checkout that is measured

    seconds, size = [], 0
    for _ in range(_RUNS + 1):
        begin = process_time()
        size = sum(len(to_bytes(output)) for output in write())
        seconds.append(process_time() - begin)
    return statistics.median(seconds[1:]), size / 1e6


if __name__ == "__main__":
    json.dump([_measure(case) for case in _CASES], sys.stdout)
