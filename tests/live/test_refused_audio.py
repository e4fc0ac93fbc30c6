"""Audio that LiveKit withholds, or that is encrypted end to end: said at once, with the reason, never silence."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc

from relay.capture.audio.source import Track
from relay.capture.livekit.room import RoomMembership
from relay.clock import SystemClock
from relay.events.catalog import parse
from relay.events.stream import SourceFailed, SourceRecovered, StreamEnded, StreamStarted
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.fake_listener import FakeListener, FakeListeners
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import Participant, participant, speech_wav
from tests.support.service import service

pytestmark = pytest.mark.live

WITHIN_S = 60.0


def of_type(receiver: Receiver, name: str) -> list[Any]:
    return [event for event in map(parse, (r.body for r in receiver.answered)) if event.type == name]


async def until(receiver: Receiver, event_type: str, at_least: int = 1) -> None:
    await receiver.wait_for(lambda: len(of_type(receiver, event_type)) >= at_least, within=WITHIN_S)


def permit(somebody: Participant, everybody: bool) -> None:
    somebody.room.local_participant.set_track_subscription_permissions(
        allow_all_participants=everybody, participant_permissions=[]
    )


async def test_an_encrypted_track_is_told_as_encrypted_at_once(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: none") as relay,
    ):
        await relay.start()
        alice = Participant(server, "alice", "secret")
        keys = rtc.KeyProviderOptions(shared_key=b"a key that the relay does not have")
        await alice.join(encryption=rtc.E2EEOptions(key_provider_options=keys))
        await alice.publish(speech_wav(), loop=True)
        await until(receiver, "source.failed")
        metric = 'speech_relay_sources_failed_total{detector="audio",reason="encrypted"}'
        async with asyncio.timeout(20):
            while relay.metrics().get(metric) != 1:  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.2)
        await alice.leave()
        await until(receiver, "stream.ended")
        assert await relay.stop() == 0, relay.tail()
    events = [request.event for request in receiver.answered]
    started, failed, ended = events
    assert isinstance(started, StreamStarted)
    assert started.data.first_frame_at is None
    assert isinstance(failed, SourceFailed)
    assert (failed.data.detector, failed.data.reason) == ("audio", "encrypted"), (
        "receivers must be told that the track is encrypted"
    )
    assert (failed.data.failed_at - started.data.subscribed_at).total_seconds() < 1
    assert isinstance(ended, StreamEnded)
    assert (ended.data.reason, ended.data.heard_ms) == ("disconnected", 0)
    (line,) = relay.lines("end-to-end encrypted")
    assert "alice" not in line


async def test_a_track_that_may_not_be_heard_any_more_is_told_as_not_permitted(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors="stt: none") as relay,
        participant(server, "alice", "private") as alice,
    ):
        await relay.start()
        microphone = await alice.publish(speech_wav("two_cities"), loop=True)
        await until(receiver, "speech.started")
        permit(alice, False)
        await until(receiver, "source.failed")
        (failed,) = of_type(receiver, "source.failed")
        assert isinstance(failed, SourceFailed)
        assert (failed.data.detector, failed.data.reason) == ("audio", "not_permitted"), (
            "receivers must be told that the audio is not permitted"
        )

        alice.mute(microphone)
        alice.unmute(microphone)
        await until(receiver, "microphone.unmuted")
        assert of_type(receiver, "source.recovered") == [], "no audio has come"

        heard = len(of_type(receiver, "speech.started"))
        permit(alice, True)
        await until(receiver, "source.recovered")
        await until(receiver, "speech.started", heard + 1)
        await alice.unpublish(microphone)
        await until(receiver, "stream.ended")
        assert await relay.stop() == 0, relay.tail()
    (recovered,) = of_type(receiver, "source.recovered")
    assert isinstance(recovered, SourceRecovered)
    assert recovered.data.reason == "not_permitted"
    assert (recovered.data.missed_ms or 0) > 0, "receivers must be told how much audio was missed"
    assert len(of_type(receiver, "stream.started")) == len(of_type(receiver, "stream.ended")) == 1
    assert len(of_type(receiver, "source.failed")) == 1, "an outage must be reported once"


@pytest.mark.parametrize("known", [True, False], ids=["once it is known", "at the same moment"])
async def test_nobody_is_heard_in_the_place_of_one_whose_audio_is_withheld(server: LiveKitServer, known: bool) -> None:
    listeners, room = FakeListeners(), rtc.Room()
    membership = RoomMembership(room, listeners, ("standard",), SystemClock())
    await room.connect(server.url, server.token("relay", "hall", hidden=True, kind="agent"), rtc.RoomOptions(False))
    membership.start()
    async with participant(server, "alice", "hall") as alice, participant(server, "bob", "hall") as bob:
        await alice.publish()
        await listeners.until(lambda: sum(each.samples for each in listeners.of("alice")) > 32_000)
        (silent,) = listeners.of("alice")
        permit(alice, False)
        if known:
            await refused(silent)
        # the server sends his track in the place of hers
        await bob.publish(speech_wav(), loop=True)
        await listeners.until(lambda: bool(listeners.of("bob")))
        (speaks,) = listeners.of("bob")
        await refused(silent)
        heard, of_bob = silent.samples, speaks.samples
        await listeners.until(lambda: speaks.samples > of_bob + 48_000)
        assert silent.samples == heard, "what he says is heard as hers"
        assert silent.track.refused()
        if known:
            assert silent.peak < 100

        permit(alice, True)
        await listeners.until(lambda: silent.samples > heard + 32_000)
        assert not silent.track.refused()
        before = speaks.samples
        await listeners.until(lambda: speaks.samples > before + 32_000)
        assert not speaks.track.refused()
        assert speaks.peak > 1_000
        assert len(listeners.opened) == 2
        await membership.close("shutdown")
        await room.disconnect()


class OpensLate(FakeListeners):
    """Alice's listener opens once it may: the log is away."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def __call__(self, track: Track) -> FakeListener | None:
        if track.participant.identity == "alice":
            self.asked.set()
            await self.may.wait()
        return await super().__call__(track)


