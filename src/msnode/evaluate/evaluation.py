"""All scans of an evaluation together: figures with intervals, ready for JSON and for the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from msnode.evaluate.calibration import Reliability, reliability
from msnode.evaluate.cases import evaluate_case
from msnode.evaluate.intervals import REPEATS, Estimate, estimate, mean_sums, ratio
from msnode.evaluate.lesionwise import SIZE_EDGES_MM3
from msnode.evaluate.metrics import LESION_FIGURES, VOXEL_FIGURES
from msnode.evaluate.slices import SliceLevel, slice_level
from msnode.evaluate.volume import VolumeAgreement, volume_agreement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from msnode.evaluate.cases import CaseEvaluation, CaseResult

Mode = Literal["held-out", "ensemble"]

JSON_FORMAT = 2
THICK_MM = 2.5
"""Slices from here on are prepared as they are, thinner ones as slabs: their ceilings differ."""

_DIGITS = 6


@dataclass(frozen=True)
class About:
    """What was evaluated and how.

    Attributes:
        bundle: name and version.
        bundle_sha256: of its manifest.
        mode: "held-out" (each scan by the folds that did not see its patient) or "ensemble" (all folds).
        preset: folds and mirror images used: "fast", "standard" or "best".
        data: name of the data set.
        command: what the operator typed.
        min_volume_mm3: smallest predicted lesion that counts; of the expert's every one does.
        threshold: smallest lesion probability that counts.
        loss: fold → "train" and "validation" → one loss an epoch, as the bundle's manifest records it.
        seed: of every draw.
        repeats: of the bootstrap.
    """

    bundle: str
    bundle_sha256: str
    mode: Mode
    preset: str
    data: str
    command: str
    min_volume_mm3: float
    threshold: float
    loss: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    seed: int = 0
    repeats: int = REPEATS


@dataclass(frozen=True)
class SizeBin:
    """Expert's lesions from `low_mm3` to below `high_mm3` (None: no upper end), over all scans.

    Attributes:
        found: how many share a voxel with the prediction.
        count: how many there are.
        sensitivity: found / count.
    """

    low_mm3: float
    high_mm3: float | None
    found: int
    count: int
    sensitivity: Estimate


@dataclass(frozen=True)
class Ceiling:
    """Best figures that preparation, way back, threshold and smallest volume leave possible.

    Attributes:
        thick: for slices of `THICK_MM` and more; else for thinner ones.
        scans: how many.
        dice, lesion_f1, large_f1: mean over the scans, of a faultless network (see `CaseResult.ceiling`).
    """

    thick: bool
    scans: int
    dice: Estimate
    lesion_f1: Estimate
    large_f1: Estimate


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a bundle does on some scans.

    Attributes:
        about: what was evaluated and how.
        cases: every scan, by name.
        voxel: figure (`metrics.VOXEL_FIGURES`) → mean over the scans where it is defined.
        lesion: the same for `metrics.LESION_FIGURES`; false_positives is a mean count a scan.
        by_size: sensitivity for the expert's lesions of each size.
        slices: slice level; None without any expert's mask, as are the next two.
        volume: volume agreement.
        calibration: of the lesions' confidences; None also where the bundle is not calibrated.
        ceilings: thin slices and thick ones, as far as there are.
    """

    about: About
    cases: tuple[CaseEvaluation, ...]
    voxel: Mapping[str, Estimate]
    lesion: Mapping[str, Estimate]
    by_size: tuple[SizeBin, ...]
    slices: SliceLevel | None
    volume: VolumeAgreement | None
    calibration: Reliability | None
    ceilings: tuple[Ceiling, ...]

    @property
    def scored(self) -> tuple[CaseEvaluation, ...]:
        """The scans with an expert's mask."""
        return tuple(case for case in self.cases if case.scores is not None)

    @property
    def seen_in_training(self) -> tuple[str, ...]:
        """Names of the scored scans whose patient the networks had seen: their figures prove nothing."""
        return tuple(case.case for case in self.scored if not case.held_out)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON types; numbers have 6 decimals."""
        document = {
            "format": JSON_FORMAT,
            "about": asdict(self.about),
            "seen_in_training": self.seen_in_training,
            "voxel_level": self.voxel,
            "lesion_level": self.lesion,
            "lesion_sensitivity_by_size": self.by_size,
            "slice_level": self.slices,
            "volume": self.volume,
            "calibration": self.calibration,
            "ceilings": self.ceilings,
            "cases": {case.case: _case(case) for case in self.cases},
        }
        plain: dict[str, Any] = to_plain(document)
        return plain


def evaluate_cases(results: Iterable[CaseResult], about: About) -> Evaluation:
    """Score scans one by one (no volume is kept) and sum them up.

    Args:
        results: the scans; at least one.
        about: what is evaluated and how.

    Raises:
        ValueError: there is no scan, two have one name, or the grids of one differ.
    """
    cases = sorted(
        (evaluate_case(result) for result in results),
        key=lambda case: case.case,
    )
    if not cases:
        raise ValueError("there is no scan to evaluate")
    if len({case.case for case in cases}) < len(cases):
        raise ValueError("two scans have one name")
    scored = [case for case in cases if case.scores is not None]
    draw = {"seed": about.seed, "repeats": about.repeats}
    lesions = [
        (case.patient, lesion.confidence, lesion.matched())
        for case in scored
        if case.match
        for lesion in case.match.predicted
        if lesion.confidence is not None
    ]
    volumes = [
        (case.patient, case.scores.truth_ml, case.scores.predicted_ml) for case in scored if case.scores
    ]
    slices = [(case.case, case.patient, case.slices) for case in scored if case.slices is not None]
    return Evaluation(
        about=about,
        cases=tuple(cases),
        voxel={name: _mean(scored, name, about) for name in VOXEL_FIGURES},
        lesion={name: _mean(scored, name, about) for name in LESION_FIGURES},
        by_size=_by_size(scored, about),
        slices=slice_level(slices, **draw) if slices else None,
        volume=volume_agreement(volumes, **draw) if volumes else None,
        calibration=reliability(lesions, **draw) if lesions else None,
        ceilings=_ceilings(scored, about),
    )


def to_plain(value: Any) -> Any:
    """JSON types; tuples become lists, floats get 6 decimals, dataclasses become objects."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if hasattr(value, "__dataclass_fields__"):
        return {name: to_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(one) for one in value]
    return value


