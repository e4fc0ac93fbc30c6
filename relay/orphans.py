"""Ends the streams of processes that died: what nobody else is left to say is said here."""

import asyncio
import logging

from relay.clock import Clock
from relay.errors import Fenced, OutboxError, StreamTaken
from relay.events.catalog import parse
from relay.events.envelope import StreamEvent
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from relay.speech.recovery import closing_events

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
            if events := closing_events(history, clock.now_ms(), last_sequence=log.last_sequence):
                await log.append(events)
            else:
                await log.abandon()
        except (Fenced, StreamTaken):
            continue  # somebody else was quicker, or its writer is back
        logger.warning("stream %s lost the process that recorded it; it is ended as worker_lost", stream_id)


async def _records(outbox: Outbox, stream_id: str) -> list[Record]:
    records: list[Record] = []
    while page := await outbox.history(stream_id, after=records[-1].sequence if records else 0):
        records += page
    return records


def _parsed(records: list[Record]) -> list[StreamEvent]:
    events = (parse(record.body) for record in records)
    return [event for event in events if isinstance(event, StreamEvent)]
