"""Tables of the clinical record. Times are UTC; volumes are mm3; positions are mm along the stack's normal.

    patient ─ study ─ series ─ instance          received instances, every version of them
                │        └ association_series ─ association
                └ job ─ transition, selection_reason, result ─ delivery ─ commitment_item ─ commitment
    commitment_request                           storage commitment requests of peers to this node
    case, correction                             kept after retention has removed the pixels
    audit                                        append-only, hash-chained

What runs next is not here: the engine has its own tables in the same database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from msnode.dicom.character_sets import storable

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime, stored in UTC also where the database has no time zones (SQLite)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC; a naive datetime is refused, because its time zone is unknown."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time in the record needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Convert the database's value, naive on SQLite, to an aware datetime in UTC."""
        del dialect
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class StorableString(sa.types.TypeDecorator[str]):
    """Text of a maximum length, as every database takes it (see `storable`), whatever a peer sent."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Leave out what cannot be stored."""
        del dialect
        return None if value is None else storable(value)


class StorableText(StorableString):
    """The same of any length."""

    impl = sa.Text
    cache_ok = True


_UID = StorableString(64)
_DIGEST = sa.String(64)
_AE = StorableString(16)
_WORD = sa.String(32)

patient = sa.Table(
    "patient",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("issuer", StorableText, nullable=False),
    sa.Column("patient_id", StorableText, nullable=False),
    sa.UniqueConstraint("issuer", "patient_id"),
)

study = sa.Table(
    "study",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("patient_key", sa.ForeignKey("patient.id"), nullable=False, index=True),
)

series = sa.Table(
    "series",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    # A faulty peer may send one UID under two studies; each keeps its own instances.
    sa.Column("study_key", sa.ForeignKey("study.id"), nullable=False),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("modality", StorableString(16), nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.Column("last_association_id", StorableString(64), nullable=False),
    sa.UniqueConstraint("study_key", "series_instance_uid"),
)

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("series_key", sa.ForeignKey("series.id"), nullable=False, index=True),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("digest", _DIGEST, nullable=False, index=True),
    sa.Column("slice_position_mm", sa.Double),
    sa.Column("frame_count", sa.Integer, nullable=False),
    # No foreign key: a power cut may lose the association's row and leave the instance.
    sa.Column("association_id", StorableString(64), nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("own", sa.Boolean, nullable=False),
    sa.Column("superseded", sa.Boolean, nullable=False),
    # When retention removed the bytes; NULL again once the instance was received again.
    sa.Column("removed_at", UtcDateTime),
    # A peer was told that the node keeps it (storage commitment): retention never removes its bytes.
    sa.Column("promised", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(
        "uq_instance_latest",
        "sop_instance_uid",
        unique=True,
        sqlite_where=sa.text("superseded = 0"),
        postgresql_where=sa.text("NOT superseded"),
    ),
    # Instances that retention may still remove, oldest first.
    sa.Index(
        "ix_instance_kept",
        "received_at",
        sqlite_where=sa.text("removed_at IS NULL"),
        postgresql_where=sa.text("removed_at IS NULL"),
    ),
)

association = sa.Table(
    "association",
    metadata,
    sa.Column("association_id", StorableString(64), primary_key=True),
    sa.Column("calling_ae", _AE, nullable=False),
    sa.Column("called_ae", _AE, nullable=False),
    sa.Column("address", StorableString(64), nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime, index=True),
    sa.Column("released", sa.Boolean),
    # Executor id of its process: where that is dead, the association was interrupted.
    sa.Column("receiver", StorableString(64)),
)

association_series = sa.Table(
    "association_series",
    metadata,
    sa.Column("series_key", sa.ForeignKey("series.id"), primary_key=True),
    sa.Column("association_id", StorableString(64), primary_key=True, index=True),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study_key", sa.ForeignKey("study.id"), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", _WORD, nullable=False, index=True),
    sa.Column("reason", StorableText, nullable=False),
    sa.Column("rejection", StorableText),
    sa.Column("state_since", UtcDateTime, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("requeues", sa.Integer, nullable=False),
    sa.Column("interruptions", sa.Integer, nullable=False, server_default="0"),
    sa.Column("priority", sa.Integer, nullable=False, server_default="5"),
    # What routing decided when the study was complete; NULL for the value in the settings.
    sa.Column("rule", StorableString(64)),
    sa.Column("asked_for", sa.Boolean),
    sa.Column("bundle", StorableText),
    sa.Column("preset", _WORD),
    sa.Column("destinations", sa.JSON(none_as_null=True)),
    sa.Column("not_before", UtcDateTime),
    sa.Column("series_instance_uid", _UID),
    sa.Column("selection_digest", _DIGEST),
    sa.Column("model_name", StorableText),
    sa.Column("model_version", StorableText),
    sa.Column("model_sha256", _DIGEST),
    sa.Column("msnode_version", StorableText),
    sa.Column("runtime", StorableText),
    sa.Column("settings_digest", _DIGEST),
    sa.Column("result_set", StorableString(80)),
    # SHA-256 of the set's result.json, which names those of its other files.
    sa.Column("result_sha256", _DIGEST),
    sa.Column("lesion_count", sa.Integer),
    sa.Column("lesion_volume_mm3", sa.Double),
    sa.Column("timings_s", sa.JSON, nullable=False),
    sa.UniqueConstraint("study_key", "revision"),
    sqlite_autoincrement=True,  # workflow ids contain the job's id, which may never be reused
)

transition = sa.Table(
    "transition",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("job.id"), nullable=False, index=True),
    sa.Column("state_before", _WORD),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("reason", StorableText, nullable=False),
)

selection_reason = sa.Table(
    "selection_reason",
    metadata,
    sa.Column("job_id", sa.ForeignKey("job.id"), primary_key=True),
    sa.Column("series_instance_uid", _UID, primary_key=True),
    sa.Column("reason", StorableText, nullable=False),
)

result = sa.Table(
    "result",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("job.id"), nullable=False, index=True),
    sa.Column("kind", _WORD, nullable=False),
    sa.Column("sop_instance_uid", _UID, nullable=False, unique=True),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("path", StorableText, nullable=False),
    sa.Column("sha256", _DIGEST, nullable=False),
)

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("job.id"), nullable=False),
    sa.Column("result_id", sa.ForeignKey("result.id"), nullable=False),
    sa.Column("destination", StorableString(64), nullable=False),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("answers", sa.Integer, nullable=False, server_default="0"),
    sa.Column("verify", _WORD, nullable=False, server_default="none"),
    sa.Column("verifications", sa.Integer, nullable=False, server_default="0"),
    sa.Column("denials", sa.Integer, nullable=False, server_default="0"),
    sa.Column("status", sa.Integer),
    sa.Column("note", StorableText, nullable=False),
    sa.Column("next_try_at", UtcDateTime),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("result_id", "destination"),
    sa.Index("ix_delivery_job_id_destination", "job_id", "destination"),
)

