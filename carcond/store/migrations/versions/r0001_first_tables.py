"""The tables as they were before revisions were recorded."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("watermark", sa.String()),
        sa.Column("label_config", sa.String(), nullable=False),
    )
    op.create_table(
        "photo",
        sa.Column("project_id", sa.Integer(), primary_key=True),
        sa.Column("task_id", sa.Integer(), primary_key=True),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("phash", sa.String()),
        sa.Column("photo_group", sa.Integer()),
        sa.Column("side", sa.String()),
        sa.Column("drawn", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.String()),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Double()),
        sa.Column("gone", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "embedding",
        sa.Column("project_id", sa.Integer(), primary_key=True),
        sa.Column("task_id", sa.Integer(), primary_key=True),
        sa.Column("encoder_id", sa.String(), primary_key=True),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "annotation",
        sa.Column("project_id", sa.Integer(), primary_key=True),
        sa.Column("annotation_id", sa.Integer(), primary_key=True),
        sa.Column("task_id", sa.Integer(), nullable=False, index=True),
        sa.Column("annotator", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.String(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
    )
    op.create_table(
        "prediction",
        sa.Column("project_id", sa.Integer(), primary_key=True),
        sa.Column("prediction_id", sa.Integer(), primary_key=True),
        sa.Column("task_id", sa.Integer(), nullable=False, index=True),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("slot", sa.Integer()),
    )
