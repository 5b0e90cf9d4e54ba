"""What goes into one reading of a study beside its pixels, and what comes out of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msnode.domain.imaging import FLAIR
from msnode.encode.kinds import ResultRules
from msnode.reading.summary import ReadingStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from msnode.domain.findings import Findings, LesionMap
    from msnode.domain.imaging import Selection, Series, SourceVolume
    from msnode.domain.provenance import Output, Provenance
    from msnode.reading.segment_volume import LesionRules
    from msnode.segment.bundle import Scope
    from msnode.segment.scope import ScopeVerdict
    from msnode.series.select import SelectionRules


@dataclass(frozen=True)
class ReadingRules:
    """What a reading depends on beside pixels and weights.

    Attributes:
        selection: limits of the rules that pick the FLAIR.
        scope: what the bundle has seen in training.
        lesions: recipe, threshold, smallest lesion and calibration of the bundle.
        results: what a site wants of the result objects.
    """

    selection: SelectionRules
    scope: Scope
    lesions: LesionRules
    results: ResultRules = field(default_factory=ResultRules)


@dataclass(frozen=True, eq=False)
class Found:
    """What a network found in one image.

    Attributes:
        lesion_map: lesions on the source grid.
        scope: the comparison with the model's training range.
        remarks: what a reader of the results should know of scope and quality, one sentence each.
        brain_volume_ml: brain and ventricles inside the stack, ml; None where it was not measured.
        runtime: what ran the network and in which precision.
        probability: uint8 (slice, row, column), lesion probability on the source grid in 255ths; None unless
            the results are to hold it.
    """

    lesion_map: LesionMap
    scope: ScopeVerdict
    remarks: tuple[str, ...]
    brain_volume_ml: float | None
    runtime: str
    probability: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Former:
    """The latest earlier revision of the study that gave results.

    Attributes:
        revision: its number.
        status: COMPLETED or REJECTED.
        reason: of that status.
        outside_scope: rejected because the series lies outside the model's scope.
        selection_digest: `selection_digest` of what it read.
        image_digest: `SourceVolume.image_digest`; None where it had no volume, or where an older version
            recorded none.
        identity_digest: `NormalisedHeader.identity_digest` of its objects; None from an older version.
        bundle_sha256: digest of its bundle; None where it had none.
        settings_digest: of the settings it was made under.
        load_found: brings what its network found, exactly; called only where it was completed.
        gone: why nothing of the series it read can be read any more; empty where something can.
        since: reason and identity digest of a later revision that was rejected because a part of the series
            had been removed; None where there was none and this one's results are the study's last word.
    """

    revision: int
    status: ReadingStatus
    reason: str
    outside_scope: bool
    selection_digest: str
    image_digest: str | None
    identity_digest: str | None
    bundle_sha256: str | None
    settings_digest: str
    load_found: Callable[[], Found]
    gone: str = ""
    since: tuple[str, str | None] | None = None

    @property
    def rejection(self) -> tuple[str, str | None] | None:
        """Reason and identity digest of the rejection that is the study's last word; None where none is."""
        if self.since is None and self.status == ReadingStatus.REJECTED:
            return self.reason, self.identity_digest
        return self.since

    def made_with(self, provenance: Provenance) -> bool:
        """Whether bundle and settings were those of `provenance`."""
        bundle = provenance.model.sha256 if provenance.model else None
        return (self.bundle_sha256, self.settings_digest) == (bundle, provenance.settings_digest)


@dataclass(frozen=True, eq=False)
class Reading:
    """The outcome of one job.

    Attributes:
        status: how it ended.
        reason: why, in one line.
        selection: what was taken and what was not.
        provenance: what the reading was made from.
        outputs: the objects for the PACS, in the order in which they should arrive.
        identity_digest: of patient, study and order as the outputs name them; None without outputs.
        source: the series as a volume; None where it is none.
        lesion_map: lesions on the source grid; None unless completed.
        findings: the numbers; None unless completed.
        scope: the comparison with the model's training range; None where it was not reached.
        probability: see `Found`.
        mark_below_confidence: lesions of lower confidence are marked.
        removed: rejected because bytes that it needs were removed: it replaces no other revision.
        timings_s: seconds per stage.
    """

    status: ReadingStatus
    reason: str
    selection: Selection
    provenance: Provenance
    outputs: tuple[Output, ...] = ()
    identity_digest: str | None = None
    source: SourceVolume | None = None
    lesion_map: LesionMap | None = None
    findings: Findings | None = None
    scope: ScopeVerdict | None = None
    probability: NDArray[np.uint8] | None = None
    mark_below_confidence: float = 0.0
    removed: bool = False
    timings_s: dict[str, float] = field(default_factory=dict)

    @property
    def flair(self) -> Series | None:
        """The series that was read, or would have been."""
        return self.selection.series.get(FLAIR)


def selection_digest(selection: Selection) -> str:
    """SHA-256 over the digests of the selected instances: equal digests need no second reading."""
    digests = sorted(i.digest for series in selection.series.values() for i in series.instances)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
