"""Commitment, priorities, retention, and several receivers.

Every change adds, so that processes of the version before go on working while others are upgraded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add columns with a default, and tables."""
    op.add_column("instance", sa.Column("removed_at", _UTC))
    op.add_column("instance", sa.Column("promised", sa.Boolean(), nullable=False, server_default=sa.false()))
    there = sa.text("removed_at IS NULL")
    op.create_index(
        "ix_instance_kept", "instance", ["received_at"], sqlite_where=there, postgresql_where=there
    )
    op.create_index("ix_association_series_association_id", "association_series", ["association_id"])
    op.add_column("association", sa.Column("receiver", sa.String(64)))
    op.add_column("job", sa.Column("interruptions", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("priority", sa.Integer(), nullable=False, server_default="5"))
    op.add_column("job", sa.Column("not_before", _UTC))
    op.add_column("delivery", sa.Column("answers", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("delivery", sa.Column("verify", sa.String(32), nullable=False, server_default="none"))
    op.add_column("delivery", sa.Column("verifications", sa.Integer(), nullable=False, server_default="0"))
    _create_commitment()
    _create_commitment_request()


def _create_commitment() -> None:
    op.create_table(
        "commitment",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("prepared_at", _UTC, nullable=False),
        sa.Column("requested_at", _UTC),
        sa.Column("deadline_at", _UTC, nullable=False),
        sa.Column("answered_at", _UTC),
        sa.PrimaryKeyConstraint("transaction_uid", name="pk_commitment"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_commitment_job_id"),
    )
    op.create_index("ix_commitment_job_id_destination", "commitment", ["job_id", "destination"], unique=False)
    op.create_table(
        "commitment_item",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", "delivery_id", name="pk_commitment_item"),
        sa.ForeignKeyConstraint(
            ["transaction_uid"], ["commitment.transaction_uid"], name="fk_commitment_item_transaction_uid"
        ),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name="fk_commitment_item_delivery_id"),
    )
    op.create_index("ix_commitment_item_delivery_id", "commitment_item", ["delivery_id"], unique=False)


def _create_commitment_request() -> None:
    op.create_table(
        "commitment_request",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("received_at", _UTC, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", _UTC),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("instances", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_commitment_request"),
        sa.UniqueConstraint(
            "transaction_uid", "calling_ae", name="uq_commitment_request_transaction_uid_calling_ae"
        ),
    )
    op.create_index("ix_commitment_request_state", "commitment_request", ["state"], unique=False)
