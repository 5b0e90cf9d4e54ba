"""What arrives at the node: associations, instances, series and studies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class AssociationFacts:
    """One association a peer opened to the node; times are UTC."""

    association_id: str
    calling_ae: str
    called_ae: str
    address: str
    opened_at: datetime


@dataclass(frozen=True)
class Arrival:
    """One instance on its way from C-STORE to the record. Each step evolves it with what it finds out.

    Text is empty where the header has none.

    Attributes:
        patient_key: (issuer of patient ID, patient ID), either may be empty.
        slice_position_mm: Image Position projected on the stack's normal, LPS mm; None if the header has
            no plane or the instance has several frames.
        own: made by a node (Contributing Equipment or known UID): never starts a job.
        association_id: of the association that brought it.
        received_at: UTC.
        digest: SHA-256 of the stored bytes; empty until they are durable.
        replaces: digest of the known version that shows the same image; None until other bytes of the same
            instance were found and compared.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    patient_key: tuple[str, str]
    slice_position_mm: float | None
    frame_count: int
    own: bool
    association_id: str
    received_at: datetime
    digest: str = ""
    replaces: str | None = None

    def evolve(self, *, digest: str | None = None, replaces: str | None = None) -> Arrival:
        """The same arrival with what is known now."""
        return replace(self, digest=digest or self.digest, replaces=replaces or self.replaces)


@dataclass(frozen=True)
class SeriesArrivals:
    """What has arrived of one series.

    Attributes:
        slice_positions_mm: one for each instance that has a position, LPS mm along the normal.
        instance_count: number of distinct SOP instances.
        last_at: when the last instance came, UTC.
        interrupted: whether the last association that brought instances of it was aborted or lost.
        interrupted_at: when that was noticed, UTC; None if it was not, or is not known.
    """

    series_instance_uid: str
    slice_positions_mm: tuple[float, ...]
    instance_count: int
    last_at: datetime
    interrupted: bool
    interrupted_at: datetime | None = None


@dataclass(frozen=True)
class StudyArrivals:
    """What has arrived of one study whose job waits for it to be complete.

    Attributes:
        job_id: the waiting job.
        revision: the job's revision; late slices of a study already read make revision 1, 2, …
        open_associations: associations still open that brought instances of this study.
    """

    study_instance_uid: str
    job_id: int
    revision: int
    series: tuple[SeriesArrivals, ...]
    open_associations: int

    @property
    def last_at(self) -> datetime:
        """When the study's last instance came, UTC."""
        return max(s.last_at for s in self.series)
