"""What a reading tells the record: the contract between the worker and the child process that reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msnode.domain.provenance import ModelIdentity, PassedOver
from msnode.record.delivery import Result

if TYPE_CHECKING:
    from collections.abc import Mapping


class ReadingStatus(StrEnum):
    """How a reading can end."""

    COMPLETED = "completed"
    REJECTED = "rejected"
    """A reading was asked for and cannot be given; a report says why."""
    PASSED_OVER = "passed_over"
    """Nothing in the study asked for a reading; recorded, not reported."""
    UNCHANGED = "unchanged"
    """The results of the revision before stand."""


@dataclass(frozen=True)
class ReadingSummary:
    """One reading in short.

    Attributes:
        status: how it ended.
        reason: why, in one line.
        selection_digest: SHA-256 over the digests of the selected instances.
        msnode_version: version that read.
        settings_digest: SHA-256 over the settings that change results.
        runtime: what ran the network and in which precision.
        series_instance_uid: the series that was read; None where none was chosen.
        passed_over: every other series, each with its reason.
        model: the bundle; None where the study was rejected before one was chosen.
        lesion_count: number of lesions; None unless completed.
        lesion_volume_mm3: their total volume; None unless completed.
        timings_s: seconds per stage.
        results: the objects that were written, in the order in which they should arrive.
        result_set: key of the committed result set in the store; None where there is nothing to deliver.
        result_sha256: SHA-256 of its `result.json`.
    """

    status: ReadingStatus
    reason: str
    selection_digest: str
    msnode_version: str
    settings_digest: str
    runtime: str
    series_instance_uid: str | None = None
    passed_over: tuple[PassedOver, ...] = ()
    model: ModelIdentity | None = None
    lesion_count: int | None = None
    lesion_volume_mm3: float | None = None
    timings_s: Mapping[str, float] = field(default_factory=dict)
    results: tuple[Result, ...] = ()
    result_set: str | None = None
    result_sha256: str | None = None

    @classmethod
    def of(
        cls, result: Mapping[str, Any], result_set: str | None = None, result_sha256: str | None = None
    ) -> ReadingSummary:
        """From what `result.json` holds.

        Args:
            result: its content, see `result_set.describe`; what the record does not need is left out.
            result_set: key of the set that the file belongs to.
            result_sha256: SHA-256 of the file.
        """
        model = result["model"]
        names = Result.__dataclass_fields__
        return cls(
            status=ReadingStatus(result["status"]),
            reason=result["reason"],
            selection_digest=result["selection_digest"],
            msnode_version=result["msnode_version"],
            settings_digest=result["settings_digest"],
            runtime=result["runtime"],
            series_instance_uid=result["series_instance_uid"],
            passed_over=tuple(PassedOver(**each) for each in result["passed_over"]),
            model=ModelIdentity(**model) if model else None,
            lesion_count=result["lesion_count"],
            lesion_volume_mm3=result["lesion_volume_mm3"],
            timings_s=result["timings_s"],
            results=tuple(Result(**{n: output[n] for n in names}) for output in result["outputs"]),
            result_set=result_set,
            result_sha256=result_sha256,
        )

    def to_json(self) -> str:
        """As text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ReadingSummary:
        """The summary that `to_json` wrote."""
        values = json.loads(text)
        return cls(
            **values
            | {
                "status": ReadingStatus(values["status"]),
                "passed_over": tuple(PassedOver(**each) for each in values["passed_over"]),
                "model": ModelIdentity(**values["model"]) if values["model"] else None,
                "results": tuple(Result(**each) for each in values["results"]),
            }
        )
