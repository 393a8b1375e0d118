"""Number of the last change of a photo, so that the photos that changed since then are one indexed query."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the numbers, 0 for all photos that are known: whoever has read none of them reads them all."""
    op.add_column("photo", sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_photo_change", "photo", ["project_id", "change"])
    op.create_table(
        "pool_change",
        sa.Column("project_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
