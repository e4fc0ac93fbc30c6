"""Where the audio of a track lies and when it was heard: WebRTC resamples it and holds it back."""

import asyncio

import pytest
from livekit import rtc

from relay.capture.audio.frames import age_ms, heard_from, length
from relay.capture.audio.source import SAMPLE_RATE, AudioSource
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import Watchdog
from relay.capture.livekit import stats
from relay.capture.livekit.stats import JitterBuffer, RoomStats
from relay.capture.livekit.track_audio import FRAME_MS, TrackAudio
from relay.capture.session.audio_input import StreamInput
from relay.clock import SystemClock
from relay.speech.observations import Anchored

LOUD, SILENT = b"\0\x40", b"\0\0"


def inbound(delay: float, emitted: int) -> rtc.stats.RtcStats:
    said = rtc.stats.RtcStats()
    said.inbound_rtp.inbound.jitter_buffer_delay = delay
    said.inbound_rtp.inbound.jitter_buffer_emitted_count = emitted
    return said


def test_audio_is_held_back_for_as_long_as_what_came_out_last() -> None:
    buffer = JitterBuffer()
    coded = buffer.behind_s
    assert coded == pytest.approx(0.0165)

    buffer.look(inbound(480.0, 48_000).inbound_rtp.inbound)
    assert buffer.behind_s - coded == pytest.approx(0.01)
    buffer.look(inbound(480.0 + 4_800.0, 96_000).inbound_rtp.inbound)
    assert buffer.behind_s - coded == pytest.approx(0.1)
    buffer.look(inbound(480.0 + 4_800.0, 96_000).inbound_rtp.inbound)
    assert buffer.behind_s - coded == pytest.approx(0.1), "nothing came out: nothing is known that is newer"


async def test_a_frame_was_heard_before_the_jitter_buffer_held_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_seconds(track: rtc.Track) -> list[rtc.stats.RtcStats]:
        return [inbound(96_000.0, 48_000)]

    monkeypatch.setattr(rtc.Track, "get_stats", two_seconds)
    monkeypatch.setattr(stats, "LOOK_EVERY_S", 0.01)
    source = rtc.AudioSource(SAMPLE_RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    silence = rtc.AudioFrame(SILENT * 1600, SAMPLE_RATE, 1, 1600)
    try:
        async with asyncio.timeout(30):
            while True:
                await source.capture_frame(silence)
                if age_ms(await anext(audio), asyncio.get_running_loop().time()) >= 2_000 + FRAME_MS:
                    break
    finally:
        await audio.aclose()
        await source.aclose()


async def test_a_track_without_statistics_is_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def none(track: rtc.Track) -> list[rtc.stats.RtcStats]:
        asked.set()
        raise Exception("track not found")  # noqa: TRY002 - what LiveKit raises

    monkeypatch.setattr(rtc.Track, "get_stats", none)
    monkeypatch.setattr(stats, "LOOK_EVERY_S", 0.01)
    source = rtc.AudioSource(SAMPLE_RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        async with asyncio.timeout(30):
            await asked.wait()
            await source.capture_frame(rtc.AudioFrame(SILENT * 1600, SAMPLE_RATE, 1, 1600))
            assert age_ms(await anext(audio), asyncio.get_running_loop().time()) >= FRAME_MS
    finally:
        await audio.aclose()
        await source.aclose()


TAKES = 3
"""At most: a source that a busy machine feeds too late gives silence meanwhile, which moves what follows."""


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
async def test_resampled_audio_has_the_place_that_it_was_said_at(rate: int) -> None:
    """Half a second of noise, half a second into what is captured, at every rate that a publisher may have."""
    for _ in range(TAKES):
        began_ms, ended_ms = await noise_heard(rate)
        if began_ms < 515 and ended_ms < 1015:
            break
    assert began_ms == pytest.approx(500, abs=15)
    assert ended_ms == pytest.approx(1000, abs=15)


async def noise_heard(rate: int) -> tuple[float, float]:
    """Where the noise begins and ends in what is heard of it."""
    tick = rate // 100
    source = rtc.AudioSource(rate, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        for n in range(150):
            value = LOUD if 50 <= n < 100 else SILENT
            await source.capture_frame(rtc.AudioFrame(value * tick, rate, 1, tick))
        heard: list[int] = []
        async with asyncio.timeout(30):
            while len(heard) < 1.4 * SAMPLE_RATE:
                frame = await anext(audio)
                assert (frame.sample_rate, length(frame)) == (SAMPLE_RATE, SAMPLE_RATE * FRAME_MS // 1000)
                heard += frame.data.tolist()
    finally:
        await audio.aclose()
        await source.aclose()
    loud = [at for at, value in enumerate(heard) if value > 0x2000]
    return loud[0] * 1000 / SAMPLE_RATE, loud[-1] * 1000 / SAMPLE_RATE


class Waited:
    """A source whose frames were heard some time before they are taken."""

    dropped_ms = 0

    def __init__(self, frames: list[rtc.AudioFrame]) -> None:
        self._frames = frames

    def __aiter__(self) -> "Waited":
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        if not self._frames:
            raise StopAsyncIteration
        return self._frames.pop(0)

    async def aclose(self) -> None:
        self._frames.clear()


def stream_input(source: AudioSource, anchors: list[Anchored]) -> StreamInput:
    return StreamInput(
        source,
        clock=SystemClock(),
        lead=Backpressure(),
        tail_s=0,
        realtime=True,
        on_anchor=anchors.append,
        on_audio_back=lambda missed_ms: None,
        on_audio_missed=lambda missed_ms: None,
        watchdog=Watchdog(live=True, muted=False, transcribed=False),
    )


async def test_audio_that_waited_for_its_reader_was_heard_when_it_came() -> None:
    """A listener takes a while to open, and a session to be opened again."""
    loop = asyncio.get_running_loop()
    frames = [rtc.AudioFrame(SILENT * 320, SAMPLE_RATE, 1, 320) for _ in range(100)]
    for n, frame in enumerate(frames):
        heard_from(frame, loop.time() - 5 + n * 0.02)
    anchors: list[Anchored] = []
    audio = stream_input(Waited(frames), anchors)
    first_heard_at = SystemClock().now_ms() - 5_000
    for _ in range(100):
        await anext(audio)

    assert [anchor.media_ms for anchor in anchors] == [0], "they came at their own pace"
    assert anchors[0].wall_ms == pytest.approx(first_heard_at, abs=100)


async def test_a_frame_that_waits_grows_older() -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        async with asyncio.timeout(30):
            await source.capture_frame(rtc.AudioFrame(SILENT * 1600, SAMPLE_RATE, 1, 1600))
            frame = await anext(audio)
    finally:
        await audio.aclose()
        await source.aclose()
    now = asyncio.get_running_loop().time()

    assert age_ms(frame, now) >= FRAME_MS
    assert age_ms(frame, now + 5) == age_ms(frame, now) + 5_000
