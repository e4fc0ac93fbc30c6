"""What the service says of itself: is it alive, what does it hear, how busy is it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "service",
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", _KEY, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started_at", _KEY, nullable=False),
        sa.Column("ready_at", _KEY),
        sa.Column("seen_at", _KEY, nullable=False),
        sa.Column("stopped_at", _KEY),
        sa.Column("waits_for", sa.Text, nullable=False),
        sa.Column("rooms_heard", _KEY, nullable=False),
        sa.Column("rooms_unheard", _KEY, nullable=False),
        sa.Column("cpu_load", sa.Double, nullable=False),
        sa.Column("cpu_limit", sa.Double, nullable=False),
        sa.Column("refusing", sa.Boolean, nullable=False),
    )
