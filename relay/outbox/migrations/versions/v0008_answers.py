"""The beginnings of answers, of endpoints that allow it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("n", _KEY, primary_key=True),
        sa.Column("lane", _KEY, nullable=False),
        sa.Column("sequence", _KEY, nullable=False),
        sa.Column("number", _KEY, nullable=False),
        sa.Column("at", _KEY, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("answers_event", "answers", ["lane", "sequence"])
