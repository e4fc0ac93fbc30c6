"""Ends the streams of processes that died: what nobody else is left to say is said here."""

import asyncio
import logging
import os
from collections.abc import Sequence

from relay.clock import Clock
from relay.errors import Fenced, OutboxError, StreamTaken
from relay.events.catalog import parse
from relay.events.envelope import Event, LoggedEvent, RoomEvent, StreamEvent
from relay.events.stream import StreamEnded
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.speech.recovery import closing_events
from relay.speech.room_emission import closing_room_events

logger = logging.getLogger(__name__)

EVERY_S = 0.5

_JOB = "job-"


def job_name(pid: int) -> str:
    """What a job process is called in the log. The service goes by it to see at once that it died."""
    return f"{_JOB}{pid}"


async def close_orphans(outbox: Outbox, clock: Clock, *, own_jobs: bool = False) -> None:
    """Until it is cancelled, do :func:`close_orphans_once` again and again."""
    while True:
        try:
            await close_orphans_once(outbox, clock, own_jobs=own_jobs)
        except OutboxError as error:
            logger.warning("the streams of lost processes cannot be ended yet: %s", error)
        await asyncio.sleep(EVERY_S)


async def close_orphans_once(outbox: Outbox, clock: Clock, *, own_jobs: bool = False) -> None:
    """End the streams whose writers have been silent for longer than their lease.

    ``own_jobs``: the jobs in this log are processes of the caller's machine, as the caller sees it, and one that is
    gone is not waited for. That is so for the service, of which a log has one; not for an agent in another container.

    Raises ``OutboxError`` when the log cannot be used.
    """
    if own_jobs:
        await _end_leases_of_the_gone(outbox)
    for stream_id in await outbox.orphans():
        try:
            log = await outbox.take_over(stream_id)
            history = await asyncio.to_thread(_parsed, await _records(outbox, stream_id))
            events = _missing(history, clock.now_ms(), log.last_sequence)
            if events:
                await log.append(events)
            if not events or not isinstance(events[-1], StreamEnded):
                await log.abandon()  # a stream that never began and a room's own have no last event
        except (Fenced, StreamTaken):
            continue  # somebody else was quicker, or its writer is back
        logger.warning("stream %s lost the process that recorded it; it is ended as worker_lost", stream_id)


async def _end_leases_of_the_gone(outbox: Outbox) -> None:
    if gone := [name for name in await outbox.writers() if _is_gone(name)]:
        await outbox.end_leases(gone)


def _is_gone(name: str) -> bool:
    pid = name.removeprefix(_JOB)
    if pid == name or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


async def _records(outbox: Outbox, stream_id: str) -> list[Record]:
    records: list[Record] = []
    while page := await outbox.history(stream_id, after=records[-1].sequence if records else 0):
        records += page
    return records


def _parsed(records: list[Record]) -> list[Event]:
    return [parse(record.body) for record in records]


def _missing(history: list[Event], now: int, last_sequence: int) -> Sequence[LoggedEvent]:
    of_a_room = [event for event in history if isinstance(event, RoomEvent)]
    if of_a_room:
        return closing_room_events(of_a_room, now, last_sequence=last_sequence)
    of_a_track = [event for event in history if isinstance(event, StreamEvent)]
    return closing_events(of_a_track, now, last_sequence=last_sequence)
