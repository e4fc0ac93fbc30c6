"""The first schema: streams and their events, lanes, attempts, dead letters, writers, identity, endpoints."""

import sqlalchemy as sa
from alembic import op
from ulid import ULID

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is history: it says what the tables were, not what schema.py says today.
_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "streams",
        sa.Column("sid", _KEY, primary_key=True, comment="the log's own number of the stream"),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("room_sid", sa.Text, nullable=False),
        sa.Column("room", sa.Text, nullable=False),
        sa.Column("track_sid", sa.Text, nullable=False),
        sa.Column("participant", sa.Text, nullable=False),
        sa.Column("last_sequence", _KEY, nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("writer_fence", _KEY, nullable=False),
        sa.Column("opened_at", _KEY, nullable=False),
        sa.Column("closed_at", _KEY, comment="null while the stream is open"),
    )
    _partial_index("streams_taken", "streams", ["room_sid", "track_sid"], where="closed_at IS NULL", unique=True)
    op.create_table(
        "events",
        sa.Column("sid", _KEY, primary_key=True, autoincrement=False),
        sa.Column("sequence", _KEY, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("delivery", sa.Text, nullable=False),
        sa.Column("utterance", sa.Text),
        sa.Column("revision", _KEY),
        sa.Column("emitted_at", _KEY, nullable=False),
        sa.Column("expires_at", _KEY, comment="0 once the body has been emptied"),
        sa.Column("closes", sa.Boolean, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    _partial_index("events_fading", "events", ["expires_at"], where="expires_at > 0")
    op.create_table(
        "lanes",
        sa.Column("lane", _KEY, primary_key=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("sid", _KEY, nullable=False),
        sa.Column("cursor", _KEY, nullable=False),
        sa.Column("last_sent", _KEY, nullable=False),
        sa.Column("attempts", _KEY, nullable=False),
        sa.Column("next_at", _KEY),
        sa.Column("owner", sa.Text),
        sa.Column("fence", _KEY, nullable=False),
        sa.Column("settled_at", _KEY, nullable=False),
        sa.UniqueConstraint("sid", "endpoint"),
    )
    _partial_index("lanes_due", "lanes", ["endpoint", "next_at"], where="next_at IS NOT NULL")
    _partial_index("lanes_idle", "lanes", ["sid"], where="next_at IS NULL")
    op.create_table(
        "attempts",
        sa.Column("n", _KEY, primary_key=True),
        sa.Column("lane", _KEY, nullable=False),
        sa.Column("sequence", _KEY, nullable=False),
        sa.Column("number", _KEY, nullable=False),
        sa.Column("at", _KEY, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("status", sa.SmallInteger),
        sa.Column("elapsed_ms", sa.Double, nullable=False),
    )
    op.create_table(
        "dead_letters",
        sa.Column("lane", _KEY, primary_key=True, autoincrement=False),
        sa.Column("sequence", _KEY, primary_key=True, autoincrement=False),
        sa.Column("attempts", _KEY, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", _KEY, nullable=False),
    )
    op.create_table(
        "writers",
        sa.Column("writer", sa.Text, primary_key=True, comment="one process, for as long as it lives"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("lease_until", _KEY, nullable=False),
    )
    identity = op.create_table("identity", sa.Column("id", sa.Text, primary_key=True))
    op.bulk_insert(identity, [{"id": str(ULID())}])
    op.create_table(
        "endpoints",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("active", sa.Boolean, nullable=False),
    )


def _partial_index(name: str, table: str, columns: list[str], *, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
