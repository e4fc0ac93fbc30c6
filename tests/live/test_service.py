"""The whole line: people speak in rooms of a real LiveKit server, and a receiver is told who, when and what."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

from relay.events.stream import StreamStartedData
from relay.telemetry.traces import trace_ids
from tests.support.audio.story import assert_whole, of, started, streams
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import Service, service
from tests.support.telemetry.collector import Collector, collecting

pytestmark = [pytest.mark.live, pytest.mark.speech]

HEARD_WITHIN_S = 60.0

WORDS_OF = {
    "bob": {"best", "worst", "times", "age", "wisdom", "epoch", "belief", "season"},
    "others": {"ever", "tried", "failed", "matter", "try", "again", "better"},
}
"""What is said in two_cities.wav and in beckett.wav, and not in the other one."""


def told_of(receiver: Receiver, identity: str, event_type: str) -> int:
    """How many events of a type about somebody have arrived."""
    return sum(stream.types().count(event_type) for stream in of(streams(receiver), identity))


async def until(receiver: Receiver, identity: str, event_type: str, *, count: int = 1) -> None:
    """Until so many events of a type about somebody have arrived."""
    await receiver.wait_for(lambda: told_of(receiver, identity, event_type) >= count, within=HEARD_WITHIN_S)


def assert_traced(collector: Collector, receiver: Receiver) -> None:
    """A final's trace goes from the room's process, over the service, into the receiver."""
    final = next(each for each in receiver.answered if each.json()["type"] == "transcript.final")
    trace, _ = trace_ids(final.json()["id"])
    assert [span.name for span in collector.of(trace)] == ["transcript.final", "POST receiver"]
    assert final.headers["traceparent"].startswith(f"00-{trace:032x}-")


def counted_to_the_end(relay: Service) -> dict[str, float]:
    """The metrics, once nothing is heard any more. A room's process reports every second."""
    until = time.monotonic() + HEARD_WITHIN_S
    while (metrics := relay.metrics())["speech_relay_streams_heard"] and time.monotonic() < until:
        time.sleep(0.1)
    return metrics


def assert_counted(metrics: dict[str, float]) -> None:
    """What the processes of the rooms have counted has reached the service's page."""

    def value(name: str) -> float:
        return metrics[f"speech_relay_{name}"]

    assert (value("rooms_joined_total"), value("streams_started_total")) == (2, 3)
    assert value('streams_ended_total{reason="disconnected"}') >= 2
    assert (value("streams_heard"), value("participants_heard")) == (0, 0)
    assert value('events_total{type="transcript.final"}') >= 3
    assert value('detections_total{detector="vad",kind="started"}') >= 3
    assert value('stt_time_to_final_seconds_count{provider="moonshine/tiny-en"}') >= 3
    assert value('log_transaction_seconds_count{process="room"}') > 0
    assert value('deliveries_total{endpoint="receiver",result="delivered"}') >= value("append_seconds_count") / 2
    assert value('endpoint_breaker_open{endpoint="receiver"}') == 0
    assert value('endpoint_oldest_pending_seconds{endpoint="receiver"}') < 60


async def test_two_rooms_one_of_them_older_than_the_relay(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        collecting() as collector,
        receiving() as receiver,
        service(server, receiver.url, tmp_path, variables={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}) as relay,
    ):
        async with participant(server, "early", "before") as early:
            await early.publish(speech_wav(), loop=True)
            await relay.start()
            await until(receiver, "early", "transcript.final")

            async with participant(server, "alice", "after") as alice, participant(server, "bob", "after") as bob:
                microphone = await alice.publish(speech_wav(), loop=True)
                await bob.publish(speech_wav("two_cities"), loop=True)
                await until(receiver, "alice", "transcript.final")
                await until(receiver, "bob", "transcript.final")

                # Mute while she is speaking, so that there is speech to cut.
                await until(receiver, "alice", "speech.started", count=told_of(receiver, "alice", "speech.started") + 1)
                alice.mute(microphone)
                await until(receiver, "alice", "microphone.muted")
                alice.unmute(microphone)
                await until(receiver, "alice", "microphone.unmuted")

                # Leave in mid-word.
                await until(receiver, "bob", "speech.started", count=told_of(receiver, "bob", "speech.started") + 1)
                await bob.leave()
                await until(receiver, "bob", "stream.ended")
        await until(receiver, "alice", "stream.ended")
        await until(receiver, "early", "stream.ended")
        metrics = await asyncio.to_thread(counted_to_the_end, relay)
        assert await relay.stop() == 0, relay.tail()
        assert_counted(metrics)
        assert_traced(collector, receiver)
        (line,) = relay.lines("Stopped listening in room after after ")
        record = json.loads(line)
        outages = told_of(receiver, "alice", "source.failed") + told_of(receiver, "bob", "source.failed")
        assert (record["room"], record["tracks"], record["outages"]) == ("after", 2, outages)
        assert record["level"] == "info"
        assert record["finals"] >= 2
        assert record["listened_ms"] > 1_000
        assert [relay.lines(identity) for identity in ("alice", "bob")] == [[], []], "no identity is logged"

        everyone = streams(receiver)
        assert sorted((stream.room, stream.identity) for stream in everyone) == [
            ("after", "alice"),
            ("after", "bob"),
            ("before", "early"),
        ], "each track is heard once"
        for stream in everyone:
            assert_whole(stream)
            assert stream.duplicates == 0, "an event arrived twice"
            said = WORDS_OF["bob" if stream.identity == "bob" else "others"]
            assert said & set(re.findall("[a-z]+", stream.text.lower())), stream.text

        (alice_heard,) = of(everyone, "alice")
        assert "muted" in alice_heard.ends, "speech that a mute cuts off must end with it"
        assert alice_heard.types().count("microphone.muted") == alice_heard.types().count("microphone.unmuted") == 1
        assert alice_heard.end is not None
        assert alice_heard.end.data.reason == "disconnected", "the stream must say that the participant left"
        began = started(alice_heard).data
        assert began.missed_ms is not None
        assert 0 <= began.missed_ms <= since_join_ms(began) + 1, "no more can be missed than there was"

        (bob_heard,) = of(everyone, "bob")
        assert bob_heard.ends[-1] == "disconnected"
        (early_heard,) = of(everyone, "early")
        began = started(early_heard).data
        assert began.missed_ms == pytest.approx(since_join_ms(began), abs=1), "nobody saw when it was published"


def since_join_ms(began: StreamStartedData) -> float:
    """From the participant's join to the first frame that came."""
    assert began.joined_at is not None
    assert began.first_frame_at is not None
    return (began.first_frame_at - began.joined_at).total_seconds() * 1000


async def test_sigterm_ends_streams_as_shutdown_and_delivers_what_was_said(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path) as relay:
        await relay.start()
        async with participant(server, "alice", "room") as alice:
            await alice.publish(speech_wav(), loop=True)
            await until(receiver, "alice", "speech.started", count=2)
            assert await relay.stop() == 0, relay.tail()
        (heard,) = streams(receiver)
        assert_whole(heard)
        assert heard.end is not None
        assert heard.end.data.reason == "shutdown", "SIGTERM must end the streams as shutdown"
