"""Where a result comes from, and the result object itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from pydicom import Dataset


@dataclass(frozen=True)
class PassedOver:
    """A series that was not taken, and why."""

    series_instance_uid: str
    reason: str


@dataclass(frozen=True)
class ModelIdentity:
    """Which bundle made a result: name, version and SHA-256 of its manifest."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """What a result was made from; results are a function of this and the source alone.

    Attributes:
        started_at: the job's recorded start: every date in every object comes from here.
        revision: 0 for the first reading of a study.
        model: the bundle; None where a study was rejected before a bundle was chosen.
        msnode_version: version of this package.
        runtime: what ran the network and in which precision, such as "openvino-cpu-f32".
        settings_digest: SHA-256 over the settings that change results.
        known_series_numbers: numbers already used in the study.
        replaced_reports: kind of report → SOP Instance UID in the latest earlier revision that a destination
            has; empty where there is none.
    """

    started_at: datetime
    revision: int
    model: ModelIdentity | None
    msnode_version: str
    runtime: str
    settings_digest: str
    known_series_numbers: frozenset[int] = field(default_factory=frozenset)
    replaced_reports: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Output:
    """One result object, complete with file meta information and ready to write.

    Attributes:
        kind: one of `encode.kinds.KIND_NUMBERS`.
        dataset: the object.
    """

    kind: str
    dataset: Dataset

    @property
    def sop_instance_uid(self) -> str:
        """(0008,0018)."""
        return str(self.dataset.SOPInstanceUID)
