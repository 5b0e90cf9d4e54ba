"""Studies with mangled headers are read or refused, and their outcome is written; nothing else may happen."""

import argparse
import collections
import random
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from msnode.encode import ResultRules, to_bytes
from msnode.encode.kinds import KIND_NUMBERS
from msnode.errors import NotReadable
from msnode.reading.outcome import ReadingRules
from msnode.reading.pipeline import read_study
from msnode.reading.segment_volume import LesionRules
from msnode.segment.bundle import Scope
from msnode.series.select import SelectionRules
from msnode.series.volume import group_series, read_instance
from soak.counting import say
from support.dicom_files import enhanced_flair, flair_series
from support.networks import FakeNetwork
from support.readings import provenance

_RULES = ReadingRules(
    SelectionRules(),
    Scope(plane="axial", slice_distance_mm=(2, 9), field_strength_t=(1.5,), manufacturers=("PHILIPS",)),
    LesionRules("flair2d-head-v1", threshold=0.5, min_volume_mm3=3),
    results=ResultRules(kinds=frozenset(KIND_NUMBERS) - {"ko"}),
)
_REPRESENTATIONS = ["DS", "IS", "FD", "US", "CS", "LO", "UI", "SQ", "OB", "AT", "DA", "TM", "UN", "FL", "PN"]
_VALUES = (
    b"", b"abc", b"\\\\\\", b"nan", b"inf\\nan", b"1e400", b"\xff" * 8, b"1" * 50, b"\0\0", b"1\\2", b"-1",
    b"0\\0\\0\\0\\0\\0", b"1e-300\\1\\1", b"\x1b$B",
)  # fmt: skip
_KEPT = {
    Tag(k) for k in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PixelData")
}
_DEEPEST = 3


def add_command(commands: Any) -> None:
    """`headers` and its options."""
    parser = commands.add_parser("headers", help=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    chance = random.Random(options.seed)  # noqa: S311 - chance, not a secret
    outcomes: collections.Counter[str] = collections.Counter()
    crashes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        sources = (
            flair_series(folder / "classic", slices=12, rows=48, columns=48),
            [enhanced_flair(folder / "enhanced.dcm", slices=12)],
        )
        for _ in range(options.studies):
            try:
                outcomes[_read(_mangled(chance.choice(sources), folder, chance))] += 1
            except Exception as error:  # noqa: BLE001 - what a mangled header raises is the question
                frames = traceback.extract_tb(error.__traceback__)
                places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "/msnode/" in f.filename]
                crashes[f"{type(error).__name__} at {' > '.join(places)}"] += 1
    say(", ".join(f"{what} {n}" for what, n in sorted(outcomes.items())))
    say("\n".join(f"{what}: {n}" for what, n in crashes.most_common()) or "nothing but readings and refusals")
    return 1 if crashes else 0


def _read(paths: Sequence[Path]) -> str:
    instances = []
    for path in paths:
        try:
            instances.append(read_instance(path))
        except NotReadable:
            continue
    if not instances:
        return "not readable"
    study = group_series(instances)
    reading = read_study(study, _RULES, provenance(), FakeNetwork, asked_for=True)
    for output in reading.outputs:
        to_bytes(output)
    return reading.status


def _mangled(source: Sequence[Path], folder: Path, chance: random.Random) -> list[Path]:
    """The files again, the first of them and some others with other bytes in some elements."""
    written = []
    for number, path in enumerate(source):
        ds, to = dcmread(path), folder / f"{number}.dcm"
        try:
            if number == 0 or chance.random() < 0.2:
                _mangle(ds, chance)
            dcmwrite(to, ds)
        except Exception:  # noqa: BLE001 - the library does not write everything that scanners do
            to = path
        written.append(to)
    return written


def _mangle(ds: Dataset, chance: random.Random, depth: int = 0) -> None:
    for tag in [t for t in ds.keys() if t not in _KEPT and t.group != 2]:  # noqa: SIM118 - file meta
        element = ds.get_item(tag)
        if chance.random() < 0.06:
            vr = chance.choice([str(element.VR), *_REPRESENTATIONS])
            value = chance.choice(_VALUES)
            ds[tag] = RawDataElement(
                tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True
            )
        elif element.VR == "SQ" and depth < _DEEPEST:
            for item in ds[tag].value[:2]:
                _mangle(item, chance, depth + 1)
