"""Audio that LiveKit withholds, or that is encrypted end to end: said at once, with the reason, never silence."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc

from relay.events.catalog import parse
from relay.events.stream import SourceFailed, SourceRecovered, StreamEnded, StreamStarted
from tests.support.dispatch.receiver import Receiver, receiving
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
