"""One run of the whole loop: sends a study to a node and checks the results in a PACS."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.misc import is_dicom
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from msnode.demo.found import Comparison, FoundLesion, compare, read_seg
from msnode.demo.node import send, start_node, wait_for_results
from msnode.demo.pacs import start_pacs
from msnode.demo.patient import write_series
from msnode.demo.phantom import Phantom, make_patient
from msnode.demo.picture import save_picture
from msnode.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from msnode.demo.pacs import Stored

PICTURE = "overlay.png"
_OBJECTS = "objects"
_DEADLINE_S = 600.0


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        job: as printed by `msnode jobs show --json`.
        pacs: name of the PACS.
        objects: files of the result objects, copied from the PACS.
        found: lesions in the SEG; empty without one.
        comparison: comparison with the planted lesions; None for a user's study.
        picture: the PNG; None if there is no overlay.
        seconds: duration of each step of the demo, in order.
    """

    job: dict[str, Any]
    pacs: str
    objects: tuple[Path, ...]
    found: tuple[FoundLesion, ...]
    comparison: Comparison | None
    picture: Path | None
    seconds: dict[str, float]


@dataclass
class _Watch:
    """Announces the steps and records their durations."""

    announce: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.announce(name)
        begin = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - begin


def run_demo(study: Path | None, out: Path, seed: int, announce: Callable[[str], None]) -> Outcome:
    """Run the demo; every process it starts has ended when it returns or raises.

    Args:
        study: a folder with the DICOM files of one study; None simulates a patient.
        out: folder for the picture, the result objects and the logs; created if missing. Results of
            earlier demos are replaced.
        seed: seed of the simulated patient.
        announce: called with the name of each step as it begins.

    Raises:
        ConfigurationError: `study` does not hold exactly one study, or the demo extra is not installed.
        Transient: a process could not be started or died, or the results did not arrive in time.
    """
    watch = _Watch(announce)
    with tempfile.TemporaryDirectory(prefix="msnode-demo-") as name:
        folder = Path(name)
        phantom: Phantom | None = None
        if study is None:
            with watch.step("simulating a patient"):
                phantom = make_patient(seed)
                paths = write_series(phantom, folder / "study")
        else:
            paths = _dicom_files(study)
        uid = _only_study(paths)
        _clear(out)
        job, pacs_name, stored = _loop(paths, uid, folder, out, watch)
        return _collect(job, pacs_name, stored, phantom=phantom, out=out, watch=watch)


def _loop(
    paths: Sequence[Path], study_instance_uid: str, folder: Path, out: Path, watch: _Watch
) -> tuple[dict[str, Any], str, tuple[Stored, ...]]:
    """Start PACS and node, send the study, wait for the results, and stop both."""
    with ExitStack() as stack:
        with watch.step("starting the PACS"):
            pacs = stack.enter_context(start_pacs(folder / "pacs"))
        with watch.step("starting the node"):
            node = stack.enter_context(start_node(folder / "node", out / "node.log", pacs))
        with watch.step(f"sending {len(paths)} images to the node"):
            send(node.address, paths, out / "sender.log")
        with watch.step(f"waiting for the results in {pacs.name}"):
            job, stored = wait_for_results(node, pacs, study_instance_uid, deadline_s=_DEADLINE_S)
        return job, pacs.name, stored


def _collect(
    job: dict[str, Any],
    pacs: str,
    stored: tuple[Stored, ...],
    *,
    phantom: Phantom | None,
    out: Path,
    watch: _Watch,
) -> Outcome:
    """Keep the objects, measure the SEG, draw the picture."""
    with watch.step("checking the results"):
        objects = {s: Path(shutil.copy(s.path, out / _OBJECTS / f"{s.sop_instance_uid}.dcm")) for s in stored}
        of_class = {
            uid: [path for s, path in objects.items() if s.sop_class_uid == uid]
            for uid in (SegmentationStorage, SecondaryCaptureImageStorage)
        }
        found = tuple(lesion for path in of_class[SegmentationStorage] for lesion in read_seg(path))
        picture = None
        captures = of_class[SecondaryCaptureImageStorage]
        # the summary page is also a Secondary Capture, but not a slice
        if overlay := [p for p in captures if "ImagePositionPatient" in dcmread(p, stop_before_pixels=True)]:
            picture = out / PICTURE
            save_picture(overlay, [level for lesion in found for level in lesion.levels], picture)
    comparison = compare(phantom, found) if phantom else None
    return Outcome(job, pacs, tuple(objects.values()), found, comparison, picture, watch.seconds)


def _dicom_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and is_dicom(path))


def _only_study(paths: Sequence[Path]) -> str:
    """Study Instance UID of the files.

    Raises:
        ConfigurationError: there is none, or more than one.
    """
    tags = ["StudyInstanceUID"]
    uids = {str(dcmread(p, specific_tags=tags, stop_before_pixels=True).get(tags[0], "")) for p in paths}
    uids.discard("")
    if len(uids) != 1:
        raise ConfigurationError(f"--study needs the DICOM files of one study; there are {len(uids)}")
    return uids.pop()


def _clear(out: Path) -> None:
    """Delete the results of an earlier demo."""
    shutil.rmtree(out / _OBJECTS, ignore_errors=True)
    (out / PICTURE).unlink(missing_ok=True)
    (out / _OBJECTS).mkdir(parents=True)
