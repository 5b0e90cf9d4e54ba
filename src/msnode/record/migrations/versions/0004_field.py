"""What the store must hold.

Every change adds, so that processes of the version before go on working while others are upgraded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a column that is empty for result sets of earlier versions."""
    op.add_column("job", sa.Column("result_sha256", sa.String(64)))
