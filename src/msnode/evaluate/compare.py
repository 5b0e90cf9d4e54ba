"""Two bundles on the same scans, side by side: what differs, and whether chance explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msnode.evaluate.evaluation import JSON_FORMAT, found_by_size, to_plain
from msnode.evaluate.intervals import Estimate, add_sums, divide, estimate
from msnode.evaluate.lesionwise import SIZE_EDGES_MM3
from msnode.evaluate.metrics import LESION_FIGURES, VOXEL_FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from msnode.evaluate.cases import CaseEvaluation
    from msnode.evaluate.evaluation import About, Evaluation
    from msnode.evaluate.intervals import Floats

LOWER_IS_BETTER = frozenset({"hd95_mm", "asd_mm", "false_positives", "volume_error_ml"})


@dataclass(frozen=True)
class Difference:
    """One figure of both bundles, over the scans where both define it.

    Attributes:
        a: of the first bundle.
        b: of the second.
        difference: b - a; its interval is paired, since both are drawn with the same patients.
        scans: number of scans, or of the expert's lesions for a sensitivity by size.
    """

    a: Estimate
    b: Estimate
    difference: Estimate
    scans: int

    @property
    def certain(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and (low > 0 or high < 0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two evaluations of the same scans.

    Attributes:
        a: of the first bundle.
        b: of the second.
        figures: figure → difference; the figures of `metrics` and `volume_error_ml`, the mean absolute
            difference of volume, ml.
        by_size: difference of the sensitivity in each size bin.
    """

    a: Evaluation
    b: Evaluation
    figures: Mapping[str, Difference]
    by_size: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON types."""
        document = {
            "format": JSON_FORMAT,
            "figures": self.figures,
            "lesion_sensitivity_by_size": self.by_size,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
        }
        plain: dict[str, Any] = to_plain(document)
        return plain


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """Compare two evaluations.

    Raises:
        ValueError: they hold different scans or patients, or no scan has an expert's mask.
    """
    scans = [{case.case: case.patient for case in one.scored} for one in (a, b)]
    if scans[0] != scans[1]:
        raise ValueError("the two evaluations hold different scans")
    if not scans[0]:
        raise ValueError("no scan has an expert's mask: there is nothing to compare")
    names = (*VOXEL_FIGURES, *LESION_FIGURES, "volume_error_ml")
    pairs = list(zip(a.scored, b.scored, strict=True))
    return Comparison(
        a=a,
        b=b,
        figures={name: _means(pairs, name, a.about) for name in names},
        by_size=tuple(_sensitivity(pairs, k, a.about) for k in range(len(SIZE_EDGES_MM3) - 1)),
    )


def figure_of(case: CaseEvaluation, name: str) -> float | None:
    """A figure of one scored scan by its name."""
    if case.scores is None:
        return None
    if name == "volume_error_ml":
        return abs(case.scores.predicted_ml - case.scores.truth_ml)
    value: float | None = getattr(case.scores, name)
    return value


def _means(pairs: Sequence[tuple[CaseEvaluation, CaseEvaluation]], name: str, about: About) -> Difference:
    rows = []
    for left, right in pairs:
        x, y = figure_of(left, name), figure_of(right, name)
        rows.append((left.patient, (x, 1.0, y, 1.0) if x is not None and y is not None else (0.0,) * 4))
    return _difference(rows, about)


def _sensitivity(pairs: Sequence[tuple[CaseEvaluation, CaseEvaluation]], k: int, about: About) -> Difference:
    rows = []
    for left, right in pairs:
        found_a, count = found_by_size(left, k)
        found_b, _ = found_by_size(right, k)
        rows.append((left.patient, (float(found_a), float(count), float(found_b), float(count))))
    return _difference(rows, about)


def _difference(rows: Iterable[tuple[str, Sequence[float]]], about: About) -> Difference:
    """From (patient, (sum of a, count, sum of b, count))."""
    sums = add_sums(rows)

    def figure(of: slice) -> Estimate:
        def statistic(totals: Floats) -> Floats:
            part, whole = totals[:, of].T
            return divide(part, whole)

        return estimate(sums, statistic, seed=about.seed, repeats=about.repeats)

    def change(totals: Floats) -> Floats:
        return divide(totals[:, 2] - totals[:, 0], totals[:, 1])

    return Difference(
        a=figure(slice(0, 2)),
        b=figure(slice(2, 4)),
        difference=estimate(sums, change, seed=about.seed, repeats=about.repeats),
        scans=int(sum(row[1] for row in sums.values())),
    )
