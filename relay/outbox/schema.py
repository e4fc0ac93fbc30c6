"""The log's tables, for both SQLite and PostgreSQL. Every time is epoch milliseconds.

The tables have no foreign keys: only this package writes here, and every append would pay for a check per row.
"""

import sqlalchemy as sa

REVISION = "0015"
"""The newest migration: this version requires a database at this revision."""

Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""64 bits in both dialects; SQLite numbers rows automatically only if the type is called INTEGER."""


class _WithoutNul(sa.TypeDecorator[str]):
    """Text in PostgreSQL, which has no NUL: in its place the replacement character is stored, and searched for."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value.replace("\0", "\ufffd")


Text = sa.Text().with_variant(_WithoutNul(), "postgresql")

METADATA = sa.MetaData()

streams = sa.Table(
    "streams",
    METADATA,
    sa.Column("sid", Key, primary_key=True, comment="the log's own number of the stream"),
    sa.Column("id", Text, nullable=False, unique=True),
    sa.Column("room_sid", Text, nullable=False),
    sa.Column("room", Text, nullable=False),
    sa.Column("track_sid", Text, nullable=False),
    sa.Column("participant", Text, nullable=False),
    sa.Column("last_sequence", Key, nullable=False),
    sa.Column("writer", Text, nullable=False),
    sa.Column("writer_fence", Key, nullable=False),
    sa.Column("opened_at", Key, nullable=False),
    sa.Column("closed_at", Key, comment="null while the stream is open"),
    sa.Column("about", Text, comment="for the relay's own streams: the endpoint, which has no lane on it"),
)
_open = streams.c.closed_at.is_(None)
sa.Index(
    "streams_taken", streams.c.room_sid, streams.c.track_sid, unique=True, sqlite_where=_open, postgresql_where=_open
)

_own = streams.c.about.is_not(None)
sa.Index("streams_about", streams.c.about, sqlite_where=_own, postgresql_where=_own)

