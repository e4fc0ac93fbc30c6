"""Detectors that break, hang and fall silent under a track's session: it is told, and listening goes on."""

import asyncio
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit.agents import vad
from livekit.plugins import silero

from relay.capture.audio.wav import WavSource
from relay.capture.session.stream_session import StreamSession
from relay.config.capture import Provider
from relay.speech.observations import (
    Anchored,
    DetectorLost,
    Ended,
    SourceDown,
    SourceUp,
    StateChanged,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)
from tests.support.audio.speech import Feed, Heard, listening, speech
from tests.support.providers.deepgram import Deepgram
from tests.support.providers.stt_script import Drop, Final, Onset, Partial, Script, utterance

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))


def pcm(name: str = "beckett.wav") -> bytes:
    with wave.open(str(speech(name))) as file:
        return bytes(file.readframes(file.getnframes()))


class Brittle(vad.VAD):
    """Voice activity detection whose first streams hear speech at once and then do as ``moods`` say: break, hang, or
    dawdle, which is to answer each frame and come no further."""

    def __init__(self, *moods: str) -> None:
        super().__init__(capabilities=vad.VADCapabilities(update_interval=0.032))
        self._moods = list(moods)
        self._sound = silero.VAD.load()

    def stream(self) -> vad.VADStream:
        return BrittleStream(self, self._moods.pop(0)) if self._moods else self._sound.stream()


