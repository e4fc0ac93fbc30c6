"""Every process of a fleet, in place of the one service; and the duties that one of them has for all."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
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
        sa.Column("jobs", _KEY, nullable=False),
        sa.Column("lanes", _KEY, nullable=False),
        sa.Column("cpu_load", sa.Double, nullable=False),
        sa.Column("cpu_limit", sa.Double, nullable=False),
        sa.Column("refusing", sa.Boolean, nullable=False),
        sa.Column("endpoints", sa.Text, nullable=False),
    )
    duties = op.create_table(
        "duties",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("until", _KEY, nullable=False),
    )
    op.bulk_insert(duties, [{"name": name, "owner": "", "until": 0} for name in ("coverage", "retention")])
    op.drop_table("service")
