"""Pre-labels that annotations were made on; known of annotations that are read from now on."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    op.add_column("annotation", sa.Column("prelabels", sa.JSON()))
