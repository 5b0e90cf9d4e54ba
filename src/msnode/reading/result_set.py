"""A reading as files: the objects, and `result.json` that says what they are.

The same files make up a result set in the store and the output folder of `msnode study segment`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from msnode.domain.findings import Lesion, LesionMap
from msnode.domain.imaging import Grid
from msnode.encode import to_bytes
from msnode.measure.lesions import is_uncertain, longest_axial_mm
from msnode.reading.outcome import Former, Found, selection_digest
from msnode.reading.summary import ReadingStatus
from msnode.segment.scope import REFUSAL, ScopeVerdict
from msnode.store import check_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from msnode.domain.findings import Findings
    from msnode.domain.provenance import Output
    from msnode.reading.outcome import Reading

RESULT_FILE = "result.json"
LESION_MAP_FILE = "lesion_map.npz"
"""`labels` and `affine` of the lesion map, and in `lesions` every attribute of its lesions, exactly."""
PROBABILITY_FILE = "probability.npz"
"""`probability` as in `outcome.Found`; only in sets that hold it as an object too."""
_LESION = np.dtype([
    ("label", np.int64),
    ("voxel_count", np.int64),
    ("volume_mm3", np.float64),
    ("centroid_lps_mm", np.float64, 3),
    ("longest_axial_mm", np.float64),
    ("mean_probability", np.float64),
    ("spread", np.float64),
    ("confidence", np.float64),
])  # fmt: skip
_SEVERAL = {"overlay", "ko"}
"""Kinds of which a set may hold more than one object."""


def write_result_set(reading: Reading, folder: Path) -> dict[str, Any]:
    """Write every object of `reading`, the lesion map and `result.json` into `folder`.

    Returns:
        What `result.json` holds: status, reason, series, scope verdict, brain volume in ml, lesions (volumes
        in mm3, centroids in LPS mm, confidence 0-1 or null), outputs and arrays with the SHA-256 of each
        file, model, digests of image and identity, timings in seconds.
    """
    counts: dict[str, int] = {}
    outputs = []
    for output in reading.outputs:
        counts[output.kind] = counts.get(output.kind, 0) + 1
        outputs.append(_write_object(output, counts[output.kind], folder))
    arrays = []
    if reading.lesion_map is not None:
        arrays.append(folder / LESION_MAP_FILE)
        _write_lesion_map(reading.lesion_map, arrays[-1])
    if reading.probability is not None:
        arrays.append(folder / PROBABILITY_FILE)
        np.savez_compressed(arrays[-1], probability=reading.probability)
    result = describe(reading, outputs)
    result["arrays"] = {path.name: sha256_of(path) for path in arrays}
    result["files"] = sorted([*(path.name for path in folder.iterdir()), RESULT_FILE])
    _write_result(result, folder)
    return result


def write_refusal(reason: str, folder: Path) -> dict[str, Any]:
    """Write the `result.json` of files that hold not even a study to report on; returns its content."""
    result: dict[str, Any] = {
        "status": ReadingStatus.REJECTED, "reason": reason, "series_instance_uid": None, "lesion_count": None,
        "lesion_volume_mm3": None, "brain_volume_ml": None, "scope": None, "lesions": [], "outputs": [],
        "model": None, "timings_s": {}, "files": [RESULT_FILE],
    }  # fmt: skip
    _write_result(result, folder)
    return result


def _write_result(result: dict[str, Any], folder: Path) -> None:
    (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_result(folder: Path, sha256: str | None = None) -> dict[str, Any]:
    """What `write_result_set` described in this folder.

    Args:
        folder: a result set.
        sha256: what the record says of `result.json`; None where it says nothing.

    Raises:
        StoredBytesChanged: the file has changed.
    """
    if sha256 is not None:
        check_digest(folder / RESULT_FILE, sha256)
    content: dict[str, Any] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    return content


def read_former(
    folder: Path,
    revision: int,
    *,
    sha256: str | None = None,
    gone: str = "",
    since: tuple[str, str | None] | None = None,
) -> Former:
    """The reading that was written into this folder, as the next revision asks after it.

    Args:
        folder: a result set; up to version 0.2 it has no image digest, so that its image is read again.
        revision: of the job that made it.
        sha256: see `read_result`.
        gone: see `Former`.
        since: see `Former`.

    Raises:
        StoredBytesChanged: the set is not what was recorded; `load_found` raises it too.
    """
    result = read_result(folder, sha256)
    scope = result.get("scope")
    return Former(
        revision=revision,
        status=ReadingStatus(result["status"]),
        reason=result["reason"],
        outside_scope=scope is not None and scope["kind"] == REFUSAL,
        selection_digest=result["selection_digest"],
        image_digest=result.get("image_digest"),
        identity_digest=result.get("identity_digest"),
        bundle_sha256=result["model"]["sha256"] if result["model"] else None,
        settings_digest=result["settings_digest"],
        load_found=partial(_read_found, folder, result),
        gone=gone,
        since=since,
    )


def _read_found(folder: Path, result: dict[str, Any]) -> Found:
    for name, sha256 in result.get("arrays", {}).items():  # up to version 0.4 there are no digests
        check_digest(folder / name, sha256)
    return Found(
        lesion_map=_read_lesion_map(folder / LESION_MAP_FILE),
        scope=ScopeVerdict(result["scope"]["kind"], tuple(result["scope"]["sentences"])),
        remarks=tuple(result["remarks"]),
        brain_volume_ml=result["brain_volume_ml"],
        runtime=result["runtime"],
        probability=_read_probability(folder / PROBABILITY_FILE),
    )


def _read_probability(path: Path) -> NDArray[np.uint8] | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        probability: NDArray[np.uint8] = stored["probability"]
    return probability


def _write_lesion_map(lesion_map: LesionMap, path: Path) -> None:
    rows = [tuple(getattr(lesion, name) for name in _LESION.names or ()) for lesion in lesion_map.lesions]
    lesions = np.array(rows, dtype=_LESION)  # an unknown confidence becomes "not a number"
    np.savez_compressed(path, labels=lesion_map.labels, affine=lesion_map.grid.affine, lesions=lesions)


def _read_lesion_map(path: Path) -> LesionMap:
    with np.load(path) as stored:
        labels, affine, rows = stored["labels"], stored["affine"], stored["lesions"]
    grid = Grid(labels.shape, affine)
    boxes = ndimage.find_objects(labels) if "longest_axial_mm" not in rows.dtype.names else []
    lesions = []
    for row in rows.tolist():
        facts = dict(zip(rows.dtype.names, row, strict=True))
        facts["centroid_lps_mm"] = tuple(facts["centroid_lps_mm"].tolist())
        facts["confidence"] = None if np.isnan(facts["confidence"]) else facts["confidence"]
        if boxes:  # up to version 0.2 the diameter was the one in the plane that was acquired
            del facts["longest_in_plane_mm"]
            box, label = boxes[facts["label"] - 1], facts["label"]
            facts["longest_axial_mm"] = longest_axial_mm(labels[box] == label, grid)
        lesions.append(Lesion(**facts))
    return LesionMap(labels=labels, grid=grid, lesions=tuple(lesions))


def _write_object(output: Output, number: int, folder: Path) -> dict[str, str]:
    name = f"{output.kind}-{number:04d}.dcm" if output.kind in _SEVERAL else f"{output.kind}.dcm"
    content = to_bytes(output)
    (folder / name).write_bytes(content)
    return {
        "kind": output.kind,
        "path": name,
        "sop_instance_uid": output.sop_instance_uid,
        "sop_class_uid": str(output.dataset.SOPClassUID),
        "series_instance_uid": str(output.dataset.SeriesInstanceUID),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def describe(reading: Reading, outputs: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What `result.json` says of a reading whose objects were written as `outputs`."""
    provenance = reading.provenance
    model = provenance.model
    return {
        "status": reading.status,
        "reason": reading.reason,
        "series_instance_uid": reading.flair.series_instance_uid if reading.flair else None,
        "lesion_count": reading.findings.count if reading.findings else None,
        "lesion_volume_mm3": round(reading.findings.total_volume_mm3, 3) if reading.findings else None,
        "brain_volume_ml": reading.findings.brain_volume_ml if reading.findings else None,
        "scope": _scope(reading.scope),
        "lesions": _lesions(reading.findings, reading.mark_below_confidence),
        "outputs": list(outputs),
        "model": asdict(model) if model else None,
        "msnode_version": provenance.msnode_version,
        "settings_digest": provenance.settings_digest,
        "warnings": list(reading.source.warnings) if reading.source else [],
        "passed_over": [
            {"series_instance_uid": p.series_instance_uid, "reason": p.reason}
            for p in reading.selection.passed_over
        ],
        "remarks": list(reading.findings.limitations) if reading.findings else [],
        "removed": reading.removed,
        "selection_digest": selection_digest(reading.selection),
        "image_digest": reading.source.image_digest if reading.source else None,
        "identity_digest": reading.identity_digest,
        "runtime": provenance.runtime,
        "timings_s": reading.timings_s,
    }


def _scope(verdict: ScopeVerdict | None) -> dict[str, Any] | None:
    return {"kind": verdict.kind, "sentences": list(verdict.sentences)} if verdict else None


def _lesions(findings: Findings | None, mark_below: float) -> list[dict[str, Any]]:
    return [
        {
            "tracking_uid": f.tracking_uid,
            "tracking_id": f.tracking_id,
            "volume_mm3": round(f.lesion.volume_mm3, 3),
            "centroid_lps_mm": [round(v, 3) for v in f.lesion.centroid_lps_mm],
            "longest_axial_mm": round(f.lesion.longest_axial_mm, 3),
            "mean_probability": round(f.lesion.mean_probability, 4),
            "spread": round(f.lesion.spread, 4),
            "confidence": None if f.lesion.confidence is None else round(f.lesion.confidence, 4),
            "low_confidence": is_uncertain(f.lesion, mark_below),
        }
        for f in (findings.lesions if findings else ())
    ]