# An ordinary rowid table: without rowids, rows of this size spill onto overflow pages and appends cost three times as
# much.
events = sa.Table(
    "events",
    METADATA,
    sa.Column("sid", Key, primary_key=True, autoincrement=False),
    sa.Column("sequence", Key, primary_key=True, autoincrement=False),
    sa.Column("id", Text, nullable=False),
    sa.Column("type", Text, nullable=False),
    sa.Column("delivery", Text, nullable=False),
    sa.Column("utterance", Text),
    sa.Column("revision", Key),
    sa.Column("emitted_at", Key, nullable=False),
    sa.Column("expires_at", Key, comment="0 once the body has been emptied"),
    sa.Column("closes", sa.Boolean, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
# Only rows with a body to remove, so that the index stays as small as the last minutes.
_fading = events.c.expires_at > sa.literal_column("0")
sa.Index("events_fading", events.c.expires_at, sqlite_where=_fading, postgresql_where=_fading)

# ``next_at`` is the one schedule: null is idle, not later than now is claimable, later than now is a retry time or the
# end of a lease. Taking over a dead dispatcher's lane is therefore an ordinary claim.
lanes = sa.Table(
    "lanes",
    METADATA,
    sa.Column("lane", Key, primary_key=True),
    sa.Column("endpoint", Text, nullable=False),
    sa.Column("sid", Key, nullable=False),
    sa.Column("cursor", Key, nullable=False),
    sa.Column("last_sent", Key, nullable=False),
    sa.Column("attempts", Key, nullable=False),
    sa.Column("next_at", Key),
    sa.Column("owner", Text),
    sa.Column("fence", Key, nullable=False),
    sa.Column("settled_at", Key, nullable=False),
    sa.Column("failing_since", Key, comment="of the head; has a meaning only where attempts is not 0"),
    sa.Column("failed_at", Key, comment="the head's last failure; null where a recovery must not shorten its wait"),
    sa.Column("outage", sa.Boolean, nullable=False, server_default=sa.true(), comment="see outbox/recovery.py"),
    sa.UniqueConstraint("sid", "endpoint"),
)
_due, _idle = lanes.c.next_at.is_not(None), lanes.c.next_at.is_(None)
sa.Index("lanes_due", lanes.c.endpoint, lanes.c.next_at, sqlite_where=_due, postgresql_where=_due)
sa.Index("lanes_idle", lanes.c.sid, sqlite_where=_idle, postgresql_where=_idle)
# To make or remove one endpoint must not read the lanes of all. Neither column changes: only a new lane pays for it.
# Its condition holds for every lane, so that no other query uses it: that would look through all lanes of an endpoint
# for the few that have something.
_every = lanes.c.sid > sa.literal_column("0")
sa.Index("lanes_of_endpoint", lanes.c.endpoint, lanes.c.sid, sqlite_where=_every, postgresql_where=_every)


def lanes_of(endpoint: str | sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether a lane is this endpoint's, by that index."""
    return sa.and_(lanes.c.endpoint == endpoint, _every)


attempts = sa.Table(
    "attempts",
    METADATA,
    sa.Column("n", Key, primary_key=True),
    sa.Column("lane", Key, nullable=False),
    sa.Column("sequence", Key, nullable=False),
    sa.Column("number", Key, nullable=False),
    sa.Column("at", Key, nullable=False),
    sa.Column("stage", Text, nullable=False),
    sa.Column("status", sa.SmallInteger),
    sa.Column("elapsed_ms", sa.Double, nullable=False),
)
# Look-ups of an event's attempts need only the failed ones. The others, nearly all, cost nothing here.
_failed = attempts.c.stage != sa.literal_column("'ok'")
sa.Index("attempts_failed", attempts.c.lane, attempts.c.sequence, sqlite_where=_failed, postgresql_where=_failed)

# Of endpoints that ask for it. A table of its own: attempts are written with every delivery, these hardly ever.
answers = sa.Table(
    "answers",
    METADATA,
    sa.Column("n", Key, primary_key=True),
    sa.Column("lane", Key, nullable=False),
    sa.Column("sequence", Key, nullable=False),
    sa.Column("number", Key, nullable=False),
    sa.Column("at", Key, nullable=False),
    sa.Column("text", Text, nullable=False),
)
sa.Index("answers_event", answers.c.lane, answers.c.sequence)

# Events that have left their lane's order. ``next_at`` is the schedule, as for lanes.
parked = sa.Table(
    "parked",
    METADATA,
    sa.Column("lane", Key, primary_key=True, autoincrement=False),
    sa.Column("sequence", Key, primary_key=True, autoincrement=False),
    sa.Column("endpoint", Text, nullable=False),
    sa.Column("attempts", Key, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("previous", Key, nullable=False),
    sa.Column("parked_at", Key, nullable=False),
    sa.Column("next_at", Key, nullable=False),
    sa.Column("owner", Text),
    sa.Column("fence", Key, nullable=False),
    sa.Column("failed_at", Key, comment="as in lanes"),
    sa.Column("outage", sa.Boolean, nullable=False, server_default=sa.true(), comment="as in lanes"),
)
sa.Index("parked_due", parked.c.endpoint, parked.c.next_at)

# Resends requested by an operator: a second cursor on a lane's stream. The lane is left alone.
resends = sa.Table(
    "resends",
    METADATA,
    sa.Column(
        "resend", Key, primary_key=True, comment="never given twice: a claim of a former one must not fit another"
    ),
    sa.Column("lane", Key, nullable=False),
    sa.Column("endpoint", Text, nullable=False),
    sa.Column("cursor", Key, nullable=False, comment="the last event that is done with"),
    sa.Column("upto", Key, nullable=False),
    sa.Column("since", Key, nullable=False, comment="emitted then or later, and before the next"),
    sa.Column("until", Key, nullable=False),
    sa.Column("types", Text, nullable=False, comment="a JSON array"),
    sa.Column("previous", Key, nullable=False, comment="the last one sent by this resend; 0 before the first"),
    sa.Column("attempts", Key, nullable=False),
    sa.Column("asked_at", Key, nullable=False),
    sa.Column("next_at", Key, nullable=False),
    sa.Column("owner", Text),
    sa.Column("fence", Key, nullable=False),
    sa.Column("failed_at", Key, comment="as in lanes"),
    sa.Column("outage", sa.Boolean, nullable=False, server_default=sa.true(), comment="as in lanes"),
    sqlite_autoincrement=True,
)
sa.Index("resends_due", resends.c.endpoint, resends.c.next_at)
sa.Index("resends_lane", resends.c.lane, resends.c.resend)

dead_letters = sa.Table(
    "dead_letters",
    METADATA,
    sa.Column("lane", Key, primary_key=True, autoincrement=False),
    sa.Column("sequence", Key, primary_key=True, autoincrement=False),
    sa.Column("attempts", Key, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("at", Key, nullable=False),
    sa.Column("previous", Key, nullable=False),
)

writers = sa.Table(
    "writers",
    METADATA,
    sa.Column("writer", Text, primary_key=True, comment="one process, for as long as it lives"),
    sa.Column("name", Text, nullable=False),
    sa.Column("lease_until", Key, nullable=False),
)

# What each process of the relay says of itself.
processes = sa.Table(
    "processes",
    METADATA,
    sa.Column("id", Text, primary_key=True),
    sa.Column("role", Text, nullable=False),
    sa.Column("host", Text, nullable=False),
    sa.Column("pid", Key, nullable=False),
    sa.Column("version", Text, nullable=False),
    sa.Column("started_at", Key, nullable=False),
    sa.Column("ready_at", Key),
    sa.Column("seen_at", Key, nullable=False),
    sa.Column("stopped_at", Key),
    sa.Column("waits_for", Text, nullable=False),
    sa.Column("rooms_heard", Key, nullable=False),
    sa.Column("rooms_unheard", Key, nullable=False),
    sa.Column("jobs", Key, nullable=False),
    sa.Column("lanes", Key, nullable=False),
    sa.Column("cpu_load", sa.Double, nullable=False),
    sa.Column("cpu_limit", sa.Double, nullable=False),
    sa.Column("refusing", sa.Boolean, nullable=False),
    sa.Column("endpoints", Text, nullable=False, comment="a JSON array of names: see ProcessState"),
)

# What one process of a fleet does for all. The rows are made by the migration.
duties = sa.Table(
    "duties",
    METADATA,
    sa.Column("name", Text, primary_key=True),
    sa.Column("owner", Text, nullable=False, comment="a process"),
    sa.Column("until", Key, nullable=False, comment="another process may take it then"),
)

# One row, written by the migration: the database's identity, wherever its file is moved.
identity = sa.Table("identity", METADATA, sa.Column("id", Text, primary_key=True))

endpoints = sa.Table(
    "endpoints",
    METADATA,
    sa.Column("name", Text, primary_key=True),
    sa.Column("active", sa.Boolean, nullable=False, comment="whether the configuration names it"),
    sa.Column("disabled_at", Key),
    sa.Column("disabled_because", Text),
    sa.Column("failing_since", Key),
    sa.Column("succeeded_at", Key),
    sa.Column("failed_at", Key),
    sa.Column("last_error", Text),
    sa.Column("resting_until", Key, comment="as its dispatcher has it; has a meaning only until then"),
    sa.Column(
        "by_api",
        sa.Boolean,
        nullable=False,
        server_default=sa.false(),
        comment="whether its options are those of api_endpoints: it has lanes only on streams that it may get",
    ),
)

# Endpoints made over the HTTP API. A removed one stays until the log has no lane of it: only the same tenant
# may take its name again.
api_endpoints = sa.Table(
    "api_endpoints",
    METADATA,
    sa.Column("name", Text, primary_key=True),
    sa.Column("tenant", Text),
    sa.Column("options", Text, nullable=False, comment="as JSON; empty once it is removed"),
    sa.Column("secrets", Text, nullable=False, comment="a JSON array, newest first"),
    sa.Column("audience", Text, nullable=False, comment="which streams it asks for: see log/audience.py"),
    sa.Column("within", Text, nullable=False, comment="a JSON array: globs of the rooms that it may get at most"),
    sa.Column("change", Key, nullable=False, comment="grows with every change: a reader asks for those after its last"),
    sa.Column("made_at", Key, nullable=False),
    sa.Column("expires_at", Key),
    sa.Column("removed_at", Key),
    sa.Column("made_by", Text, comment="the name of the token that made it; empty if none was required"),
)
sa.Index("api_endpoints_change", api_endpoints.c.change, unique=True)
_expiring = api_endpoints.c.expires_at.is_not(None)
sa.Index("api_endpoints_expiring", api_endpoints.c.expires_at, sqlite_where=_expiring, postgresql_where=_expiring)

# Finds the endpoints that may ask for a room without reading them all: by the beginnings of the room's name.
api_endpoint_rooms = sa.Table(
    "api_endpoint_rooms",
    METADATA,
    sa.Column("prefix", Text, primary_key=True, comment="of one of its globs: what comes before the first sign"),
    sa.Column("endpoint", Text, primary_key=True),
)
sa.Index("api_endpoint_rooms_endpoint", api_endpoint_rooms.c.endpoint)