async def test_what_becomes_of_a_track_while_its_listener_opens_is_not_missed(server: LiveKitServer) -> None:
    listeners, room, again = OpensLate(), rtc.Room(), asyncio.Event()
    room.on("track_subscribed", lambda _, __, who: again.set() if who.identity == "alice" else None)
    membership = RoomMembership(room, listeners, ("standard",), SystemClock())
    await room.connect(server.url, server.token("relay", "hall", hidden=True, kind="agent"), rtc.RoomOptions(False))
    membership.start()
    async with (
        asyncio.timeout(WITHIN_S),
        participant(server, "alice", "hall") as alice,
        participant(server, "bob", "hall") as bob,
    ):
        await alice.publish(speech_wav(), loop=True)
        await listeners.asked.wait()
        again.clear()
        permit(alice, False)
        while await sends(room):  # noqa: ASYNC110 - statistics are polled
            await asyncio.sleep(0.05)
        await bob.publish()  # his track comes in the place of hers
        await listeners.until(lambda: bool(listeners.of("bob")) and listeners.of("bob")[0].samples > 0)
        permit(alice, True)
        await again.wait()
        listeners.may.set()
        await listeners.until(lambda: bool(listeners.of("alice")) and listeners.of("alice")[0].peak > 1_000)
        await membership.close("shutdown")
        await room.disconnect()


async def sends(room: rtc.Room) -> bool:
    """Whether the server sends any audio."""
    said = await room.get_rtc_stats()
    return any(each.HasField("inbound_rtp") for each in (*said.publisher_stats, *said.subscriber_stats))


async def refused(listener: FakeListener) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not listener.track.refused():  # noqa: ASYNC110 - statistics are polled
            await asyncio.sleep(0.05)