class BrittleStream(vad.VADStream):
    def __init__(self, owner: Brittle, mood: str) -> None:
        super().__init__(owner)
        self._mood = mood

    async def _main_task(self) -> None:
        async for _ in self._input_ch:
            self._event_ch.send_nowait(vad.VADEvent(vad.VADEventType.INFERENCE_DONE, 512, 0.032, 0.0, 0.0))
            self._event_ch.send_nowait(vad.VADEvent(vad.VADEventType.START_OF_SPEECH, 512, 0.032, 0.032, 0.0))
            if self._mood == "break":
                raise OSError("model")
            if self._mood == "hang":
                await asyncio.Event().wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog looks ten times a second and waits for one second only."""
    monkeypatch.setattr("relay.capture.session.stream_session.LOOK_EVERY_S", 0.1)
    for limit in ("AUDIO_WITHIN_S", "TAKEN_WITHIN_S", "INFERENCE_WITHIN_S", "WORDLESS_S"):
        monkeypatch.setattr(f"relay.capture.health.watchdog.{limit}", 1.0)
    monkeypatch.setattr("relay.capture.health.watchdog.COUNTED_FROM_S", 0.5)


def outages(heard: Heard) -> list[tuple[str, str, str]]:
    return [(type(one).__name__, one.detector, one.reason) for one in heard if isinstance(one, SourceDown | SourceUp)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("realtime", [True, False])
@pytest.mark.parametrize(("mood", "reason"), [("break", "lost"), ("hang", "stalled")])
async def test_voice_activity_detection_is_started_again(
    mood: str, reason: str, realtime: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.capture.detectors.load_vad", lambda _: Brittle(mood))
    heard, faults = Heard(), list[str]()
    source = WavSource(speech("beckett.wav"), realtime=realtime)
    async with listening(source, heard, realtime=realtime, on_fault=faults.append) as session:
        await heard.until(lambda heard: len(heard.of(VadEnded)) >= 2)
        await session.close("unpublished")

    assert outages(heard) == [("SourceDown", "vad", reason), ("SourceUp", "vad", reason)]
    assert len(faults) == 1
    first, *others = heard.of(VadEnded)
    assert first.reason == "closed"
    assert "silence" in {end.reason for end in others}
    assert len(heard.of(VadStarted)) == len(heard.of(VadEnded))
    assert heard.index(first) + 1 == heard.index(heard.of(SourceDown)[0])
    up = heard.of(SourceUp)[0]
    assert up.missed_ms is not None
    assert up.missed_ms <= up.gone_ms + 1_500
    assert isinstance(heard[-1], Ended)


async def test_a_vad_that_keeps_breaking_is_reported_once_each_time_it_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relay.capture.vad.tap.RESTART_S", (0.0, 0.1))
    monkeypatch.setattr("relay.capture.detectors.load_vad", lambda _: Brittle("break", "break", "break"))
    heard = Heard()
    async with listening(WavSource(speech("beckett.wav")), heard, realtime=True) as session:
        await heard.until(lambda heard: "silence" in [end.reason for end in heard.of(VadEnded)])
        await session.close("unpublished")

    assert [name for name, _, _ in outages(heard)] == ["SourceDown", "SourceUp"] * 3
    assert len(heard.of(VadStarted)) == len(heard.of(VadEnded))


@pytest.mark.usefixtures("impatient")
async def test_audio_that_stops_in_mid_speech_ends_it_and_comes_back() -> None:
    heard, feed, sound = Heard(), Feed(), pcm()
    async with listening(feed, heard, realtime=True) as session:
        feed.put(sound[: 2 * 16 * 800])
        await heard.until(lambda heard: bool(heard.of(SourceDown)))
        assert [end.reason for end in heard.of(VadEnded)] == ["closed"]
        await heard.until(lambda heard: heard.of(StateChanged)[-1].new == "listening")
        feed.put(sound[2 * 16 * 1_700 : 2 * 16 * 4_000])
        await heard.until(lambda heard: len(heard.of(VadEnded)) == 2)
        await session.close("unpublished")

    assert outages(heard)[:2] == [("SourceDown", "audio", "stalled"), ("SourceUp", "audio", "stalled")]
    up = heard.of(SourceUp)[0]
    assert up.missed_ms is not None
    assert up.missed_ms == pytest.approx(up.gone_ms, abs=50)
    after = next(anchor for anchor in heard.of(Anchored) if anchor.media_ms == 800)
    assert heard.index(up) < heard.index(after) < heard.index(heard.of(VadStarted)[1])
    assert len(heard.of(VadStarted)) == len(heard.of(VadEnded))


async def test_audio_that_is_passed_over_in_mid_speech_ends_it_and_is_told() -> None:
    heard, feed, sound, faults = Heard(), Feed(), pcm(), list[str]()
    async with listening(feed, heard, realtime=True, on_fault=faults.append) as session:
        feed.put(sound[: 2 * 16 * 800])
        await heard.until(lambda heard: bool(heard.of(VadStarted)))
        feed.put(sound[2 * 16 * 1_700 : 2 * 16 * 4_000], missed_ms=30_400)
        await heard.until(lambda heard: len(heard.of(VadEnded)) == 2)
        await session.close("unpublished")

    assert outages(heard) == [("SourceDown", "audio", "overloaded"), ("SourceUp", "audio", "overloaded")]
    (down,), (up,) = heard.of(SourceDown), heard.of(SourceUp)
    assert up.missed_ms == 30_400
    assert up.gone_ms == pytest.approx(30_400, abs=100)
    assert len(faults) == 1
    assert "30 s" in faults[0]
    first, second, *_ = heard.of(VadEnded)
    assert (first.reason, second.reason) == ("closed", "silence")
    assert heard.index(first) < heard.index(down) < heard.index(heard.of(VadStarted)[1])


async def test_voice_activity_detection_that_falls_behind_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.capture.vad.tap.BEHIND_S", 2.5)
    monkeypatch.setattr("relay.capture.detectors.load_vad", lambda _: Brittle("dawdle"))
    heard, faults = Heard(), list[str]()
    async with listening(WavSource(speech("beckett.wav")), heard, realtime=True, on_fault=faults.append) as session:
        await heard.until(lambda heard: "silence" in [end.reason for end in heard.of(VadEnded)])
        await session.close("unpublished")

    assert outages(heard) == [("SourceDown", "vad", "overloaded"), ("SourceUp", "vad", "overloaded")]
    assert "too busy" in faults[0]
    up = heard.of(SourceUp)[0]
    assert up.missed_ms is not None
    assert 2_400 < up.missed_ms < 4_000
    assert heard.of(VadEnded)[0].reason == "closed"


@pytest.mark.usefixtures("impatient")
async def test_audio_that_stops_ends_speech_that_only_speech_recognition_knows_of() -> None:
    heard, feed = Heard(), Feed()
    script: Script = [(0.6, Onset(0.4)), (0.7, Partial(TRIED[:1]))]
    async with Deepgram([script]) as server:
        stt = Provider(provider="deepgram", options=server.options)
        async with listening(feed, heard, vad=Provider(provider="none"), stt=stt, realtime=True) as session:
            feed.put(pcm()[: 2 * 16 * 1_000])
            await heard.until(lambda heard: bool(heard.of(DetectorLost)))
            await session.close("unpublished")

    assert outages(heard) == [("SourceDown", "audio", "stalled")]
    assert len(heard.of(SttStarted)) == len(heard.of(SttEnded)) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_muted_track_without_audio_is_no_failure() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard, realtime=True, muted=True) as session:
        await asyncio.sleep(1.5)  # nothing happens, which is what is shown
        session.unmute()
        await heard.until(lambda heard: bool(heard.of(SourceDown)))

    assert outages(heard) == [("SourceDown", "audio", "stalled")]


async def test_a_session_that_livekit_closes_is_reopened_and_hears_the_rest() -> None:
    heard, faults = Heard(), list[str]()
    async with listening(WavSource(speech("beckett.wav")), heard, realtime=True, on_fault=faults.append) as session:
        await heard.until(lambda heard: len(heard.of(VadStarted)) == 2)
        await session._listening_session._session.aclose()
        await heard.until(lambda heard: bool(heard.of(SourceUp)))
        before = len(heard.of(VadStarted))
        await session.ended()
        await session.close("unpublished")

    assert outages(heard) == [("SourceDown", "session", "lost"), ("SourceUp", "session", "lost")]
    assert heard.index(heard.of(SourceDown)[0]) + 1 == heard.index(heard.of(DetectorLost)[0])
    assert len(faults) == 1
    assert len(heard.of(VadStarted)) == len(heard.of(VadEnded)) >= before + 3
    assert heard[-1] == Ended("unpublished", heard_ms=9963)


async def test_audio_that_waited_too_long_for_a_session_is_said_to_be_missed() -> None:
    heard, feed = Heard(), Feed()
    async with listening(feed, heard, realtime=True) as session:
        for dropped_ms in (1_240, 1_300):
            feed.put(pcm()[: 2 * 16 * 800])
            feed.dropped_ms = dropped_ms
            before = len(heard.of(SourceUp))
            await session._listening_session._session.aclose()
            await heard.until(lambda heard, before=before: len(heard.of(SourceUp)) > before)  # type: ignore[misc]  # bound now
        await session.close("unpublished")

    assert [(up.detector, up.missed_ms) for up in heard.of(SourceUp)] == [("session", 1_240), ("session", 60)]


@asynccontextmanager
async def deepgram_hears(heard: Heard, *scripts: Script) -> AsyncIterator[tuple[StreamSession, Deepgram]]:
    """A long talk at the pace of speech, with Deepgram's stand-in."""
    async with Deepgram(scripts) as server:
        stt = Provider(provider="deepgram", options=server.options)
        async with listening(WavSource(speech("two_cities.wav")), heard, stt=stt, realtime=True) as session:
            yield session, server
            await session.close("unpublished")


