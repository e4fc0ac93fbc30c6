"""Tracks side by side in one process: a reader is woken by its own track's frames only."""

import asyncio
import time
from itertools import pairwise

from livekit import rtc

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.livekit.frame_router import FrameRouter

FRAME_MS = 20


async def spoken(level: int) -> tuple[rtc.AudioSource, rtc.LocalAudioTrack]:
    """A second of a constant level on a track; the source must be kept."""
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=2000)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    pcm = level.to_bytes(2, "little") * SAMPLE_RATE
    await source.capture_frame(rtc.AudioFrame(pcm, SAMPLE_RATE, 1, SAMPLE_RATE))
    return source, track


async def listen(track: rtc.LocalAudioTrack, frames: int) -> tuple[set[int], set[int]]:
    """The levels of so many frames, and the streams whose frames woke this one."""
    stream = rtc.AudioStream.from_track(track=track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=FRAME_MS)
    own = FrameRouter(stream)
    came = stream._ffi_queue
    woken_by: set[int] = set()
    put = came.put_nowait

    def noted(event: rtc._proto.ffi_pb2.FfiEvent) -> None:
        woken_by.add(event.audio_stream_event.stream_handle - stream._ffi_handle.handle)
        put(event)

    came.put_nowait = noted
    levels: set[int] = set()
    async with asyncio.timeout(20):
        while frames:
            frame, _ = await anext(own)
            levels |= set(frame.data)
            frames -= 1
    await own.aclose()
    return levels, woken_by


async def test_a_stream_is_woken_by_its_own_frames_alone() -> None:
    """`AudioStream._ffi_queue`, `_ffi_handle`, `_queue`, `_loop`: capture.livekit.frame_router alone uses them."""
    loud, soft = await spoken(9000), await spoken(500)

    heard = await asyncio.gather(*(listen(track, 25) for _, track in (loud, soft)))

    for (levels, woken_by), level in zip(heard, (9000, 500), strict=True):
        assert level in levels
        assert levels <= {0, level}, "nothing of the other track"
        assert woken_by == {0}, "the other stream's frames are none of its business"


async def test_a_frame_came_when_it_came_however_busy_the_event_loop_is() -> None:
    source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=2000)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    own = FrameRouter(
        rtc.AudioStream.from_track(track=track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=FRAME_MS)
    )
    began = time.monotonic()
    await source.capture_frame(rtc.AudioFrame(bytes(2 * SAMPLE_RATE), SAMPLE_RATE, 1, SAMPLE_RATE))
    async with asyncio.timeout(20):
        await anext(own)
        time.sleep(0.5)  # noqa: ASYNC251 - it is busy
        busy_until = time.monotonic()
        came = [(await anext(own))[1] for _ in range(15)]
    await own.aclose()
    await source.aclose()
    assert came == sorted(came)
    assert came[0] > began
    assert sum(at < busy_until - 0.1 for at in came) >= 10, "while nobody looked"
    assert max(after - before for before, after in pairwise(came)) < 0.25
