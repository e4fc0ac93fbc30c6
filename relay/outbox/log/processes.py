"""The relay's processes in the log: what each says of itself every second, and who has which duty of the fleet."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import sqlalchemy as sa

from relay.outbox.schema import duties, lanes, processes, streams, writers

Role = Literal["run", "worker", "dispatch"]
"""``run`` does both: it listens, as ``worker``, and delivers, as ``dispatch``."""

Duty = Literal["coverage", "retention"]
"""What one process of the fleet does for all."""

_KEPT_MS = 86_400_000
"""How long a process that stopped or died is remembered."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of the relay, from its start to its end, as of ``seen_at``. Wall times are epoch milliseconds."""

    id: str
    """Its own, never used again."""
    role: Role
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
    """Rooms with one of the relay's agents in them, as the process with the duty ``coverage`` sees them; else 0."""
    rooms_unheard: int
    """Rooms with people and without an agent of the relay, likewise."""
    jobs: int
    """Rooms that this process listens in."""
    lanes: int
    """Lanes that this process holds to deliver them."""
    cpu_load: float
    """CPU utilization, from 0 to 1."""
    cpu_limit: float
    """CPU utilization above which new rooms are refused."""
    refusing: bool
    """Whether new rooms are refused because of the load."""
    endpoints: tuple[str, ...]
    """Names of the endpoints in its configuration; none of a ``worker``, which sends nothing."""


Standing = Literal["ready", "starting", "not ready", "stopped", "lost"]

LOST_AFTER_MS = 6_000
"""A process that has not reported for this long has died, or hangs."""

_LOST_SHOWN_MS = 600_000
"""How long a process that died is shown beside those that run."""


def standing(state: ProcessState, now_ms: int, *, gone: bool = False) -> Standing:
    """In a word, whether a process works. ``gone``: whether it is known to have ended."""
    if state.stopped_at is not None:
        return "stopped"
    if gone or now_ms - state.seen_at > LOST_AFTER_MS:
        return "lost"
    if state.ready_at is None:
        return "starting"
    return "not ready" if state.waits_for else "ready"


def running_or_lost(states: Iterable[ProcessState], now_ms: int) -> tuple[ProcessState, ...]:
    """The processes that run, and those that died in the last ten minutes."""
    return tuple(state for state in states if state.stopped_at is None and now_ms - state.seen_at <= _LOST_SHOWN_MS)


@dataclass(frozen=True, slots=True)
class OpenStreams:
    """Tracks that are being recorded, by the relay or by agents that embed it."""

    recorded: int
    rooms: int
    """Number of rooms with these tracks."""
    orphaned: int
    """Streams still open in the log after their process died; the relay ends them."""


@dataclass(frozen=True, slots=True)
class FleetState:
    """The processes of the relay on a log, and what they record."""

    newest: ProcessState | None
    """The newest one, running or not; None if none has run in the last day."""
    processes: tuple[ProcessState, ...]
    """Those that run, and those that died in the last ten minutes; the newest first."""
    duties: Mapping[Duty, str]
    """Which process has which duty, by its id."""
    streams: OpenStreams
    held_up: Mapping[str, int]
    """How many lanes with something to send a process holds that does not report any more, by its id: no other may send
    them until its leases are over."""


def write_process(connection: sa.Connection, state: ProcessState) -> None:
    """Write what a process says of itself. Its first report removes those that ended long ago."""
    values = {**asdict(state), "endpoints": json.dumps(state.endpoints)}
    if not connection.execute(sa.update(processes).where(processes.c.id == state.id).values(values)).rowcount:
        connection.execute(sa.delete(processes).where(processes.c.seen_at < state.seen_at - _KEPT_MS))
        connection.execute(sa.insert(processes).values(values))


def read_processes(connection: sa.Connection) -> list[ProcessState]:
    """Every process that is remembered, the newest first."""
    rows = connection.execute(sa.select(processes).order_by(processes.c.started_at.desc(), processes.c.id)).mappings()
    return [ProcessState(**{**row, "endpoints": tuple(json.loads(row["endpoints"]))}) for row in rows]


def note_endpoints(connection: sa.Connection, process: str, names: Collection[str]) -> None:
    """Write which endpoints the configuration of a process has, if the process has reported already."""
    mine = sa.update(processes).where(processes.c.id == process)
    connection.execute(mine.values(endpoints=json.dumps(sorted(names))))


def endpoints_of_others(connection: sa.Connection, process: str) -> set[str]:
    """The endpoints in the configurations of the other processes that deliver, and have not stopped in order."""
    others = sa.select(processes.c.endpoints).where(processes.c.id != process, processes.c.stopped_at.is_(None))
    newest = sa.select(sa.func.max(processes.c.seen_at)).scalar_subquery()
    found = connection.execute(others.where(processes.c.seen_at > newest - _LOST_SHOWN_MS)).scalars()
    return {name for names in found for name in json.loads(names)}


def fleet_state(connection: sa.Connection, now: int) -> FleetState:
    """The processes, duties and streams at ``now``."""
    every = read_processes(connection)
    shown = running_or_lost(every, now)
    silent = [state.id for state in shown if standing(state, now) == "lost"]
    return FleetState(
        every[0] if every else None,
        shown,
        held_duties(connection, now),
        open_streams(connection, now),
        held_up(connection, silent, now) if silent else {},
    )


def hold_duty(connection: sa.Connection, duty: Duty, process: str, now: int, until: int, gone: Collection[str]) -> bool:
    """Take a duty that no process has or that a process has which is ``gone``, or keep it, until then.

    Returns whether the process has it.
    """
    free = (duties.c.owner == process) | (duties.c.until <= now) | duties.c.owner.in_(gone)
    taken = sa.update(duties).where(duties.c.name == duty, free).values(owner=process, until=until)
    return bool(connection.execute(taken).rowcount)


def leave_duties(connection: sa.Connection, process: str) -> None:
    """Give up every duty: another process may take it at once."""
    connection.execute(sa.update(duties).where(duties.c.owner == process).values(until=0))


def held_duties(connection: sa.Connection, now: int) -> dict[Duty, str]:
    """Which process has which duty now."""
    held = sa.select(duties.c.name, duties.c.owner).where(duties.c.until > now)
    return {row.name: row.owner for row in connection.execute(held)}


def held_up(connection: sa.Connection, owners: Collection[str], now: int) -> dict[str, int]:
    """How many lanes with something to send each of these processes holds at ``now``, of those that hold any."""
    leased = lanes.c.owner.in_(owners) & (lanes.c.next_at > now)
    found = (
        sa.select(lanes.c.owner, sa.func.count().label("held"))
        .join(streams, streams.c.sid == lanes.c.sid)
        .where(leased, streams.c.last_sequence > lanes.c.cursor)
        .group_by(lanes.c.owner)
    )
    return {row.owner: row.held for row in connection.execute(found)}


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
