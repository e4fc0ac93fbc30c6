"""One participant, or one room, cannot take up the relay: tracks past the limits wait until others end."""

import asyncio
import inspect
from pathlib import Path
from typing import Any, cast

import pytest
from livekit import api, rtc
from livekit.agents import JobContext

from relay.capture.livekit.joining import LONGEST_STREAM, join_room
from relay.capture.livekit.room import RoomMembership
from relay.capture.livekit.stream_limits import Limits
from relay.clock import SystemClock
from relay.events.catalog import parse
from relay.events.operator import CaptureLimit, CaptureLimited
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.fake_listener import FakeListeners
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import Participant, participant, speech_wav
from tests.support.service import service

pytestmark = pytest.mark.live


async def test_a_third_track_of_a_participant_is_heard_once_one_has_ended(server: LiveKitServer) -> None:
    listeners, told = FakeListeners(), list[tuple[CaptureLimit, int, str | None]]()
    room = rtc.Room()
    membership = RoomMembership(
        room,
        listeners,
        ("standard",),
        SystemClock(),
        limits=Limits(tracks_per_participant=2, streams_per_room=3),
        on_limited=lambda *what: told.append(what),
    )
    await room.connect(server.url, server.token("relay", "many", hidden=True, kind="agent"), rtc.RoomOptions(False))
    membership.start()
    async with participant(server, "alice", "many") as alice, participant(server, "bob", "many") as bob:
        others = [await alice.publish(source=rtc.TrackSource.SOURCE_UNKNOWN) for _ in range(4)]
        microphone = await alice.publish()
        await listeners.until(lambda: len(listeners.of("alice")) == 2)
        assert told == [("max_tracks_per_participant", 2, alice.sid)], (
            "the limit of a participant must be reported once, with whom it concerns"
        )

        await alice.unpublish(others[0])
        await listeners.until(lambda: len(listeners.of("alice")) == 3)
        # the first two may have been opened in either order
        ended = next(each for each in listeners.of("alice") if each.track.sid == others[0].sid)
        instead = listeners.of("alice")[-1]
        await listeners.until(lambda: ended.end == "unpublished")
        assert instead.track.sid == microphone.sid, "microphones come first"

        first, second = await bob.publish(), await bob.publish(source=rtc.TrackSource.SOURCE_UNKNOWN)
        await listeners.until(lambda: len(listeners.of("bob")) == 1 and len(told) == 2)
        assert told[1] == ("max_streams_per_room", 3, None), "the limit of a room must be reported once"
        await alice.leave()
        await listeners.until(lambda: len(listeners.of("bob")) == 2)
        assert {listener.track.sid for listener in listeners.of("bob")} == {first.sid, second.sid}
        await membership.close("shutdown")
        await room.disconnect()
    assert len(told) == 2


async def test_of_what_was_there_before_microphones_are_heard_first(server: LiveKitServer) -> None:
    listeners, room, complete = FakeListeners(), rtc.Room(), asyncio.Event()

    def look(*_: object) -> None:
        if [len(each.track_publications) for each in room.remote_participants.values()] == [5, 5]:
            complete.set()

    async with participant(server, "alice", "before") as alice, participant(server, "bob", "before") as bob:
        microphones = set()
        for one in (alice, bob):
            for source in [rtc.TrackSource.SOURCE_UNKNOWN] * 4 + [rtc.TrackSource.SOURCE_MICROPHONE]:
                microphone = await one.publish(source=source)
            microphones.add(microphone.sid)
        room.on("track_published", look)
        relay = server.token("relay", "before", hidden=True, kind="agent")
        await room.connect(server.url, relay, rtc.RoomOptions(auto_subscribe=False))
        look()
        async with asyncio.timeout(30):
            await complete.wait()
        limits = Limits(tracks_per_participant=1, streams_per_room=2)
        membership = RoomMembership(room, listeners, ("standard",), SystemClock(), limits=limits)
        membership.start()
        await listeners.until(lambda: len(listeners.of("alice")) == len(listeners.of("bob")) == 1)
        heard = {listener.track.sid for who in ("alice", "bob") for listener in listeners.of(who)}
        assert heard == microphones, "microphones come first"
        await membership.close("shutdown")
        await room.disconnect()


async def test_a_name_as_long_as_an_event_does_not_make_every_event_as_long(server: LiveKitServer) -> None:
    listeners, room = FakeListeners(), rtc.Room()
    membership = RoomMembership(room, listeners, ("standard",), SystemClock())
    await room.connect(server.url, server.token("relay", "named", hidden=True, kind="agent"), rtc.RoomOptions(False))
    membership.start()
    alice = Participant(server, "alice", "named", name="Alice " * 50_000)
    await alice.join()
    await alice.publish()
    await listeners.until(lambda: len(listeners.of("alice")) == 1)
    assert len(next(iter(room.remote_participants.values())).name) == 300_000, "the server takes such a name"
    assert listeners.of("alice")[0].track.participant.name == ("Alice " * 100)[:255] + "…"
    await alice.leave()
    await membership.close("shutdown")
    await room.disconnect()


