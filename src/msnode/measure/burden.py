"""Lesion burden: which lesions there are, how many, how large, and under which lasting identity."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msnode.dicom.uids import derive_uid
from msnode.domain.findings import Finding, Findings

if TYPE_CHECKING:
    from msnode.domain.findings import Lesion, LesionMap


def measure(
    lesion_map: LesionMap, *, patient_key: tuple[str, str], series_instance_uid: str, bundle_sha256: str
) -> Findings:
    """Give each lesion of a map its identity.

    The tracking UID depends on the patient, the series the lesion was first seen in, the bundle and the
    centroid alone, so that reading the same series again with the same bundle finds the same identities
    whatever the lesions' order.

    Args:
        lesion_map: lesions on the source grid, largest first.
        patient_key: (issuer of patient ID, patient ID); either may be empty.
        series_instance_uid: the source series.
        bundle_sha256: digest of the bundle that made the map.

    Returns:
        One finding a lesion, in the order of the map, named "Lesion 1", "Lesion 2", …
    """
    seen: Counter[tuple[str, ...]] = Counter()
    found = []
    for lesion in lesion_map.lesions:
        centroid = _rounded_centroid(lesion)
        # one lesion may enclose another: equal centroids are told apart by their order, which is by size
        twin = seen[centroid]
        seen[centroid] += 1
        parts = ["tracking", *patient_key, series_instance_uid, bundle_sha256, *centroid]
        if twin:
            parts.append(str(twin))
        found.append(
            Finding(lesion=lesion, tracking_id=f"Lesion {lesion.label}", tracking_uid=derive_uid(*parts))
        )
    return Findings(lesions=tuple(found))


def _rounded_centroid(lesion: Lesion) -> tuple[str, ...]:
    """The centroid to 0.1 mm as text; adding zero turns -0.0 into 0.0."""
    return tuple(f"{round(c, 1) + 0.0:.1f}" for c in lesion.centroid_lps_mm)
