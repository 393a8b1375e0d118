"""Where a photo comes from, which car it shows, and how it looks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns, empty: the next full read and the next embedding fill them."""
    for name, kind in {
        "source": sa.String(),
        "car": sa.String(),
        "width": sa.Integer(),
        "height": sa.Integer(),
        "sharpness": sa.Float(),
        "brightness": sa.Float(),
    }.items():
        op.add_column("photo", sa.Column(name, kind))
