"""Detectors that hang, drop and refuse under one participant of a real room: it is told, it heals, no utterance stays
open, and the other participant is heard as if nothing had been."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.events.speech import UtteranceCompleted
from relay.events.stream import SourceFailed, SourceRecovered
from tests.support.audio.story import Stream, assert_whole, of, told
from tests.support.cli import ROOT, SECRET
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.providers.brittle_vad import shadow_silero
from tests.support.providers.deepgram import Deepgram
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.support.providers.stt_script import Drop, Hang, Line, Onset, Partial, Script, utterance
from tests.support.service import Service, service

pytestmark = [pytest.mark.live, pytest.mark.speech]

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
WITHIN_S = 60.0
"""What takes some twenty seconds by the watchdog's bounds, on a machine that is busy."""


def talk() -> Iterator[Line]:
    """Somebody who is understood every three seconds, for two minutes."""
    for start in range(0, 120, 3):
        yield from utterance(*((word, start + begins, start + ends) for word, begins, ends in TRIED))


def heard(receiver: Receiver, identity: str) -> Stream:
    (stream,) = of(told(receiver.answered, SECRET), identity) or [Stream()]
    return stream


async def until(receiver: Receiver, identity: str, *types: str) -> None:
    """Until events of these types about somebody have arrived, in this order, whatever came between them."""

    def arrived() -> bool:
        came = iter(heard(receiver, identity).types())
        return all(kind in came for kind in types)

    await receiver.wait_for(arrived, within=WITHIN_S)


async def closed(receiver: Receiver, relay: Service) -> tuple[Stream, Stream]:
    """What was told of alice and of bob, once everybody has left."""
    await receiver.wait_for(
        lambda: all(heard(receiver, who).events and heard(receiver, who).end for who in ("alice", "bob")), within=60
    )
    assert await relay.stop() == 0, relay.tail()
    alice, bob = heard(receiver, "alice"), heard(receiver, "bob")
    for stream in (alice, bob):
        assert_whole(stream)
    return alice, bob


def outages(stream: Stream) -> list[tuple[str, str, str]]:
    return [
        (event.type, event.data.detector, event.data.reason)
        for event in stream.events
        if isinstance(event, SourceFailed | SourceRecovered)
    ]


def outage(detector: str, reason: str) -> list[tuple[str, str, str]]:
    return [("source.failed", detector, reason), ("source.recovered", detector, reason)]


def assert_untouched(stream: Stream) -> None:
    """Nothing failed, and each utterance ended in its own time, but for what the leaving cut."""
    assert not outages(stream), "the failure of one participant's detector must not reach another's stream"
    ends = list(stream.ends)
    while ends[-1] == "disconnected":
        ends.pop()
    assert set(ends) == {"silence"}


def texts(stream: Stream) -> list[str]:
    return [event.data.text for event in stream.events if isinstance(event, UtteranceCompleted) and event.data.text]


def deepgram(provider: Deepgram) -> str:
    return f"stt: {json.dumps({'provider': 'deepgram', 'options': provider.options})}"


async def test_voice_activity_that_hangs_for_one_is_started_again(server: LiveKitServer, tmp_path: Path) -> None:
    path = os.pathsep.join((shadow_silero(tmp_path), str(ROOT)))
    async with (
        receiving() as receiver,
        service(
            server, receiver.url, tmp_path, detectors="stt: {provider: none}", variables={"PYTHONPATH": path}
        ) as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
            await alice.publish(speech_wav(), loop=True)
            await until(receiver, "alice", "speech.started")
            await bob.publish(speech_wav("two_cities"), loop=True)
            await until(
                receiver, "alice", "source.failed", "speech.ended", "source.recovered", "speech.started", "speech.ended"
            )
            await until(receiver, "bob", *("speech.started", "speech.ended") * 3)
        alice_heard, bob_heard = await closed(receiver, relay)

    assert outages(alice_heard) == outage("vad", "stalled"), (
        "receivers must be told once that voice activity stalled, and that it recovered"
    )
    assert alice_heard.ends[0] == "detector_lost"
    assert set(alice_heard.ends[1:-1]) <= {"silence"}
    recovered = next(event for event in alice_heard.events if isinstance(event, SourceRecovered))
    assert 5_000 <= (recovered.data.missed_ms or 0) < 15_000
    assert len(relay.lines("voice activity detection stalled")) == 1
    assert_untouched(bob_heard)


async def test_speech_recognition_that_hangs_for_one_is_asked_again(server: LiveKitServer, tmp_path: Path) -> None:
    hanging: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1])), (0.9, Hang())]
    async with (
        Deepgram([hanging, list(talk())]) as provider,
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors=deepgram(provider)) as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
            await alice.publish(speech_wav("two_cities"), loop=True)
            await until(receiver, "alice", "transcript.interim")
            await bob.publish(speech_wav(), loop=True)
            await until(receiver, "alice", "source.failed", "source.recovered", "transcript.final")
            await until(receiver, "bob", *("transcript.final",) * 3)
        alice_heard, bob_heard = await closed(receiver, relay)

    assert outages(alice_heard) == outage("stt", "stalled"), (
        "receivers must be told once that recognition stalled, and that it recovered"
    )
    assert "detector_lost" not in alice_heard.ends, "VAD went on meanwhile"
    assert texts(alice_heard)
    assert_untouched(bob_heard)


