"""What routing decided for a job.

Every change adds, so that processes of the version before go on working while others are upgraded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add columns that may be empty: then the settings decide, as before."""
    op.add_column("job", sa.Column("rule", sa.String(64)))
    op.add_column("job", sa.Column("asked_for", sa.Boolean()))
    op.add_column("job", sa.Column("bundle", sa.Text()))
    op.add_column("job", sa.Column("preset", sa.String(32)))
    op.add_column("job", sa.Column("destinations", sa.JSON()))
