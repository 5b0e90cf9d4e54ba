"""What the store must hold, and how often a destination denied an object.

Every change adds, so that processes of the version before go on working while others are upgraded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add a column that is empty for result sets of earlier versions, and one that counts from now on."""
    op.add_column("job", sa.Column("result_sha256", sa.String(64)))
    op.add_column("delivery", sa.Column("denials", sa.Integer(), nullable=False, server_default="0"))
