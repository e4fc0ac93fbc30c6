"""Until when an endpoint has a rest."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("resting_until", sa.BigInteger().with_variant(sa.Integer, "sqlite")))
