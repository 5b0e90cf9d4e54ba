"""Readings for tests: a source volume, lesions planted on its grid, and what made them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from msnode.domain.findings import Findings, LesionMap
from msnode.domain.imaging import Series, SourceVolume, Volume
from msnode.domain.provenance import ModelIdentity, Output, Provenance
from msnode.encode import ResultRules, encode_results
from msnode.measure.burden import measure
from msnode.measure.lesions import find_lesions
from msnode.series.volume import group_series, read_instance, to_volume

MODEL = ModelIdentity(name="flair-unet", version="1.2.3", sha256="ab" * 32)
MARK_BELOW = 0.5


def provenance(**changes: object) -> Provenance:
    values: dict[str, object] = {
        "started_at": datetime(2024, 1, 3, 4, 5, 6, 789, tzinfo=UTC),
        "revision": 0,
        "model": MODEL,
        "msnode_version": "0.1.0",
        "runtime": "openvino-cpu-f32",
        "settings_digest": "cd" * 32,
    }
    return Provenance(**(values | changes))  # type: ignore[arg-type]  # names are checked by the dataclass


def series_of(paths: Sequence[Path]) -> Series:
    (series,) = group_series([read_instance(path) for path in paths])
    return series


def planted(source: SourceVolume, count: int) -> LesionMap:
    """`count` boxes of many sizes at reproducible places of the grid, none touching another."""
    shape = source.volume.grid.shape
    probability = np.zeros(shape, dtype=np.float32)
    free = np.ones(shape, dtype=bool)
    rng = np.random.default_rng(3)
    placed = 0
    while placed < count:
        size = (int(rng.integers(1, 3)), int(rng.integers(1, 7)), int(rng.integers(1, 7)))
        if any(n <= s for n, s in zip(shape, size, strict=True)):
            continue
        start = [int(rng.integers(0, n - s)) for n, s in zip(shape, size, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))
        around = tuple(slice(max(a - 1, 0), a + s + 1) for a, s in zip(start, size, strict=True))
        if free[around].all():
            probability[box], free[box], placed = 0.9, False, placed + 1
    return find_lesions(Volume(probability, source.volume.grid), threshold=0.5, min_volume_mm3=0)


@dataclass(frozen=True, eq=False)
class Read:
    source: SourceVolume
    lesion_map: LesionMap
    findings: Findings

    def outputs(
        self, made_by: Provenance | None = None, rules: ResultRules | None = None
    ) -> tuple[Output, ...]:
        rules = rules or ResultRules(mark_below=MARK_BELOW)
        return encode_results(self.source, self.lesion_map, self.findings, made_by or provenance(), rules)


def read(paths: Sequence[Path], lesions: int = 3, confidences: Sequence[float | None] = ()) -> Read:
    """A reading with planted lesions, the first of which have the given confidences, the others none."""
    source = to_volume(series_of(paths))
    lesion_map = planted(source, lesions)
    given = [*confidences, *[None] * (len(lesion_map.lesions) - len(confidences))]
    rated = tuple(replace(x, confidence=c) for x, c in zip(lesion_map.lesions, given, strict=True))
    lesion_map = replace(lesion_map, lesions=rated)
    findings = measure(
        lesion_map,
        patient_key=("", "PAT001"),
        series_instance_uid=source.series.series_instance_uid,
        bundle_sha256=MODEL.sha256,
    )
    return Read(source, lesion_map, findings)
