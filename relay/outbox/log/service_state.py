"""The service's status in the log, for outside readers. One row, written every few seconds."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from relay.outbox.schema import service, streams, writers


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One run of ``speech-relay run``, as of ``seen_at``. Wall times are epoch milliseconds."""

    host: str
    """The machine or container in which ``pid`` is a process id."""
    pid: int
    version: str
    started_at: int
    ready_at: int | None
    """When it was first ready."""
    seen_at: int
    stopped_at: int | None
    """When it stopped in order; None while it runs, and if it died."""
    waits_for: str
    """Why it is not ready now; empty if it is."""
    rooms_heard: int
    rooms_unheard: int
    """Rooms with people and without an agent of the relay."""
    cpu_load: float
    """CPU utilization, from 0 to 1."""
    cpu_limit: float
    """CPU utilization above which new rooms are refused."""
    refusing: bool
    """Whether new rooms are refused because of the load."""


@dataclass(frozen=True, slots=True)
class OpenStreams:
    """Tracks that are being recorded, by the relay or by agents that embed it."""

    recorded: int
    rooms: int
    """Number of rooms with these tracks."""
    orphaned: int
    """Streams still open in the log after their process died; the relay ends them."""


def write_state(connection: sa.Connection, state: ServiceState) -> None:
    """Replace the status of the last run, or of this one."""
    values = asdict(state)
    if not connection.execute(sa.update(service).values(values)).rowcount:
        connection.execute(sa.insert(service).values(values))


def read_state(connection: sa.Connection) -> ServiceState | None:
    """The status of the newest run; None if no relay has run with this log."""
    row = connection.execute(sa.select(service)).mappings().first()
    return None if row is None else ServiceState(**row)


def open_streams(connection: sa.Connection, now: int) -> OpenStreams:
    """How many tracks are being recorded at ``now``."""
    alive = sa.exists().where(writers.c.writer == streams.c.writer, writers.c.lease_until > now)
    found = connection.execute(
        sa.select(streams.c.room_sid, alive.label("alive")).where(
            streams.c.closed_at.is_(None), streams.c.about.is_(None), streams.c.track_sid != ""
        )
    ).all()
    rooms = [row.room_sid for row in found if row.alive]
    return OpenStreams(recorded=len(rooms), rooms=len(set(rooms)), orphaned=len(found) - len(rooms))
