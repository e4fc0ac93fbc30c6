"""Ends the streams of processes that died, in their place."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from relay.app.status import exists
from relay.clock import Clock
from relay.errors import Fenced, OutboxError, StreamTaken
from relay.events.catalog import parse
from relay.events.envelope import Event, LoggedEvent, RoomEvent, StreamEvent
from relay.events.stream import StreamEnded
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.speech.recovery import closing_events, closing_room_events
from relay.telemetry.log_dedup import Outage

logger = logging.getLogger(__name__)

EVERY_S = 0.5

THAW_S = 2.0
"""A process delayed this long may have been frozen together with the others (a paused container): all of them get the
time of a heartbeat before any is considered dead."""

_JOB = "job-"


def job_name(process: str, pid: int | None) -> str:
    """A job process's name in the log, by which its worker detects at once that it died or hangs.

    ``process`` is the process of the relay that it belongs to: in a container, those of the next one have the same ids.
    Without ``pid`` it is the beginning of the names of all of them.
    """
    return f"{_JOB}{process}-{'' if pid is None else pid}"


@dataclass(frozen=True, slots=True)
class OwnJobs:
    """This process's jobs, and what it knows about the jobs of others."""

    process: str
    kill: Callable[[int], bool]
    """Kill the job process with this id; False if it does not exist."""
    is_here: Callable[[str], bool] = lambda _: True
    """Whether the jobs of a process of the relay run, or ran, on this machine."""
    is_lost: Callable[[str], bool] = lambda _: False
    """Whether a process of another machine was lost together with its jobs."""


async def close_orphans(
    outbox: Outbox,
    clock: Clock,
    *,
    own_jobs: OwnJobs | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Repeat :func:`close_orphans_once` until cancelled."""
    looked, outage = clock.steady_ms(), Outage(logger, "the streams of lost processes cannot be ended yet")
    while True:
        if clock.steady_ms() - looked > THAW_S * 1000:
            await sleep(THAW_S)
        try:
            await close_orphans_once(outbox, clock, own_jobs=own_jobs)
        except OutboxError as error:
            outage.failed(error)
        else:
            outage.over()
        looked = clock.steady_ms()
        await sleep(EVERY_S)


async def close_orphans_once(outbox: Outbox, clock: Clock, *, own_jobs: OwnJobs | None = None) -> None:
    """End the streams whose writers have been silent for longer than their lease.

    With ``own_jobs``, jobs that died on the caller's machine or together with another one are not waited for, and a
    hung one of its own is killed, because its room would otherwise be deaf until LiveKit does that.

    Raises ``OutboxError`` if the log cannot be used.
    """
    await outbox.append_left()  # first: nothing follows the end of a stream
    beats: dict[str, int] = {}
    if own_jobs is not None:
        beats |= await _end_leases_of_the_gone(outbox, own_jobs)
        await _kill_the_hung(outbox, own_jobs)
    if orphans := await outbox.orphans():
        beats = await outbox.last_beats() | beats
    for stream_id in orphans:
        try:
            log = await outbox.take_over(stream_id)
            history = await asyncio.to_thread(_parsed, await _records(outbox, stream_id))
            events = _missing(history, clock.now_ms(), log.last_sequence, beats.get(stream_id))
            if events:
                await log.append(events)
            if not events or not isinstance(events[-1], StreamEnded):
                await log.abandon()  # a stream that never began and a room's own have no last event
        except (Fenced, StreamTaken):
            continue  # another process was faster, or its writer is back
        logger.warning("stream %s lost the process that recorded it; it is ended as worker_lost", stream_id)


async def _end_leases_of_the_gone(outbox: Outbox, own_jobs: OwnJobs) -> dict[str, int]:
    """The earlier result of ``Outbox.last_beats``, which ending the leases removes; empty if no writer is gone."""
    gone = [name for name in await outbox.writers() if _is_gone(name, own_jobs)]
    if not gone:
        return {}
    beats = await outbox.last_beats()
    await outbox.end_leases(gone)
    return beats


async def _kill_the_hung(outbox: Outbox, own_jobs: OwnJobs) -> None:
    for name in await outbox.silent():
        pid = _pid(name)
        if pid is not None and name == job_name(own_jobs.process, pid) and own_jobs.kill(pid):
            logger.error("job process %d hangs; it is killed, and its room heard by another one", pid)


def _pid(name: str) -> int | None:
    pid = name.rpartition("-")[2]
    return int(pid) if name.startswith(_JOB) and pid.isdecimal() else None


def _process(name: str) -> str:
    return name.removeprefix(_JOB).rpartition("-")[0]


def _is_gone(name: str, own_jobs: OwnJobs) -> bool:
    pid, process = _pid(name), _process(name)
    if pid is None:
        return False
    if not own_jobs.is_here(process):
        return own_jobs.is_lost(process)
    return not exists(pid)


async def _records(outbox: Outbox, stream_id: str) -> list[Record]:
    records: list[Record] = []
    while page := await outbox.history(stream_id, after=records[-1].sequence if records else 0):
        records += page
    return records


def _parsed(records: list[Record]) -> list[Event]:
    return [parse(record.body) for record in records]


def _missing(history: list[Event], now: int, last_sequence: int, last_beat: int | None) -> Sequence[LoggedEvent]:
    of_a_room = [event for event in history if isinstance(event, RoomEvent)]
    if of_a_room:
        return closing_room_events(of_a_room, now, last_sequence=last_sequence)
    of_a_track = [event for event in history if isinstance(event, StreamEvent)]
    return closing_events(of_a_track, now, last_sequence=last_sequence, last_beat=last_beat)
