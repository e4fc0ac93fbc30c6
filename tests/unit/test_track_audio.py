"""What waits in a track's audio while nobody takes it."""

import asyncio

import pytest
from livekit import rtc

from relay.capture.livekit import track_audio
from relay.capture.livekit.stats import RoomStats
from relay.capture.livekit.track_audio import TrackAudio

RATE = 16_000


def tone(value: int) -> rtc.AudioFrame:
    """20 ms that can be told from the others."""
    return rtc.AudioFrame(value.to_bytes(2, "little") * (RATE // 50), RATE, 1, RATE // 50)


async def test_what_waits_for_too_long_is_dropped_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_audio, "MOST_WAITING_MS", 320)
    source = rtc.AudioSource(RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        for n in range(40):
            await source.capture_frame(tone(100 * (n + 1)))
        async with asyncio.timeout(5):
            while audio.dropped_ms < 400:
                await source.capture_frame(tone(4_000))
        dropped_ms = audio.dropped_ms
        audio.finish()
        kept = [frame async for frame in audio]
    finally:
        await audio.aclose()
        await source.aclose()

    assert len(kept) == 10, "320 ms"
    assert dropped_ms >= 400
    levels = [frame.data[160] for frame in kept]
    assert levels == sorted(levels)
    assert levels[0] > 1_500, "what came first is gone"


async def test_what_is_taken_in_time_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_audio, "MOST_WAITING_MS", 320)
    source = rtc.AudioSource(RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        for n in range(40):
            await source.capture_frame(tone(100 * n))
        async with asyncio.timeout(10):
            for _ in range(30):
                await anext(audio)
        assert audio.dropped_ms == 0
    finally:
        await audio.aclose()
        await source.aclose()
