"""Ends the streams of processes that died: what nobody else is left to say is said here."""

import asyncio
import logging
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

EVERY_S = 1.0


async def close_orphans(outbox: Outbox, clock: Clock) -> None:
    """Until it is cancelled, end the streams whose writers have been silent for longer than their lease."""
    while True:
        try:
            await close_orphans_once(outbox, clock)
        except OutboxError as error:
            logger.warning("the streams of lost processes cannot be ended yet: %s", error)
        await asyncio.sleep(EVERY_S)


async def close_orphans_once(outbox: Outbox, clock: Clock) -> None:
    """End every stream that has lost its writer by now. Raises ``OutboxError`` when the log cannot be used."""
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
