"""What waits in a track's audio while nobody takes it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit import rtc

from relay.capture.audio.frames import missed_before
from relay.capture.livekit import track_audio
from relay.capture.livekit.stats import RoomStats
from relay.capture.livekit.track_audio import Backlog, TrackAudio

RATE = 16_000


def tone(value: int) -> rtc.AudioFrame:
    """20 ms that can be told from the others."""
    return rtc.AudioFrame(value.to_bytes(2, "little") * (RATE // 50), RATE, 1, RATE // 50)


@asynccontextmanager
async def after_a_busy_second() -> AsyncIterator[TrackAudio]:
    """A track that gives two seconds, of which one has come while the event loop was busy with other things."""
    source = rtc.AudioSource(RATE, 1, queue_size_ms=3_000)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        await source.capture_frame(rtc.AudioFrame(bytes(4 * RATE), RATE, 1, 2 * RATE))
        async with asyncio.timeout(30):
            await anext(audio)
            time.sleep(1.0)  # noqa: ASYNC251 - that is what is tried
            yield audio
    finally:
        await audio.aclose()
        await source.aclose()


async def test_what_waits_for_too_long_is_dropped_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_audio, "MOST_WAITING_MS", 320)
    source = rtc.AudioSource(RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        for n in range(40):
            await source.capture_frame(tone(100 * (n + 1)))
        async with asyncio.timeout(30):
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
    assert levels[0] > 1_200, "what came first is gone"


async def test_who_falls_behind_goes_on_with_what_is_said_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_audio, "MOST_MS", 320)
    monkeypatch.setattr(track_audio, "CAUGHT_UP_MS", 96)
    async with after_a_busy_second() as audio:
        taken = [await anext(audio) for _ in range(20)]
    (missed_ms,) = [missed_before(frame) for frame in taken if missed_before(frame)]
    assert 600 < missed_ms < 1_100
    assert audio.dropped_ms == 0, "that is what waits while nobody takes it"


async def test_the_last_words_of_one_who_leaves_are_kept_however_busy_it_was() -> None:
    async with after_a_busy_second() as audio:
        audio.finish()
        left = [frame async for frame in audio]
    assert sum(frame.duration for frame in left) > 0.7


async def test_a_reader_gets_the_audio_that_came_and_then_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = 0

    def breaks(_frame: rtc.AudioFrame, _began: float) -> None:
        nonlocal came
        came += 1
        if came > 5:
            raise IndexError("pop from an empty deque")

    monkeypatch.setattr(track_audio, "heard_from", breaks)
    source = rtc.AudioSource(RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        for _ in range(20):
            await source.capture_frame(tone(100))
        async with asyncio.timeout(30):
            heard = [await anext(audio) for _ in range(5)]
            for _ in range(2):
                with pytest.raises(IndexError):
                    await anext(audio)
    finally:
        await audio.aclose()
        await source.aclose()
    assert len(heard) == 5
    with pytest.raises(StopAsyncIteration):
        await anext(audio)


@pytest.mark.parametrize(
    ("waiting", "passed_over"),
    [
        ([0, 32, 30_000], [False, False, False]),
        ([30_032, 15_000, 1_032, 1_000, 30_000], [True, True, True, False, False]),
    ],
)
def test_one_gap_is_better_than_many(waiting: list[int], passed_over: list[bool]) -> None:
    behind = Backlog()
    assert [behind.passed_over(waiting_ms) for waiting_ms in waiting] == passed_over


async def test_what_is_taken_in_time_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_audio, "MOST_WAITING_MS", 320)
    source = rtc.AudioSource(RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))
    try:
        for n in range(40):
            await source.capture_frame(tone(100 * n))
        async with asyncio.timeout(30):
            for _ in range(30):
                await anext(audio)
        assert audio.dropped_ms == 0
    finally:
        await audio.aclose()
        await source.aclose()


async def test_audio_that_was_on_its_way_does_not_say_that_it_is_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    source = rtc.AudioSource(RATE, 1)
    audio = TrackAudio(rtc.LocalAudioTrack.create_audio_track("voice", source), RoomStats(rtc.Room()))

    async def until_heard(value: int) -> None:
        for _ in range(5):
            await source.capture_frame(tone(value))
        while (await anext(audio)).data[160] != value:
            pass

    try:
        async with asyncio.timeout(30):
            await until_heard(100)
            audio.refuse()
            monkeypatch.setattr(track_audio, "IN_FLIGHT_S", 60.0)
            await until_heard(200)
            assert not audio.refused, "more may be on its way"
            monkeypatch.setattr(track_audio, "IN_FLIGHT_S", 0.0)
            assert audio.refused
            await until_heard(300)
            assert not audio.refused
    finally:
        await audio.aclose()
        await source.aclose()


async def test_audio_goes_on_where_the_track_was_subscribed_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track_audio, "IN_FLIGHT_S", 0.0)
    first, second = rtc.AudioSource(RATE, 1), rtc.AudioSource(RATE, 1)
    tracks = [rtc.LocalAudioTrack.create_audio_track("voice", source) for source in (first, second)]
    audio = TrackAudio(tracks[0], RoomStats(rtc.Room()))
    try:
        async with asyncio.timeout(30):
            for _ in range(10):
                await first.capture_frame(tone(100))
            while (await anext(audio)).data[160] != 100:  # the first frame may begin before the source is fed
                pass
            audio.refuse()
            assert audio.refused
            audio.renew(tracks[0])
            assert audio.refused, "nothing has changed"
            audio.renew(tracks[1])
            for _ in range(20):
                await second.capture_frame(tone(900))
            while (await anext(audio)).data[160] != 900:
                pass
            assert not audio.refused
            audio.finish()
            async for _ in audio:
                pass
    finally:
        await audio.aclose()
        await first.aclose()
        await second.aclose()


async def test_a_stereo_track_in_antiphase_is_heard() -> None:
    source = rtc.AudioSource(RATE, 2, queue_size_ms=1_000)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    audio = TrackAudio(track, RoomStats(rtc.Room()), stereo=True)
    antiphase = b"".join(
        (1_000).to_bytes(2, "little") + (-1_000).to_bytes(2, "little", signed=True) for _ in range(320)
    )
    try:
        for _ in range(20):
            await source.capture_frame(rtc.AudioFrame(antiphase, RATE, 2, 320))
        async with asyncio.timeout(30):  # the first frame may begin before the source is fed
            while 0 in (frame := await anext(audio)).data:
                pass
    finally:
        await audio.aclose()
        await source.aclose()
    assert frame.num_channels == 1
    assert set(frame.data) == {1_000}
