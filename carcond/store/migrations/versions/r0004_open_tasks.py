"""Tasks that an annotator's page may hold open."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "open_task",
        sa.Column("project_id", sa.Integer(), primary_key=True),
        sa.Column("annotator", sa.Integer(), primary_key=True),
        sa.Column("task_id", sa.Integer(), primary_key=True),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
    )