@pytest.mark.usefixtures("impatient")
async def test_a_provider_silent_in_mid_speech_is_asked_again_and_the_speech_gets_its_text() -> None:
    heard = Heard()
    silent: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1]))]
    async with deepgram_hears(heard, silent, utterance(*TRIED)) as (_, server):
        await heard.until(lambda heard: any(said.final for said in heard.of(SttTranscript)))
        assert len(server.connections) == 2

    assert outages(heard) == [("SourceDown", "stt", "stalled"), ("SourceUp", "stt", "stalled")]
    [final] = [said for said in heard.of(SttTranscript) if said.final]
    assert (final.text, final.reliable) == ("Ever tried.", True)
    assert heard.of(SourceUp)[0].missed_ms == 0


@pytest.mark.usefixtures("impatient")
async def test_a_provider_that_never_says_a_word_is_told_of_after_a_second_try() -> None:
    heard = Heard()
    async with deepgram_hears(heard, ()) as (_, server):
        await heard.until(lambda heard: bool(heard.of(SourceDown)), within=30.0)
        assert len(server.connections) == 2

    assert outages(heard) == [("SourceDown", "stt", "stalled")]


async def test_words_that_came_before_a_drop_do_not_come_again() -> None:
    heard = Heard()
    first: Script = [(0.6, Onset(0.4)), (1.3, Final(TRIED)), (1.6, Drop())]
    async with deepgram_hears(heard, first, utterance(("Ever", 0.4, 0.6), ("failed.", 0.7, 0.95))) as (_, server):
        await heard.until(lambda heard: len([said for said in heard.of(SttTranscript) if said.final]) == 2)
        assert len(server.connections) == 2

    tried, failed = [said for said in heard.of(SttTranscript) if said.final]
    assert tried.end_ms == 1_150
    assert failed.start_ms is not None
    assert failed.start_ms == pytest.approx(1_150 + 400, abs=20), "the second connection hears what follows the final"
    assert not outages(heard)


