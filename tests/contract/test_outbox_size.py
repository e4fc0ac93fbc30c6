"""An event that is too large costs itself, and nothing else: neither its stream nor its number."""

import asyncio
import logging

import pytest

from relay.app.delivery import delivering
from relay.clock import SystemClock
from relay.config.endpoint import Endpoint
from relay.events.catalog import parse
from relay.events.envelope import RoomEvent, RoomStreamRef, StreamEvent
from relay.events.omission import EventTooLarge, OverlapTooLarge
from relay.events.samples import SAMPLES
from relay.events.speech import OverlapEnded
from relay.events.stream import StreamEnded
from relay.outbox.log.stream_log import LARGE_BODY, LARGEST_BODY
from relay.outbox.records import NewStream
from tests.support.builders import durable, ended, interim, new_stream, run, stream_id
from tests.support.dispatch.receiver import receiving
from tests.support.outbox.outbox_store import Store


async def logged(store: Store, *events: StreamEvent) -> list[StreamEvent]:
    """What the log makes of them, all in one append."""
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await log.append(events)
    parsed = [parse(record.body) for record in await outbox.history(log.id)]
    return [event for event in parsed if isinstance(event, StreamEvent)]


def with_attributes(event: StreamEvent, size: int) -> StreamEvent:
    adorned = event.participant.model_copy(update={"attributes": {"notes": "x" * size}})
    return event.model_copy(update={"participant": adorned})


async def test_it_is_replaced_in_its_own_place_and_the_stream_goes_on(store: Store) -> None:
    huge = durable(1, 2, size=LARGEST_BODY)
    before, replaced, after = await logged(store, durable(1, 1), huge, durable(1, 3))
    assert isinstance(replaced, EventTooLarge)
    envelope = {"room", "participant", "stream", "utterance", "timing", "source", "timestamp", "id"}
    assert replaced.model_dump(include=envelope) == huge.model_dump(include=envelope)
    assert replaced.data.model_dump() == {
        "type": "stt.speech_started",
        "bytes": len(huge.model_dump_json()),
        "limit": LARGEST_BODY,
    }
    assert [before, after] == [durable(1, 1), durable(1, 3)]


async def test_exactly_the_limit_is_let_through_and_a_byte_more_is_not(store: Store) -> None:
    room = LARGEST_BODY - len(durable(1, 1).model_dump_json())
    fits, too_large = await logged(store, durable(1, 1, size=room), durable(1, 2, size=room + 1))
    assert fits == durable(1, 1, size=room)
    assert isinstance(too_large, EventTooLarge)


async def test_an_interim_is_replaced_too_and_not_lost_among_newer_ones(store: Store) -> None:
    huge = interim(1, 1, revision=1, text="said " * LARGEST_BODY)
    replaced, _ = await logged(store, huge, interim(1, 2, revision=2))
    assert isinstance(replaced, EventTooLarge)
    assert replaced.utterance == huge.utterance


async def test_attributes_of_300_kb_cost_themselves_and_not_the_words(store: Store) -> None:
    final = durable(1, 1)
    (kept,) = await logged(store, with_attributes(final, 300_000))
    assert kept == final.model_copy(update={"participant": kept.participant})
    assert kept.participant.attributes == {}


async def test_attributes_that_keep_even_the_replacement_too_large_are_left_out_of_it(store: Store) -> None:
    (replaced,) = await logged(store, with_attributes(durable(1, 1, size=300_000), 300_000))
    assert isinstance(replaced, EventTooLarge)
    assert replaced.participant.attributes == {}
    assert replaced.data.bytes > 600_000


async def test_a_stream_whose_last_event_is_too_large_ends_all_the_same(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    last = ended(1, 2)
    huge = last.model_copy(update={"room": last.room.model_copy(update={"name": "x" * LARGEST_BODY})})
    assert isinstance(huge, StreamEnded)
    await log.append([durable(1, 1)])
    await log.append([huge])
    assert [(one.type, one.closes) for one in await outbox.history(log.id)] == [
        ("stt.speech_started", False),
        ("event.too_large", True),
    ]
    with pytest.raises(ValueError, match="closed"):
        log.append([durable(1, 3)])
    await outbox.open_stream(new_stream(2, track="TR_1"))


async def test_an_overlap_with_too_many_speakers_does_not_cost_the_room_its_stream(store: Store) -> None:
    sample = SAMPLES["overlap.ended"]
    assert isinstance(sample, OverlapEnded)
    crowd = sample.data.model_copy(update={"speakers": sample.data.speakers * 2000})
    in_room = {"stream": RoomStreamRef(id=stream_id(1), sequence=1)}
    outbox = await store.open()
    log = await outbox.open_stream(NewStream(stream_id(1), "RM_1", "room", "", ""))
    await log.append([sample.model_copy(update={**in_room, "data": crowd})])
    await log.append([sample.model_copy(update={"stream": RoomStreamRef(id=stream_id(1), sequence=2)})])
    replaced, after = [parse(record.body) for record in await outbox.history(log.id)]
    assert isinstance(replaced, OverlapTooLarge)
    assert isinstance(replaced, RoomEvent)
    assert (replaced.data.type, replaced.stream.sequence) == ("overlap.ended", 1)
    assert isinstance(after, OverlapEnded)


async def test_the_operator_hears_of_it_once_a_stream_and_never_what_was_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await store.open()
    first, second = [await outbox.open_stream(new_stream(number)) for number in (1, 2)]
    with caplog.at_level(logging.WARNING, "relay.outbox"):
        for sequence in range(1, 4):
            await first.append([interim(1, sequence, revision=sequence, text="secret" * LARGE_BODY)])
        for sequence in range(4, 7):
            await first.append([interim(1, sequence, revision=sequence, text="secret" * LARGEST_BODY)])
        await second.append([interim(2, 1, revision=1, text="secret" * LARGE_BODY)])
    assert [(record.levelname, record.message.split(" of ")[0]) for record in caplog.records] == [
        ("WARNING", f"stream {stream_id(1)}: transcript.interim"),
        ("ERROR", f"stream {stream_id(1)}: transcript.interim"),
        ("WARNING", f"stream {stream_id(2)}: transcript.interim"),
    ]
    assert "receivers may refuse what is over 20000" in caplog.messages[0]
    assert "over the limit of 262144: it goes without the participant's attributes, or is" in caplog.messages[1]
    assert "secret" not in caplog.text, "what was said is in the log"


async def test_the_receiver_is_told_and_nothing_waits_behind_it(store: Store) -> None:
    async with receiving() as receiver:
        outbox = await store.open()
        store.clock.at = SystemClock().now_ms()
        target = {"name": "crm", "url": receiver.url, "signing": "none", "events": ["*"]}
        async with delivering(outbox, [Endpoint.model_validate(target)], SystemClock(), grace_s=5):
            async with asyncio.timeout(30):
                while "crm" not in await outbox.lanes.unsettled():
                    pass
            log = await outbox.open_stream(new_stream())
            await log.append([durable(1, 1), durable(1, 2, size=LARGEST_BODY), *run(1, 3, 4), ended(1, 5)])
            requests = await receiver.wait(5)
        told = [request.json() for request in requests]
        assert [(one["type"], one["stream"]["sequence"]) for one in told] == [
            ("stt.speech_started", 1),
            ("event.too_large", 2),
            ("stt.speech_started", 3),
            ("stt.speech_started", 4),
            ("stream.ended", 5),
        ]
        assert told[1]["data"]["type"] == "stt.speech_started"
        assert [request.headers["relay-previous-sequence"] for request in requests] == ["0", "1", "2", "3", "4"]