def found_by_size(case: CaseEvaluation, k: int) -> tuple[int, int]:
    """(found, all) of the expert's lesions of a scan in size bin `k`; (0, 0) without an expert's mask."""
    return case.match.found_by_size()[k] if case.match else (0, 0)


def _mean(scored: Sequence[CaseEvaluation], name: str, about: About) -> Estimate:
    sums = mean_sums((case.patient, getattr(case.scores, name)) for case in scored)
    return estimate(sums, ratio, seed=about.seed, repeats=about.repeats)


def _ceilings(scored: Sequence[CaseEvaluation], about: About) -> tuple[Ceiling, ...]:
    found = []
    for thick in (False, True):
        group = [c for c in scored if c.ceiling is not None and (c.thickest_mm >= THICK_MM) == thick]
        if group:
            means = (
                estimate(
                    mean_sums((case.patient, getattr(case.ceiling, name)) for case in group),
                    ratio,
                    seed=about.seed,
                    repeats=about.repeats,
                )
                for name in ("dice", "lesion_f1", "large_f1")
            )
            found.append(Ceiling(thick, len(group), *means))
    return tuple(found)


def _by_size(scored: Sequence[CaseEvaluation], about: About) -> tuple[SizeBin, ...]:
    bins = []
    for k in range(len(SIZE_EDGES_MM3) - 1):
        sums: dict[str, tuple[float, float]] = {}
        for case in scored:
            found, count = found_by_size(case, k)
            earlier = sums.get(case.patient, (0.0, 0.0))
            sums[case.patient] = (earlier[0] + found, earlier[1] + count)
        high = SIZE_EDGES_MM3[k + 1]
        bins.append(
            SizeBin(
                low_mm3=SIZE_EDGES_MM3[k],
                high_mm3=None if high == float("inf") else high,
                found=int(sum(f for f, _ in sums.values())),
                count=int(sum(n for _, n in sums.values())),
                sensitivity=estimate(sums, ratio, seed=about.seed, repeats=about.repeats),
            )
        )
    return tuple(bins)


def _case(case: CaseEvaluation) -> dict[str, Any]:
    return {
        "patient": case.patient,
        "fold": case.fold,
        "held_out": case.held_out,
        "lesion_count": case.lesion_count,
        "lesion_ml": case.lesion_ml,
        "scores": case.scores,
        "ceiling": case.ceiling,
        "lesions": case.match,
    }
