"""Deepgram's wire protocol through livekit-plugins-deepgram: what it says is mapped to media times, and nothing that it
does makes a track deaf."""

import logging

import pytest

from relay.capture.wav import WavSource
from relay.config.models import Provider
from relay.speech.observations import (
    Ended,
    SpokenWord,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)
from tests.support.deepgram import Deepgram, results, speech_started, utterance_end
from tests.support.speech import Heard, listening, speech

SCRIPT = [
    (0.4, speech_started(0.35)),
    (0.8, results([("Ever", 0.40, 0.62)], is_final=False)),
    (1.3, results([("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15)], is_final=True, speaker=0)),
    (1.6, utterance_end(1.15)),
    (2.0, speech_started(1.9)),
    (2.9, results([("Ever", 1.90, 2.10), ("failed.", 2.20, 2.70)], is_final=True, speech_final=True, speaker=1)),
]


def deepgram(server: Deepgram, **more: object) -> Provider:
    return Provider(provider="deepgram", options={**server.options, **more})


async def test_what_it_says_is_mapped_to_media_times() -> None:
    heard = Heard()
    async with (
        Deepgram([SCRIPT]) as server,
        listening(WavSource(speech("beckett.wav"), realtime=False), heard, stt=deepgram(server)) as session,
    ):
        await heard.until(lambda heard: len(heard.of(SttEnded)) == 2)
        await session.close("unpublished")

    connection = server.connections[0]
    assert len(server.connections) == 1
    assert connection.query["model"] == "nova-3"
    assert connection.query["interim_results"] == "true"
    edges = [type(o) for o in heard if isinstance(o, SttStarted | SttEnded | SttTranscript)]
    assert edges == [SttStarted, SttTranscript, SttTranscript, SttEnded, SttStarted, SttTranscript, SttEnded]
    interim, first, second = heard.of(SttTranscript)
    assert (interim.text, interim.final, interim.speaker_id) == ("Ever", False, None)
    assert first == SttTranscript(
        text="Ever tried.",
        final=True,
        start_ms=400,
        end_ms=1150,
        words=(SpokenWord("Ever", 400, 620, 0.98), SpokenWord("tried.", 700, 1150, 0.98)),
        confidence=0.98,
        language="en-US",
        speaker_id="S0",
        request_id="req",
        reliable=True,
    )
    assert (second.start_ms, second.end_ms, second.speaker_id) == (1900, 2700, "S1")
    assert [said.text for said in heard.of(Transcribed) if said.final] == ["Ever tried.", "Ever failed."]
    assert " ".join(turn.text for turn in heard.of(TurnEnded)) == "Ever tried. Ever failed."


async def test_its_voice_is_enough_without_any_voice_activity_detection() -> None:
    heard = Heard()
    async with (
        Deepgram([SCRIPT[:4]]) as server,
        listening(
            WavSource(speech("beckett.wav"), realtime=True), heard, vad=Provider(provider="none"), stt=deepgram(server)
        ) as session,
    ):
        await heard.until(lambda heard: bool(heard.of(TurnEnded)))
        await session.close("unpublished")

    assert not heard.of(VadStarted)
    assert heard.of(TurnEnded)[0].text == "Ever tried."


async def test_a_wrong_key_is_told_once_and_voice_activity_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    heard, faults = Heard(), list[str]()
    with caplog.at_level(logging.DEBUG):
        async with (
            Deepgram([SCRIPT]) as server,
            listening(
                WavSource(speech("beckett.wav"), realtime=True),
                heard,
                stt=deepgram(server, api_key="not-the-right-key"),
                realtime=True,
                on_fault=faults.append,
            ) as session,
        ):
            await heard.until(lambda heard: len(heard.of(VadEnded)) == 3)
            await session.close("unpublished")

    assert faults == [
        "speech recognition by deepgram/nova-3 failed: APIStatusError 401 (wrong API key?); "
        "it is tried again until it answers"
    ]
    assert 2 <= len(server.connections) <= 3  # after 0, 1 and 3 seconds, not twice a second
    assert len(heard.of(VadStarted)) == 3
    assert not heard.of(SttStarted)
    assert isinstance(heard[-1], Ended)
    assert "not-the-right-key" not in caplog.text


async def test_what_is_heard_after_a_failure_has_the_times_of_where_it_was_said() -> None:
    heard, faults = Heard(), list[str]()
    async with Deepgram([SCRIPT], key="new-key") as server:
        options = server.options | {"api_key": "old-key"}
        async with listening(
            WavSource(speech("beckett.wav"), realtime=True),
            heard,
            stt=Provider(provider="deepgram", options=options),
            realtime=True,
            on_fault=faults.append,
        ) as session:
            await heard.until(lambda _: bool(faults))
            server.key = "old-key"
            await heard.until(lambda heard: bool(texts(heard)))
            await session.close("unpublished")

    assert len(faults) == 1
    first = heard.of(SttTranscript)[0]
    assert first.start_ms is not None
    # It is tried again a second later, and counts from the audio that it is sent then.
    assert 1_300 <= first.start_ms <= 1_900
    assert first.reliable
    assert first.words[0].start_ms == first.start_ms


async def test_a_drop_in_mid_speech_is_reconnected_and_times_after_it_are_not_trusted() -> None:
    again = [(1.0, results([("Ever", 0.40, 0.62), ("failed.", 0.70, 0.95)], is_final=True, speech_final=True))]
    heard, faults = Heard(), list[str]()
    async with (
        Deepgram([SCRIPT[:2], again], drop_after_s=1.0) as server,
        listening(
            WavSource(speech("beckett.wav"), realtime=True),
            heard,
            stt=deepgram(server),
            realtime=True,
            on_fault=faults.append,
        ) as session,
    ):
        await heard.until(lambda heard: bool(texts(heard)))
        await session.close("unpublished")

    assert len(server.connections) == 2
    assert not faults
    before, after = heard.of(SttTranscript)
    assert (before.text, before.reliable) == ("Ever", True)
    assert (after.text, after.reliable) == ("Ever failed.", False)
    assert [type(o) for o in heard if isinstance(o, SttStarted | SttEnded)] == [SttStarted, SttEnded]


def texts(heard: Heard) -> list[str]:
    return [said.text for said in heard.of(SttTranscript) if said.final]