commitment = sa.Table(
    "commitment",
    metadata,
    sa.Column("transaction_uid", _UID, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("job.id"), nullable=False),
    sa.Column("destination", StorableString(64), nullable=False),
    sa.Column("state", _WORD, nullable=False),
    sa.Column("prepared_at", UtcDateTime, nullable=False),
    sa.Column("requested_at", UtcDateTime),
    sa.Column("deadline_at", UtcDateTime, nullable=False),
    sa.Column("answered_at", UtcDateTime),
    sa.Index("ix_commitment_job_id_destination", "job_id", "destination"),
)

commitment_item = sa.Table(
    "commitment_item",
    metadata,
    sa.Column("transaction_uid", sa.ForeignKey("commitment.transaction_uid"), primary_key=True),
    sa.Column("delivery_id", sa.ForeignKey("delivery.id"), primary_key=True, index=True),
)

commitment_request = sa.Table(
    "commitment_request",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("transaction_uid", _UID, nullable=False),
    sa.Column("calling_ae", _AE, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("state", _WORD, nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try_at", UtcDateTime),
    sa.Column("note", StorableText, nullable=False),
    # A list of [SOP Class UID, SOP Instance UID]; the answer is decided when it is reported.
    sa.Column("instances", sa.JSON, nullable=False),
    sa.UniqueConstraint("transaction_uid", "calling_ae"),
)

case = sa.Table(
    "case",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("patient_key", sa.ForeignKey("patient.id"), nullable=False, index=True),
    sa.Column("study_instance_uid", _UID, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("prepared_digest", _DIGEST),
    sa.Column("lesion_map_digest", _DIGEST),
    sa.Column("transform", sa.JSON),
    sa.Column("tracking_uids", sa.JSON, nullable=False),
    sa.UniqueConstraint("study_instance_uid", "revision"),
)

correction = sa.Table(
    "correction",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("case_id", sa.ForeignKey("case.id"), nullable=False, index=True),
    sa.Column("tracking_uid", _UID),
    sa.Column("made_at", UtcDateTime, nullable=False),
    sa.Column("kind", _WORD, nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("event", StorableText, nullable=False),
    # Text, not JSON: the chain is computed over these very characters.
    sa.Column("facts", StorableText, nullable=False),
    sa.Column("sha256", _DIGEST, nullable=False, unique=True),
)