async def test_speech_whose_provider_drops_and_comes_back_gets_its_text(server: LiveKitServer, tmp_path: Path) -> None:
    dropping: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1])), (1.0, Drop())]
    async with (
        Deepgram([list(talk()), dropping, utterance(*TRIED)]) as provider,
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors=deepgram(provider)) as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
            await bob.publish(speech_wav(), loop=True)
            await until(receiver, "bob", "transcript.final")
            await alice.publish(speech_wav(), loop=True)
            await until(receiver, "alice", "transcript.interim")
            key, provider.key = provider.key, "another"
            await until(receiver, "alice", "source.failed")
            provider.key = key
            await until(receiver, "alice", "source.recovered", "transcript.final", "utterance.completed")
        alice_heard, bob_heard = await closed(receiver, relay)

    assert outages(alice_heard) == outage("stt", "refused"), (
        "receivers must be told once that the provider refuses, and that it recovered"
    )
    assert texts(alice_heard) == ["Ever tried."], "what was said during the outage must get its text"
    first = next(event for event in alice_heard.events if isinstance(event, UtteranceCompleted))
    assert (first.data.text, first.data.reason) == ("Ever tried.", "silence"), "the one that was under way"
    assert_untouched(bob_heard)


async def test_a_key_that_is_taken_back_is_told_once_and_heals(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        Deepgram([list(talk())]) as provider,
        receiving() as receiver,
        service(server, receiver.url, tmp_path, detectors=deepgram(provider)) as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
            await bob.publish(speech_wav(), loop=True)
            await until(receiver, "bob", "transcript.final")
            key, provider.key = provider.key, "another"
            await alice.publish(speech_wav(), loop=True)
            await until(receiver, "alice", "source.failed", *("vad.speech_started", "vad.speech_ended") * 3)
            refused = len(provider.connections) - 1
            assert len(relay.lines("(wrong API key?)")) == 1, "the operator must read once what is wrong"
            provider.key = key
            await until(receiver, "alice", "source.recovered", "transcript.final")
        alice_heard, bob_heard = await closed(receiver, relay)

    assert refused >= 3
    assert outages(alice_heard) == outage("stt", "refused"), (
        "receivers must be told once that the provider refuses, and that it recovered"
    )
    assert len(relay.lines("(wrong API key?)")) == 1, "the operator is told once"
    assert not alice_heard.ends.count("detector_lost")
    assert_untouched(bob_heard)


async def test_a_realtime_model_that_hangs_for_one_in_mid_speech_costs_no_word(
    server: LiveKitServer, tmp_path: Path
) -> None:
    pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")
    hanging: Script = [(0.6, Onset(0.4)), (0.9, Hang())]
    async with OpenAIRealtime([hanging, list(talk())]) as model, receiving() as receiver:
        detectors = json.dumps({"provider": "openai", "model": "gpt-realtime", "options": model.options})
        async with service(server, receiver.url, tmp_path, detectors=f"realtime: {detectors}") as relay:
            await relay.start()
            async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
                await alice.publish(speech_wav("two_cities"), loop=True)
                await until(receiver, "alice", "realtime.speech_started")
                await bob.publish(speech_wav(), loop=True)
                await until(
                    receiver, "alice", "speech.started", "source.failed", "source.recovered", "utterance.completed"
                )
                await until(receiver, "bob", *("utterance.completed",) * 3)
            alice_heard, bob_heard = await closed(receiver, relay)

        assert outages(alice_heard) == outage("realtime", "stalled"), (
            "receivers must be told once that the model stalled, and that it recovered"
        )
        assert alice_heard.ends[0] == "silence"
        assert texts(alice_heard)[0] == "Ever tried.", "what was said during the outage must get its text"
        assert_untouched(bob_heard)
        assert not model.wanted_to_speak
        assert len(model.connections) == 3
