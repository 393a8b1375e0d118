"""Source, car and image statistics of a photo."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, empty: the next full read and the next embedding fill them."""
    for name in ("source", "car"):
        op.add_column("photo", sa.Column(name, sa.String()))
    for name in ("width", "height"):
        op.add_column("photo", sa.Column(name, sa.Integer()))
    for name in ("sharpness", "brightness"):
        op.add_column("photo", sa.Column(name, sa.Double()))