async def test_an_outage_of_seconds_in_mid_speech_costs_no_word() -> None:
    heard = Heard()
    dropped: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1])), (1.0, Drop())]
    async with deepgram_hears(heard, dropped, utterance(*TRIED)) as (_, server):
        server.key, key = "taken-back", server.key
        await heard.until(lambda heard: bool(heard.of(SourceDown)))
        server.key = key
        await heard.until(lambda heard: any(said.final for said in heard.of(SttTranscript)))

    assert outages(heard) == [("SourceDown", "stt", "refused"), ("SourceUp", "stt", "refused")]
    missed_ms = heard.of(SourceUp)[0].missed_ms
    assert missed_ms is not None
    assert missed_ms < heard.of(VadStarted)[0].onset_ms, "of the silence before"
    [final] = [said for said in heard.of(SttTranscript) if said.final]
    assert (final.text, final.reliable) == ("Ever tried.", True)
    assert final.start_ms is not None
    assert final.start_ms - 400 < heard.of(VadStarted)[0].onset_ms, "it hears the speech from before its onset"


async def test_the_words_of_a_session_that_is_replaced_are_in_one_turn() -> None:
    heard = Heard()
    partial: Script = [(0.6, Onset(0.4)), (0.8, Partial(TRIED[:1]))]
    async with deepgram_hears(heard, partial, utterance(*TRIED)) as (session, _):
        await heard.until(lambda heard: any(said.text == "Ever" for said in heard.of(Transcribed)))
        session._listening_session.renew("stalled", "as if it took no audio any more")
        await heard.until(lambda heard: any(said.final for said in heard.of(Transcribed)))

    assert [turn.text for turn in heard.of(TurnEnded)] == ["Ever tried."]


async def test_one_participants_outage_is_not_anothers() -> None:
    alice, bob = Heard(), Heard()
    async with deepgram_hears(bob, [(0.6, Onset(0.4)), (1.3, Final(TRIED))]), Deepgram() as server:
        stt = Provider(provider="deepgram", options=server.options)
        server.key = "another"
        async with listening(WavSource(speech("beckett.wav")), alice, stt=stt, realtime=True):
            await alice.until(lambda heard: bool(heard.of(SourceDown) and heard.of(VadEnded)))
            await bob.until(lambda heard: bool(heard.of(VadStarted) and heard.of(SttTranscript)))

    assert outages(alice) == [("SourceDown", "stt", "refused")]
    assert not outages(bob)
    assert [said.text for said in bob.of(SttTranscript) if said.final] == ["Ever tried."]
