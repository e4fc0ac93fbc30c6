"""What the service says of itself in the log, for those who look from outside. One row, written every few seconds."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from relay.outbox.schema import service, streams, writers


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One run of ``speech-relay run``, as of ``seen_at``. Wall times are epoch milliseconds."""

    host: str
    """Names the machine, or the container, whose process ids ``pid`` is one of."""
    pid: int
    version: str
    started_at: int
    ready_at: int | None
    """When it was ready for the first time."""
    seen_at: int
    stopped_at: int | None
    """When it stopped in order; None while it runs, and for one that died."""
    waits_for: str
    """Why it is not ready now; empty where it is."""
    rooms_heard: int
    rooms_unheard: int
    """Rooms with people and without an agent of the relay."""
    cpu_load: float
    """Share of the processors in use, from 0 to 1."""
    cpu_limit: float
    """Share above which new rooms are refused."""
    refusing: bool
    """Whether new rooms are refused for load."""


@dataclass(frozen=True, slots=True)
class OpenStreams:
    """Tracks that are recorded now, by the relay or by agents that embed it."""

    recorded: int
    rooms: int
    """Different rooms that these are in."""
    orphaned: int
    """Streams that are open in the log though their process has gone; the relay ends them."""


def write_state(connection: sa.Connection, state: ServiceState) -> None:
    """Replace what the last run, or this one, has said before."""
    values = asdict(state)
    if not connection.execute(sa.update(service).values(values)).rowcount:
        connection.execute(sa.insert(service).values(values))


def read_state(connection: sa.Connection) -> ServiceState | None:
    """What the newest run has said; None where no relay has run with this log."""
    row = connection.execute(sa.select(service)).mappings().first()
    return None if row is None else ServiceState(**row)


def open_streams(connection: sa.Connection, now: int) -> OpenStreams:
    """How many tracks are recorded at ``now``."""
    alive = sa.exists().where(writers.c.writer == streams.c.writer, writers.c.lease_until > now)
    found = connection.execute(
        sa.select(streams.c.room_sid, alive.label("alive")).where(
            streams.c.closed_at.is_(None), streams.c.about.is_(None), streams.c.track_sid != ""
        )
    ).all()
    rooms = [row.room_sid for row in found if row.alive]
    return OpenStreams(recorded=len(rooms), rooms=len(set(rooms)), orphaned=len(found) - len(rooms))
