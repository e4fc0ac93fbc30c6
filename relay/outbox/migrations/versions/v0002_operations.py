"""Parking, endpoints that are disabled, the relay's own streams, failed attempts by event."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("streams", sa.Column("about", sa.Text))
    _partial_index("streams_about", "streams", ["about"], where="about IS NOT NULL")
    op.add_column("lanes", sa.Column("failing_since", _KEY))
    op.add_column("dead_letters", sa.Column("previous", _KEY, nullable=False, server_default="0"))
    _partial_index("attempts_failed", "attempts", ["lane", "sequence"], where="stage != 'ok'")
    for column in ("disabled_at", "failing_since", "succeeded_at", "failed_at"):
        op.add_column("endpoints", sa.Column(column, _KEY))
    for column in ("disabled_because", "last_error"):
        op.add_column("endpoints", sa.Column(column, sa.Text))
    op.create_table(
        "parked",
        sa.Column("lane", _KEY, primary_key=True, autoincrement=False),
        sa.Column("sequence", _KEY, primary_key=True, autoincrement=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("attempts", _KEY, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("previous", _KEY, nullable=False),
        sa.Column("parked_at", _KEY, nullable=False),
        sa.Column("next_at", _KEY, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("fence", _KEY, nullable=False),
    )
    op.create_index("parked_due", "parked", ["endpoint", "next_at"])


def _partial_index(name: str, table: str, columns: list[str], *, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
