"""Endpoints that are made over the HTTP API while the relay runs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("by_api", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "api_endpoints",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("secrets", sa.Text, nullable=False),
        sa.Column("audience", sa.Text, nullable=False),
        sa.Column("within", sa.Text, nullable=False),
        sa.Column("change", _KEY, nullable=False),
        sa.Column("made_at", _KEY, nullable=False),
        sa.Column("expires_at", _KEY),
        sa.Column("removed_at", _KEY),
    )
    op.create_index("api_endpoints_change", "api_endpoints", ["change"], unique=True)
    expiring = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "api_endpoints_expiring",
        "api_endpoints",
        ["expires_at"],
        sqlite_where=expiring,
        postgresql_where=expiring,
    )
    op.create_table(
        "api_endpoint_rooms",
        sa.Column("prefix", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, primary_key=True),
    )
    op.create_index("api_endpoint_rooms_endpoint", "api_endpoint_rooms", ["endpoint"])
