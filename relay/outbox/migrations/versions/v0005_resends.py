"""Delivered events that are sent again."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "resends",
        sa.Column(
            "resend", _KEY, primary_key=True, comment="never given twice: a claim of a former one must not fit another"
        ),
        sa.Column("lane", _KEY, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("cursor", _KEY, nullable=False, comment="the last event that is done with"),
        sa.Column("upto", _KEY, nullable=False),
        sa.Column("since", _KEY, nullable=False, comment="emitted then or later, and before the next"),
        sa.Column("until", _KEY, nullable=False),
        sa.Column("types", sa.Text, nullable=False, comment="a JSON array"),
        sa.Column("previous", _KEY, nullable=False, comment="the last one sent by this resend; 0 before the first"),
        sa.Column("attempts", _KEY, nullable=False),
        sa.Column("asked_at", _KEY, nullable=False),
        sa.Column("next_at", _KEY, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("fence", _KEY, nullable=False),
        sa.Column("failed_at", _KEY, comment="as in lanes"),
        sa.Column("outage", sa.Boolean, nullable=False, server_default=sa.true(), comment="as in lanes"),
        sqlite_autoincrement=True,
    )
    op.create_index("resends_due", "resends", ["endpoint", "next_at"])
    op.create_index("resends_lane", "resends", ["lane", "resend"])
