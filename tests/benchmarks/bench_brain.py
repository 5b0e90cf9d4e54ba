"""Methods of brain extraction on scans with expert brain masks, and what each does to the lesions' Dice.

Needs the shared data folder. A network only ever reads a scan with the folds that did not see its patient in
training; the classical methods have no training, but Gabor's constants were chosen with these scans in view.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.measured import Skipped
from msnode.domain.imaging import Volume
from msnode.errors import ConfigurationError, ModelError
from msnode.preprocess import recipes, steps
from msnode.preprocess.brain import Extractor
from msnode.preprocess.classical_brain import BRAIN_METHODS
from msnode.reading.networks import open_brain
from msnode.segment.bundle import BRAIN as BRAIN_BUNDLE
from msnode.segment.bundle import Bundle, builtin_folder, find_bundle, load_bundle
from msnode.segment.predict import Predictor
from msnode.settings import ModelSettings
from msnode.train.cases import BRAIN, LESIONS, Case, find_cases, longitudinal_brains, read_nifti
from msnode.train.reading import unseen_folds
from support.environment import data_root

LONGITUDINAL = ("patient04/study1", "patient09/study2")

_ONE_THREAD = partial(Predictor, device="cpu", threads=1)


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan in its own order and in axial order, with the expert's brain (axial)."""

    case: Case
    image: Volume
    axial: Volume
    brain: NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """What one method does: brain Dice and seconds of each scan, lesion Dice where an expert drew lesions."""

    dice: tuple[float, ...]
    seconds: tuple[float, ...]
    lesion_dice: tuple[float, ...]


ExtractorOf = Callable[[Case], Extractor]
"""The extractor that may read a case."""


def _dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def _scans(data: Path, work: Path) -> list[Scan]:
    cases = (
        *find_cases(data / "ms3seg", mask=BRAIN),
        *longitudinal_brains(data / "ljubljana" / "longitudinal", work, LONGITUDINAL),
    )
    scans = []
    for case in cases:
        image = read_nifti(case.image)
        scans.append(Scan(case, image, steps.to_axial(image), steps.to_axial(case.brain()).data > 0))
    return scans


def _learned(bundle: Bundle) -> ExtractorOf:
    """The bundle's own brain network, each case by folds that never saw its patient."""
    path = bundle.path / BRAIN_BUNDLE
    brain = load_bundle(path, recipes.names())
    opened = cache(lambda folds: open_brain(path, partial(_ONE_THREAD, folds=folds)))
    return lambda case: opened(unseen_folds(brain, case))


def _lesion_dice(scan: Scan, bundle: Bundle, predictor: Predictor, extract: Extractor) -> float:
    prepared = recipes.get(bundle.manifest.recipe).apply(scan.image, extract)
    probability = recipes.restore(predictor.predict(prepared).probability[-1], prepared).data
    truth = read_nifti(scan.case.folder / LESIONS).data > 0
    return _dice(probability >= bundle.manifest.threshold, truth)


def _measure(scans: Sequence[Scan], extractor_of: ExtractorOf, bundle: Bundle | None) -> Row:
    dice, seconds, lesions = [], [], []
    opened = cache(lambda folds: _ONE_THREAD(bundle, folds=folds))
    for scan in scans:
        extract = extractor_of(scan.case)
        begin = perf_counter()
        found = extract(scan.axial)
        seconds.append(perf_counter() - begin)
        dice.append(_dice(found.data > 0, scan.brain))
        if bundle is not None and scan.case.mask is not None:
            predictor = opened(unseen_folds(bundle, scan.case))
            lesions.append(_lesion_dice(scan, bundle, predictor, extract))
    return Row(tuple(dice), tuple(seconds), tuple(lesions))


def _builtin() -> tuple[Bundle | None, str]:
    """The built-in bundle where it strips skulls, or why there is none."""
    try:
        bundle = load_bundle(find_bundle(ModelSettings().bundle, [builtin_folder()]), recipes.names())
    except ModelError as error:
        return None, str(error)
    if not bundle.manifest.strips_skull:
        return None, f"{bundle.manifest.name} {bundle.manifest.version} strips no skull"
    return bundle, ""


def run() -> str:
    """All methods; a Markdown table.

    Raises:
        Skipped: the shared data is absent.
    """
    data = data_root()
    if not data.exists():
        raise Skipped(f"no shared data at {data}; set MSNODE_DATA")
    bundle, absent = _builtin()
    methods: dict[str, ExtractorOf] = {} if bundle is None else {"learned": _learned(bundle)}
    methods |= {name: lambda _, extract=extract: extract for name, extract in BRAIN_METHODS.items()}
    rows: dict[str, Row | str] = {} if bundle else {"learned": f"not measured: {absent}"}
    with tempfile.TemporaryDirectory() as work:
        scans = _scans(data, Path(work))
        for name, extractor_of in methods.items():
            try:
                rows[name] = _measure(scans, extractor_of, bundle)
            except ConfigurationError as error:
                rows[name] = f"not measured: {error}"
    return _table(rows, [scan.case.name for scan in scans])


def _table(rows: dict[str, Row | str], names: Sequence[str]) -> str:
    about = (
        f"{len(names)} scans with brain masks ({', '.join(names)}), one thread; a network reads only "
        "patients it never saw. Mean, lowest to highest; seconds: median. Lesion Dice: the built-in bundle "
        "behind that method."
    )
    lines = [
        about, "",
        "| method | brain Dice | seconds a scan | lesion Dice |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    for name, row in rows.items():
        if isinstance(row, str):
            lines.append(f"| {name} | {row} | | |")
            continue
        lesion = _middle(row.lesion_dice) if row.lesion_dice else "-"
        lines.append(f"| {name} | {_middle(row.dice)} | {statistics.median(row.seconds):.2f} | {lesion} |")
    return "\n".join(lines)


def _middle(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