async def test_who_publishes_many_tracks_is_told_of_and_counted(server: LiveKitServer, tmp_path: Path) -> None:
    limit = "max_tracks_per_participant: 1"
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, capture=limit, detectors="stt: none") as relay,
        participant(server, "alice", "many") as alice,
    ):

        def of_type(name: str) -> list[Any]:
            return [event for event in map(parse, (r.body for r in receiver.answered)) if event.type == name]

        await relay.start()
        async with server.api() as client:
            attributes = {"tenant": "acme", "bio": "x" * 30_000}
            await client.room.update_participant(
                api.UpdateParticipantRequest(room="many", identity="alice", attributes=attributes)
            )
        for _ in range(5):
            await alice.publish()
        await receiver.wait_for(lambda: bool(of_type("stream.started") and of_type("capture.limited")), within=30)
        metric = 'speech_relay_capture_limited_total{limit="max_tracks_per_participant"}'
        async with asyncio.timeout(20):
            while relay.metrics().get(metric) != 1:  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.2)
        assert await relay.stop() == 0, relay.tail()
    (limited,) = of_type("capture.limited")
    assert isinstance(limited, CaptureLimited)
    assert limited.data.participant_sid == alice.sid
    (started,) = of_type("stream.started")
    assert started.participant.attributes == {"tenant": "acme"}
    assert started.participant.attributes_omitted == 1
    (line,) = relay.lines("max_tracks_per_participant")
    assert "alice" not in line, "an identity is in the log"


async def test_one_who_calls_herself_a_simulator_does_not_send_the_relay_away(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: none") as relay,
        participant(server, "alice", "simulated") as alice,
    ):

        def told_of(identity: str, name: str) -> list[Any]:
            told: list[Any] = [event for event in map(parse, (r.body for r in receiver.answered)) if event.type == name]
            return [event for event in told if event.participant.identity == identity]

        await relay.start()
        await alice.publish(speech_wav(), loop=True)
        async with participant(server, "mallory", "simulated") as mallory:
            async with server.api() as client:
                attributes = {"lk.simulator": "true"}  # she may also set them herself
                await client.room.update_participant(
                    api.UpdateParticipantRequest(room="simulated", identity="mallory", attributes=attributes)
                )
            await mallory.publish()
            await receiver.wait_for(
                lambda: bool(told_of("alice", "stream.started") and told_of("mallory", "stream.started")), within=30
            )
        await receiver.wait_for(lambda: bool(told_of("mallory", "stream.ended")), within=30)
        before = len(told_of("alice", "speech.ended"))
        await receiver.wait_for(
            lambda: len(told_of("alice", "speech.ended")) > before + 2 or bool(told_of("alice", "stream.ended")),
            within=60,
        )
        assert not told_of("alice", "stream.ended"), "the relay has left the room"
        assert await relay.stop() == 0, relay.tail()


class Job:
    """The part of a job that joins its room."""

    def __init__(self, server: LiveKitServer) -> None:
        self.room = rtc.Room()
        self._server = server

    async def connect(self, **_: Any) -> None:
        token = self._server.token("relay", "long", hidden=True, kind="agent")
        await self.room.connect(self._server.url, token, options=rtc.RoomOptions(auto_subscribe=False))
        self.room.on("participant_disconnected", self._on_simulator_disconnected)

    def _on_simulator_disconnected(self, _: rtc.RemoteParticipant) -> None: ...


async def test_a_data_stream_is_not_decompressed_without_end(server: LiveKitServer) -> None:
    assert "room.connect(self._info.url, self._info.token, options=room_options)" in inspect.getsource(
        JobContext.connect
    ), "what the relay adds an option to"
    job, readers = Job(server), asyncio.Queue[rtc.TextStreamReader]()
    await join_room(cast("JobContext", job))
    job.room.register_text_stream_handler("lk.transcription", lambda reader, _: readers.put_nowait(reader))
    async with asyncio.timeout(60), participant(server, "alice", "long") as alice:
        for text in ("so " * 1000, "so " * LONGEST_STREAM):
            await alice.room.local_participant.send_text(text, topic="lk.transcription")
        assert await (await readers.get()).read_all() == "so " * 1000
        with pytest.raises(rtc.data_stream.StreamError):
            await (await readers.get()).read_all()
    await job.room.disconnect()
