"""Speech recognition that falls silent where there is no voice activity detection to tell that somebody speaks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.capture.audio.wav import WavSource
from relay.capture.session.stream_session import StreamSession
from relay.config.capture import Provider
from relay.speech.observations import DetectorLost, SourceDown, SourceUp, SttEnded, SttStarted, SttTranscript
from tests.support.audio.speech import Heard, listening, speech, write_wav
from tests.support.providers.deepgram import Deepgram
from tests.support.providers.stt_script import Hang, Onset, Partial, Script, utterance

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))

SILENT: Script = [(0.1, Hang())]
ONSET: Script = [(0.6, Onset(0.4)), (0.7, Hang())]
INTERIM: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1])), (0.9, Hang())]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks ten times a second, and two seconds of speech without a word are too much."""
    monkeypatch.setattr("relay.capture.session.stream_session.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("relay.capture.health.watchdog.WORDLESS_S", 2.0)
    monkeypatch.setattr("relay.capture.stt.tap._RESUME_WITHIN_S", 1.0)


@asynccontextmanager
async def deepgram_alone(heard: Heard, *scripts: Script) -> AsyncIterator[tuple[StreamSession, Deepgram]]:
    """A long talk at the pace of speech, with Deepgram's stand-in and nothing else."""
    async with Deepgram(scripts) as server:
        vad, stt = Provider(provider="none"), Provider(provider="deepgram", options=server.options)
        async with listening(WavSource(speech("two_cities.wav")), heard, vad=vad, stt=stt, realtime=True) as session:
            yield session, server


def outages(heard: Heard) -> list[tuple[str, str, str]]:
    return [(type(one).__name__, one.detector, one.reason) for one in heard if isinstance(one, SourceDown | SourceUp)]


@pytest.mark.parametrize(
    ("hangs", "told"),
    [(SILENT, False), (ONSET, False), (INTERIM, True)],
    ids=["in silence", "after the onset", "after an interim"],
)
async def test_a_provider_that_hangs_is_asked_again_and_the_speech_gets_its_text(hangs: Script, told: bool) -> None:
    heard = Heard()
    async with deepgram_alone(heard, hangs, utterance(*TRIED)) as (_, server):
        await heard.until(lambda heard: bool(heard.of(SttEnded)))
        assert len(server.connections) == 2

    # One that never said a word is told of only when the next connection is silent, too.
    assert outages(heard) == [("SourceDown", "stt", "stalled"), ("SourceUp", "stt", "stalled")] * told
    assert [said.text for said in heard.of(SttTranscript) if said.final] == ["Ever tried."]
    assert [type(one) for one in heard if isinstance(one, SttStarted | SttEnded)] == [SttStarted, SttEnded]
    assert not heard.of(DetectorLost)


@pytest.mark.parametrize("hangs", [ONSET, INTERIM], ids=["after the onset", "after an interim"])
async def test_what_is_open_ends_if_the_next_connection_does_not_go_on_with_it(hangs: Script) -> None:
    heard = Heard()
    async with deepgram_alone(heard, hangs, SILENT) as (_, server):
        await heard.until(lambda heard: bool(heard.of(SourceDown) and heard.of(SttEnded)), within=30.0)
        assert len(server.connections) >= 2

    assert outages(heard) == [("SourceDown", "stt", "stalled")]
    assert len(heard.of(DetectorLost)) == 1
    assert [type(one) for one in heard if isinstance(one, SttStarted | SttEnded)] == [SttStarted, SttEnded]


async def test_a_provider_that_has_nothing_to_say_about_silence_is_left_alone(tmp_path: Path) -> None:
    heard = Heard()
    async with Deepgram([utterance(*TRIED)]) as server:
        vad, stt = Provider(provider="none"), Provider(provider="deepgram", options=server.options)
        silence = WavSource(write_wav(tmp_path / "silence.wav", bytes(2 * 16_000 * 5)), realtime=True)
        async with listening(silence, heard, vad=vad, stt=stt, realtime=True) as session:
            await session.ended()

    assert len(server.connections) == 1
    assert len(heard.of(SttEnded)) == 1
    assert not outages(heard)
