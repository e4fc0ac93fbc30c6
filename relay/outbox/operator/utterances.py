"""Finds an utterance with everything about it. The query runs on the caller's connection."""

from contextlib import suppress

import sqlalchemy as sa
from ulid import ULID

from relay.outbox.operator.delivery_queries import stream_deliveries
from relay.outbox.operator.event_pages import STREAM, Position, Selection, last_before
from relay.outbox.operator.views import EventView, UtteranceView
from relay.outbox.schema import events, streams

_SCANNED = 20_000
"""Events of the stream that are searched for those of the utterance."""
_MOST = 200
_EARLIER_MS = 3_600_000
"""How long before the time in its id an utterance may have begun, if the clock was set back since."""


def find_utterance(
    connection: sa.Connection, stream_id: str, utterance: str, which: Selection, *, now: int
) -> UtteranceView | None:
    """The utterance of this id; None if nothing of it may be seen. It has at most its first 200 events."""
    stream = connection.execute(
        sa.select(*STREAM, streams.c.last_sequence).where(streams.c.id == stream_id, which.streams())
    ).first()
    if stream is None or not which.stream(stream.room, stream.participant):
        return None
    # no index finds an utterance; the times in a stream ascend, and the id has that of its beginning
    begin = last_before(connection, stream.sid, stream.last_sequence, Position(_begun_at(utterance), 0, 0))
    rows = connection.execute(
        sa.select(events)
        .where(
            events.c.sid == stream.sid,
            events.c.sequence.between(begin + 1, begin + _SCANNED),
            events.c.utterance == utterance,
        )
        .order_by(events.c.sequence)
        .limit(_MOST)
    ).all()
    found = [EventView.of(stream, row) for row in rows if which.wants(row.type)]
    if not found:
        return None
    of_stream, tried = stream_deliveries(
        connection,
        stream.sid,
        (found[0].sequence, found[-1].sequence),
        endpoint=which.endpoint,
        since=found[0].emitted_at,
        now=now,
    )
    ids = {event.id for event in found}
    return UtteranceView(
        stream_id=stream.stream_id,
        room=stream.room,
        participant=stream.participant,
        events=tuple(found),
        deliveries=tuple(each for each in of_stream if each.event_id in ids),
        attempts=tuple(each for each in tried if each.event_id in ids),
    )


def _begun_at(utterance: str) -> int:
    with suppress(ValueError):
        return max(0, int(ULID.from_str(utterance.removeprefix("utt_")).timestamp * 1000) - _EARLIER_MS)
    return 0
