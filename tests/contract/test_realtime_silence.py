"""A realtime model that is connected, takes audio and says nothing: it is noticed, told, and no word is lost."""

import asyncio
import wave

import pytest

from relay.capture.audio.wav import WavSource
from relay.events.detectors import RealtimeSpeechEnded, RealtimeSpeechStarted
from relay.events.speech import SpeechEnded, SpeechStarted, TranscriptFinal, UtteranceCompleted
from relay.events.stream import SourceFailed, SourceRecovered
from tests.support.audio.speech import Feed, speech
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.support.providers.realtime_plays import Told, heard_by
from tests.support.providers.stt_script import Hang, Onset, Script, utterance

pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked after a second, and given one to answer."""
    for limit in ("ASK_AFTER_S", "ANSWER_WITHIN_S"):
        monkeypatch.setattr(f"relay.capture.realtime.health.{limit}", 1.0)


def long_talk() -> WavSource:
    return WavSource(speech("two_cities.wav"), realtime=True)


def outages(told: Told) -> list[tuple[str, str, str]]:
    return [
        (event.type, event.data.detector, event.data.reason)
        for event in told.events
        if isinstance(event, SourceFailed | SourceRecovered)
    ]


STALLED = [("source.failed", "realtime", "stalled"), ("source.recovered", "realtime", "stalled")]


@pytest.mark.usefixtures("impatient")
async def test_a_model_that_hangs_in_mid_speech_costs_no_word() -> None:
    hanging: Script = [(0.6, Onset(0.4)), (0.9, Hang())]
    async with (
        OpenAIRealtime([hanging, utterance(*TRIED)]) as server,
        heard_by(server, long_talk(), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await told.until(lambda told: bool(told.of(SourceRecovered)))
        await session.close("unpublished")

    assert len(server.connections) == 2
    assert len(told.of(RealtimeSpeechStarted)) == len(told.of(SpeechStarted)) == 1, "it is one and the same speech"
    completed = told.of(UtteranceCompleted)[0]
    assert (completed.data.text, completed.data.reason) == ("Ever tried.", "silence")
    assert (completed.timing.media_start_ms, completed.timing.media_end_ms) == (400, 1150)
    assert completed.timing.reliable
    assert outages(told) == STALLED
    recovered = told.of(SourceRecovered)[0]
    assert recovered.data.missed_ms == 0
    assert recovered.data.gone_ms >= 1_000, "since it was asked"
    assert told.faults == [
        "the realtime model openai/gpt-realtime does not answer any more; it is tried again until it answers"
    ]


@pytest.mark.usefixtures("impatient")
async def test_what_was_said_to_a_model_that_hung_in_silence_is_said_again() -> None:
    async with (
        OpenAIRealtime([[(0.1, Hang())], utterance(*TRIED)]) as server,
        heard_by(server, long_talk(), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    assert outages(told) == STALLED
    assert told.of(SourceRecovered)[0].data.missed_ms == 0
    final = told.of(TranscriptFinal)[0]
    # The new connection's audio begins where the old one's did, before anything was said.
    assert (final.data.text, final.timing.media_start_ms, final.timing.media_end_ms) == ("Ever tried.", 400, 1150)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_lets_everybody_in_and_says_nothing_is_told_once_until_it_does() -> None:
    async with (
        OpenAIRealtime([utterance(*TRIED)], mute=2) as server,
        heard_by(server, long_talk(), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        await session.close("unpublished")

    assert len(server.connections) == 3
    assert outages(told) == STALLED
    assert len(told.faults) == 1
    assert told.of(UtteranceCompleted)[0].data.text == "Ever tried."


@pytest.mark.usefixtures("impatient")
async def test_a_model_that_is_silent_and_answers_is_left_alone() -> None:
    async with (
        OpenAIRealtime([()]) as server,
        heard_by(server, long_talk(), pace=True) as (session, told),
    ):
        async with asyncio.timeout(30):
            while len(server.sessions) < 4:
                server.heard.clear()
                await server.heard.wait()
        await session.close("unpublished")

    assert len(server.connections) == 1
    assert not told.types("source", "speech")
    assert set(server.asked) == {"session.update"}


async def test_a_deaf_model_is_reported_when_another_session_hears_no_speech_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.capture.health.watchdog.WORDLESS_S", 1.0)
    async with (
        OpenAIRealtime([(), (), utterance(*TRIED)]) as server,
        heard_by(server, long_talk(), pace=True) as (session, told),
    ):
        await told.until(lambda told: bool(told.of(UtteranceCompleted)), within=30.0)
        await session.close("unpublished")

    assert len(server.connections) == 3
    assert outages(told) == STALLED
    assert told.of(SourceRecovered)[0].data.missed_ms == 0
    assert len(told.faults) == 1
    assert "hears nothing in what sounds like speech" in told.faults[0]
    assert told.of(TranscriptFinal)[0].data.text == "Ever tried."


async def test_speech_whose_audio_stops_is_ended_and_what_follows_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.capture.session.stream_session.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("relay.capture.health.watchdog.AUDIO_WITHIN_S", 1.0)
    with wave.open(str(speech("beckett.wav"))) as file:
        sound = file.readframes(file.getnframes())
    feed = Feed()
    async with (
        OpenAIRealtime([[(0.6, Onset(0.4))], utterance(*TRIED)]) as server,
        heard_by(server, feed, pace=True) as (session, told),
    ):
        feed.put(sound[: 2 * 16 * 800])
        await told.until(lambda told: bool(told.of(UtteranceCompleted)))
        assert [end.data.reason for end in told.of(RealtimeSpeechEnded)] == ["lost"]
        assert [end.data.reason for end in told.of(SpeechEnded)] == ["detector_lost"]
        feed.put(sound[: 2 * 16 * 3_000])
        await told.until(lambda told: len(told.of(UtteranceCompleted)) == 2)
        await session.close("unpublished")

    assert outages(told) == [("source.failed", "audio", "stalled"), ("source.recovered", "audio", "stalled")]
    assert len(server.connections) == 2
    assert told.of(UtteranceCompleted)[1].data.text == "Ever tried."
    assert told.of(SpeechStarted)[1].timing.media_start_ms == 800 + 400
