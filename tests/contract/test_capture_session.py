"""A track's agent session: real speech, real voice activity detection, real speech recognition."""

import asyncio
import logging
import math
import random
import struct
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents.testing import fake_job_context

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.audio.wav import WavSource
from relay.capture.session.stream_session import StreamSession
from relay.config.capture import Provider
from relay.errors import AudioError
from relay.speech.observations import (
    Anchored,
    Ended,
    Listening,
    Muted,
    Observation,
    StateChanged,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    Unmuted,
    VadEnded,
    VadStarted,
)
from tests.support.audio.speech import Feed, Heard, listening, needs_moonshine, speech, write_wav

MOONSHINE = Provider(provider="moonshine")

SENTENCES = ["Ever tried.", "Ever failed.", "No matter.", "Try again.", "Fare again.", "Fell better."]
"""What the tiny model makes of beckett.wav: it mishears the last two."""


def pcm(name: str = "beckett.wav") -> bytes:
    with wave.open(str(speech(name))) as file:
        return bytes(file.readframes(file.getnframes()))


def texts(heard: Heard) -> list[str]:
    return [said.text for said in heard.of(SttTranscript) if said.final]


def assert_paired(heard: Heard, start: type[Any], end: type[Any]) -> None:
    edges = [type(observation) for observation in heard if isinstance(observation, start | end)]
    assert edges == [start, end] * (len(edges) // 2)


@pytest.mark.speech
@needs_moonshine
@pytest.mark.parametrize("detector", ["silero", "livekit"])
async def test_six_sentences_are_heard_as_six(detector: str) -> None:
    heard = Heard()
    async with listening(
        WavSource(speech("beckett.wav"), realtime=False), heard, vad=Provider(provider=detector), stt=MOONSHINE
    ) as session:
        await session.ended()
        await session.close("unpublished")

    assert isinstance(heard[0], Listening)
    assert heard[0].first_frame_at is not None
    assert heard.of(Anchored) == [Anchored(0, heard[0].first_frame_at)]
    assert heard[-1] == Ended("unpublished", heard_ms=9963)
    assert sum(isinstance(observation, Listening | Ended) for observation in heard) == 2

    assert len(heard.of(VadStarted)) == 6, "six sentences must be six starts of speech"
    assert_paired(heard, VadStarted, VadEnded)
    assert_paired(heard, SttStarted, SttEnded)
    for start, end in zip(heard.of(VadStarted), heard.of(VadEnded), strict=True):
        assert end.end_ms is not None
        assert end.speech_ms is not None
        assert end.reason == "silence"
        assert end.end_ms - start.onset_ms == pytest.approx(end.speech_ms, abs=1)
        assert start.probability is not None
        assert 0.5 < start.probability <= 1.0
        assert end.probability_mean is not None
        assert end.probability_peak is not None
        assert 0.7 < end.probability_mean <= end.probability_peak <= 1.0
    onsets = [start.onset_ms for start in heard.of(VadStarted)]
    assert onsets == pytest.approx([352, 1888, 3552, 4896, 6656, 8160], abs=70)

    assert texts(heard) == SENTENCES, "every sentence must have its text"
    finals = [said for said in heard.of(SttTranscript) if said.final]
    for said, start, end in zip(finals, heard.of(VadStarted), heard.of(VadEnded), strict=True):
        assert said.start_ms is not None
        assert said.end_ms is not None
        assert end.end_ms is not None
        assert said.start_ms < end.end_ms
        assert said.end_ms > start.onset_ms
        assert said.reliable
        assert said.language == "en"
    assert any(not said.final for said in heard.of(SttTranscript))
    assert [said.text for said in heard.of(Transcribed) if said.final] == SENTENCES
    assert " ".join(turn.text for turn in heard.of(TurnEnded)) == " ".join(SENTENCES)
    states = [(change.old, change.new) for change in heard.of(StateChanged)]
    assert len(states) > 2
    assert all(before[1] == after[0] for before, after in pairwise(states))


@pytest.mark.speech
@needs_moonshine
async def test_a_long_talk_is_heard_in_pieces_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moonshine returns all it ever heard with each look, so its stream is replaced every few lines."""
    monkeypatch.setattr("relay.capture.stt.moonshine._LINES", 2)
    heard = Heard()

    async with listening(WavSource(speech("beckett.wav"), realtime=False), heard, stt=MOONSHINE) as session:
        await session.ended()
        await session.close("unpublished")

    finals = [said for said in heard.of(SttTranscript) if said.final]
    assert len(finals) == len(heard.of(VadStarted)) == 6
    for said, start, end in zip(finals, heard.of(VadStarted), heard.of(VadEnded), strict=True):
        assert said.start_ms is not None
        assert said.end_ms is not None
        assert end.end_ms is not None
        assert said.start_ms < end.end_ms
        assert said.end_ms > start.onset_ms


@pytest.mark.speech
@needs_moonshine
async def test_stereo_at_44_100_hz_is_heard_as_mono_is(tmp_path: Path) -> None:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler

    mono = AudioFrame(format="s16", layout="mono", samples=len(pcm()) // 2)
    mono.sample_rate = SAMPLE_RATE
    mono.planes[0].update(pcm() + bytes(mono.planes[0].buffer_size - len(pcm())))
    converter = AudioResampler(format="s16", layout="stereo", rate=44_100)
    frames = [*converter.resample(mono), *converter.resample(None)]
    data = b"".join(bytes(memoryview(frame.planes[0]))[: frame.samples * 4] for frame in frames)
    file = write_wav(tmp_path / "stereo.wav", data, rate=44_100, channels=2)
    heard = Heard()

    async with listening(WavSource(file, realtime=False), heard, stt=MOONSHINE) as session:
        await session.ended()
        await session.close("unpublished")

    # The way to 44.1 kHz and back is enough for the model to hear another word in what it does not know anyway.
    assert texts(heard)[:5] == SENTENCES[:5]
    assert len(texts(heard)) == len(heard.of(VadStarted)) == 6


@pytest.mark.speech
@needs_moonshine
async def test_closing_in_mid_word_loses_no_text_and_ends_what_began() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard, stt=MOONSHINE, realtime=True) as session:
        feed.put(pcm()[: 2 * 1_000 * 16])  # "Ever tried": the speech goes on until 1.2 s
        await heard.until(lambda heard: bool(heard.of(VadStarted)))
        began = asyncio.get_running_loop().time()
        await session.close("disconnected")
        took = asyncio.get_running_loop().time() - began

    assert heard[-1] == Ended("disconnected", heard_ms=1_000)
    [end] = heard.of(VadEnded)
    assert end.end_ms is not None
    assert end.end_ms <= 1_100
    assert_paired(heard, SttStarted, SttEnded)
    assert "Ever" in " ".join(texts(heard)), "what was said before the close must get its text"
    assert [said.text for said in heard.of(Transcribed) if said.final] == texts(heard)
    assert [turn.text for turn in heard.of(TurnEnded)] == [" ".join(texts(heard))]
    assert took < 10, "the end of a call must not wait for a provider without end"


async def test_an_idle_session_closes_at_once() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard, realtime=True) as session:
        feed.put(bytes(32_000))
        await heard.until(lambda heard: bool(heard.of(Anchored)))
        began = asyncio.get_running_loop().time()
        await asyncio.gather(session.close("unpublished"), session.close("shutdown"))
        assert asyncio.get_running_loop().time() - began < 2.0, "an open utterance would be waited for that long"

    assert [observation for observation in heard if isinstance(observation, Ended)] == [Ended("unpublished", 1_000)]


@pytest.mark.parametrize("raised", [TypeError, ValueError, KeyError])
async def test_an_observer_that_raises_does_not_stop_the_pipeline(
    raised: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def observe(observation: Observation) -> None:
        heard(observation)
        if not isinstance(observation, Ended):
            raise raised("Ever tried. Ever failed.")

    with caplog.at_level(logging.INFO):
        async with listening(WavSource(speech("beckett.wav"), realtime=False), observe) as session:
            await session.ended()
            await session.close("unpublished")

    assert len(heard.of(VadStarted)) == len(heard.of(VadEnded)) == 6
    assert isinstance(heard[-1], Ended)
    assert session.failures == len(heard) - 1
    assert raised.__name__ in caplog.text
    assert "Ever" not in caplog.text, "what was said is in the log"


async def test_mute_and_unmute_are_told_in_order_and_never_before_listening() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard, realtime=True, muted=True, published_at=1) as session:
        session.unmute()
        session.mute()

    assert isinstance(heard[0], Listening)
    assert heard[0].muted
    assert heard[0].first_frame_at is None
    assert heard[0].missed_ms is None
    assert [observation for observation in heard if isinstance(observation, Muted | Unmuted)] == [Unmuted(), Muted()]


async def test_a_track_without_audio_is_listened_to_after_a_second() -> None:
    heard = Heard()
    async with listening(Feed(), heard, realtime=True):
        await heard.until(lambda heard: bool(heard.of(Listening)))

    assert heard.of(Listening)[0].first_frame_at is None


async def test_audio_between_publishing_and_the_first_frame_is_missed() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard, realtime=True, published_at=1_000) as session:
        feed.put(bytes(640))
        await heard.until(lambda heard: bool(heard.of(Listening)))
        await session.close("shutdown")

    began = heard.of(Listening)[0]
    assert began.first_frame_at is not None
    assert began.missed_ms == began.first_frame_at - 1_000


async def test_the_error_of_a_source_reaches_the_caller_that_awaits_its_end(tmp_path: Path) -> None:
    class Breaks(Feed):
        read = 0

        async def __anext__(self) -> rtc.AudioFrame:
            self.read += 1
            if self.read > 1:
                raise AudioError("the file breaks off")
            return await super().__anext__()

    heard, feed = Heard(), Breaks()
    feed.put(bytes(640))
    async with listening(feed, heard) as session:
        with pytest.raises(AudioError, match="breaks off"):
            await session.ended()

    assert heard[-1] == Ended("shutdown", heard_ms=20)


async def test_livekit_keeps_no_record_of_what_was_said() -> None:
    """`AgentSession._recorded_events` keeps every event; capture.session.tap is its only user."""
    heard = Heard()
    async with listening(WavSource(speech("beckett.wav"), realtime=False), heard) as session:
        await session.ended()
        await heard.until(lambda heard: len(heard.of(TurnEnded)) >= 5)
        kept = recorded(session)
        await session.close("unpublished")

    assert len(heard.of(StateChanged)) >= 10
    assert len(kept) < 6


async def test_a_job_neither_closes_nor_keeps_our_sessions() -> None:
    closed_by_the_job: list[Any] = []
    heard = Heard()
    with fake_job_context() as job:
        job.add_shutdown_callback = closed_by_the_job.append  # type: ignore[method-assign, assignment]  # watches it
        async with listening(WavSource(speech("beckett.wav"), realtime=False), heard) as session:
            with pytest.raises(RuntimeError, match="No AgentSession"):
                _ = job.primary_session
            await session.ended()
            await session.close("shutdown")
        job._tempdir.cleanup()  # the fake leaves its folder behind

    assert not closed_by_the_job
    assert len(heard.of(VadEnded)) == 6


def recorded(session: StreamSession) -> list[Any]:
    return list(session._listening_session._session._recorded_events)


def noise(seconds: float) -> bytes:
    rng = random.Random(7)
    count = int(SAMPLE_RATE * seconds)
    return struct.pack(f"<{count}h", *(int(math.sin(n / 9) * 900 + rng.gauss(0, 300)) for n in range(count)))


async def test_noise_is_not_speech() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard) as session:
        feed.put(noise(2))
        await feed.aclose()
        await session.ended()

    assert not heard.of(VadStarted), "noise must not be reported as speech"
