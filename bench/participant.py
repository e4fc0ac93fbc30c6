"""A process that listens to several people: ``python -m bench.participant HOW VAD RATE PEOPLE [URL KEY]``.

HOW is ``livekit`` (an ``rtc.AudioStream`` with LiveKit's own settings, into the plugin's own stream), ``bare`` (the
same with the relay's settings of the AudioStream), ``relay`` (the relay's stream sessions, voice detection only) or
``stt`` (those, and Deepgram's plugin against a stand-in at URL). All of them hear one local track of RATE Hz, in real
time, without a server or decoder, on the event loop that jobs have. Prints :class:`Cost` as JSON.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import uvloop
from livekit import rtc
from livekit.agents import vad

from relay.capture.audio.source import SAMPLE_RATE, Track
from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Detectors, Providers
from relay.capture.livekit.frame_router import FrameRouter
from relay.capture.livekit.stats import JitterBuffer, RoomStats
from relay.capture.livekit.track_audio import FRAME_MS, TrackAudio
from relay.capture.session.stream_session import StreamSession
from relay.capture.vad.provider import load_vad
from relay.clock import SystemClock
from relay.config.capture import Provider
from relay.events.envelope import ParticipantRef, RoomRef
from tests.support.audio.speech import speech

FEED_S, WARM_UP_S, SECONDS = 2.0, 2.0, 8.0
OUT_OF_STEP_S = 0.007
"""Delay between participants' starts: their audio does not arrive in step."""
WINDOW_S = 0.032
"""Audio that a detector processes in one step."""


@dataclass
class Cost:
    """Cost per participant, beyond that of the process and the track without listeners."""

    cpu_percent: float = 0.0
    """Of one core."""
    mib: float = 0.0
    behind_s: float = 0.0
    """How far the detectors were behind at the end."""


class Counted(vad.VAD):
    """The detector ``inner``, unchanged, with a count of its processing steps."""

    def __init__(self, inner: vad.VAD) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner = inner
        self.inferences = 0

    def stream(self) -> vad.VADStream:
        return cast("vad.VADStream", _CountedStream(self, self._inner.stream()))


class _CountedStream:
    def __init__(self, counted: Counted, inner: vad.VADStream) -> None:
        self._counted, self._inner = counted, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> "_CountedStream":
        return self

    async def __anext__(self) -> vad.VADEvent:
        event = await anext(self._inner)
        self._counted.inferences += event.type is vad.VADEventType.INFERENCE_DONE
        return event


class NoStats(RoomStats):
    """A local track has no receiver, and would be asked for one twice a second; a room's are polled all at once."""

    def follow(self, track: rtc.Track) -> JitterBuffer:
        return JitterBuffer()

    def forget(self, buffer: JitterBuffer) -> None:
        pass


async def local_track(rate: int) -> tuple[rtc.AudioSource, rtc.LocalAudioTrack]:
    """Half a minute of speech on a track; queued at once, so that feeding it costs nothing during the run."""
    frames = [frame async for frame in WavSource(speech("two_cities.wav"), realtime=False)]
    if rate != SAMPLE_RATE:
        resampler = rtc.AudioResampler(SAMPLE_RATE, rate)
        frames = [out for frame in frames for out in resampler.push(frame)]
    pcm = b"".join(bytes(frame.data) for frame in frames)[: 30 * 2 * rate]
    source = rtc.AudioSource(rate, 1, queue_size_ms=31_000)
    track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
    await source.capture_frame(rtc.AudioFrame(pcm, rate, 1, len(pcm) // 2))
    return source, track


async def listen(detectors: Detectors, track: rtc.LocalAudioTrack, people: int) -> list[Any]:
    """Start the relay's sessions; the caller must keep the returned objects."""
    sessions, stats = [], NoStats(rtc.Room())
    for person in range(people):
        session = StreamSession(_participant(person, track, stats), detectors, lambda observation: None, SystemClock())
        await session.start()
        sessions.append(session)
        await asyncio.sleep(OUT_OF_STEP_S)
    return sessions


async def listen_barely(how: str, detector: vad.VAD, track: rtc.LocalAudioTrack, people: int) -> list[Any]:
    """The same without the relay."""
    new_audio = _as_the_relay if how == "bare" else _as_livekit
    steps = []
    for _ in range(people):
        audio, ear = new_audio(track), detector.stream()
        steps += [asyncio.create_task(step) for step in (_forward(audio, ear), _hear(ear))]
        await asyncio.sleep(OUT_OF_STEP_S)
    return steps


async def _as_livekit(track: rtc.Track) -> AsyncIterator[rtc.AudioFrame]:
    async for event in rtc.AudioStream.from_track(track=track, sample_rate=SAMPLE_RATE, num_channels=1):
        yield event.frame


async def _as_the_relay(track: rtc.Track) -> AsyncIterator[rtc.AudioFrame]:
    stream = rtc.AudioStream.from_track(track=track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=FRAME_MS)
    async for frame, _ in FrameRouter(stream):
        yield frame


async def _forward(audio: AsyncIterator[rtc.AudioFrame], ear: vad.VADStream) -> None:
    async for frame in audio:
        ear.push_frame(frame)


async def _hear(ear: vad.VADStream) -> None:
    async for _ in ear:
        pass


def _participant(person: int, track: rtc.Track, stats: RoomStats) -> Track:
    return Track(
        room=RoomRef(sid="RM_bench", name="bench"),
        participant=ParticipantRef(sid=f"PA_{person}", identity=f"p{person}", name="", kind="standard", attributes={}),
        sid=f"TR_{person}",
        source="microphone",
        audio=TrackAudio(track, stats),
        subscribed_at=0,
    )


@contextmanager
def share_of_a_core() -> Iterator[Callable[[], float]]:
    """Percent of a core that this process used during the block, threads included."""
    cpu, began = time.process_time(), time.perf_counter()
    ended: list[float] = []
    yield lambda: ended[0]
    ended.append(100 * (time.process_time() - cpu) / (time.perf_counter() - began))


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measured(how: str, detector: str, rate: int, people: int, url: str = "", key: str = "") -> Cost:
    words = Provider(provider="deepgram", options={"base_url": url, "api_key": key}) if how == "stt" else None
    detectors = Providers(Provider(provider=detector), words or Provider(provider="none")).detectors()
    by_the_relay = how in ("relay", "stt")
    ears = detectors.shared_vad if by_the_relay else load_vad(Provider(provider=detector))
    assert ears is not None
    counted = Counted(ears)
    source, track = await local_track(rate)
    with share_of_a_core() as feed:
        await asyncio.sleep(FEED_S)
    gc.collect()
    mib, began = resident_mib(), time.perf_counter()
    if by_the_relay:
        kept = await listen(replace(detectors, shared_vad=counted), track, people)
    else:
        kept = await listen_barely(how, counted, track, people)
    began += people * OUT_OF_STEP_S / 2
    await asyncio.sleep(WARM_UP_S)
    with share_of_a_core() as whole:
        await asyncio.sleep(SECONDS)
    heard_s = counted.inferences * WINDOW_S / people
    behind_s = time.perf_counter() - began - heard_s
    gc.collect()
    cost = Cost((whole() - feed()) / people, (resident_mib() - mib) / people, behind_s)
    del kept, source
    return cost


async def _main(how: str, detector: str, rate: str, people: str, *provider: str) -> None:
    cost = await measured(how, detector, int(rate), int(people), *provider)
    print(json.dumps(asdict(cost)), flush=True)
    # Closing fifty sessions takes a while, and their remaining results are not needed.
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
