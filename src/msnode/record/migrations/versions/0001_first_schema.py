"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create every table."""
    _create_arrivals()
    _create_instances()
    _create_associations()
    _create_jobs()
    _create_results()
    _create_memory()


def _create_arrivals() -> None:
    op.create_table(
        "patient",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_patient"),
        sa.UniqueConstraint("issuer", "patient_id", name="uq_patient_issuer_patient_id"),
    )
    op.create_table(
        "study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("patient_key", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["patient_key"], ["patient.id"], name="fk_study_patient_key"),
        sa.PrimaryKeyConstraint("id", name="pk_study"),
        sa.UniqueConstraint("study_instance_uid", name="uq_study_study_instance_uid"),
    )
    op.create_index("ix_study_patient_key", "study", ["patient_key"], unique=False)
    op.create_table(
        "series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("last_at", _UTC, nullable=False),
        sa.Column("last_association_id", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["study_key"], ["study.id"], name="fk_series_study_key"),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint(
            "study_key", "series_instance_uid", name="uq_series_study_key_series_instance_uid"
        ),
    )
    op.create_index("ix_series_series_instance_uid", "series", ["series_instance_uid"], unique=False)


def _create_instances() -> None:
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("series_key", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("slice_position_mm", sa.Double()),
        sa.Column("frame_count", sa.Integer(), nullable=False),
        sa.Column("association_id", sa.String(64), nullable=False),
        sa.Column("received_at", _UTC, nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("superseded", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["series_key"], ["series.id"], name="fk_instance_series_key"),
        sa.PrimaryKeyConstraint("id", name="pk_instance"),
    )
    op.create_index("ix_instance_digest", "instance", ["digest"], unique=False)
    op.create_index("ix_instance_series_key", "instance", ["series_key"], unique=False)
    op.create_index(
        "uq_instance_latest",
        "instance",
        ["sop_instance_uid"],
        unique=True,
        sqlite_where=sa.text("superseded = 0"),
        postgresql_where=sa.text("NOT superseded"),
    )


def _create_associations() -> None:
    op.create_table(
        "association",
        sa.Column("association_id", sa.String(64), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("called_ae", sa.String(16), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("opened_at", _UTC, nullable=False),
        sa.Column("closed_at", _UTC),
        sa.Column("released", sa.Boolean()),
        sa.PrimaryKeyConstraint("association_id", name="pk_association"),
    )
    op.create_index("ix_association_closed_at", "association", ["closed_at"], unique=False)
    op.create_table(
        "association_series",
        sa.Column("series_key", sa.Integer(), nullable=False),
        sa.Column("association_id", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["series_key"], ["series.id"], name="fk_association_series_series_key"),
        sa.PrimaryKeyConstraint("series_key", "association_id", name="pk_association_series"),
    )


def _create_jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("rejection", sa.Text()),
        sa.Column("state_since", _UTC, nullable=False),
        sa.Column("created_at", _UTC, nullable=False),
        sa.Column("started_at", _UTC),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requeues", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(64)),
        sa.Column("selection_digest", sa.String(64)),
        sa.Column("model_name", sa.Text()),
        sa.Column("model_version", sa.Text()),
        sa.Column("model_sha256", sa.String(64)),
        sa.Column("msnode_version", sa.Text()),
        sa.Column("runtime", sa.Text()),
        sa.Column("settings_digest", sa.String(64)),
        sa.Column("result_set", sa.String(80)),
        sa.Column("lesion_count", sa.Integer()),
        sa.Column("lesion_volume_mm3", sa.Double()),
        sa.Column("timings_s", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["study_key"], ["study.id"], name="fk_job_study_key"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.UniqueConstraint("study_key", "revision", name="uq_job_study_key_revision"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_state", "job", ["state"], unique=False)
    op.create_table(
        "transition",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("state_before", sa.String(32)),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("at", _UTC, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_transition_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_transition"),
    )
    op.create_index("ix_transition_job_id", "transition", ["job_id"], unique=False)
    op.create_table(
        "selection_reason",
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_selection_reason_job_id"),
        sa.PrimaryKeyConstraint("job_id", "series_instance_uid", name="pk_selection_reason"),
    )


def _create_results() -> None:
    op.create_table(
        "result",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_result_job_id"),
        sa.PrimaryKeyConstraint("id", name="pk_result"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_result_sop_instance_uid"),
    )
    op.create_index("ix_result_job_id", "result", ["job_id"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("result_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("next_try_at", _UTC),
        sa.Column("updated_at", _UTC, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_delivery_job_id"),
        sa.ForeignKeyConstraint(["result_id"], ["result.id"], name="fk_delivery_result_id"),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.UniqueConstraint("result_id", "destination", name="uq_delivery_result_id_destination"),
    )
    op.create_index("ix_delivery_job_id_destination", "delivery", ["job_id", "destination"], unique=False)


def _create_memory() -> None:
    op.create_table(
        "case",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("patient_key", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", _UTC, nullable=False),
        sa.Column("prepared_digest", sa.String(64)),
        sa.Column("lesion_map_digest", sa.String(64)),
        sa.Column("transform", sa.JSON()),
        sa.Column("tracking_uids", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["patient_key"], ["patient.id"], name="fk_case_patient_key"),
        sa.PrimaryKeyConstraint("id", name="pk_case"),
        sa.UniqueConstraint("study_instance_uid", "revision", name="uq_case_study_instance_uid_revision"),
    )
    op.create_index("ix_case_patient_key", "case", ["patient_key"], unique=False)
    op.create_table(
        "correction",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("case_id", sa.Integer(), nullable=False),
        sa.Column("tracking_uid", sa.String(64)),
        sa.Column("made_at", _UTC, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["case.id"], name="fk_correction_case_id"),
        sa.PrimaryKeyConstraint("id", name="pk_correction"),
    )
    op.create_index("ix_correction_case_id", "correction", ["case_id"], unique=False)
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", _UTC, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sa.UniqueConstraint("sha256", name="uq_audit_sha256"),
    )
