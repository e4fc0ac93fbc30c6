"""(i) Memory that remains after an hour of speech through one stream, fed at full speed.

One person who hardly stops speaking: real voice detection, a speech-to-text that answers at once (an interim for every
second, a final for every six), the tracker, the recorder and the log in SQLite, interims included. A second run omits
the log: SQLite fills a page cache of up to 32 MiB as its file grows, one per process for all streams.
"""

import asyncio
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence

from livekit import rtc
from livekit.agents import LanguageCode, stt
from livekit.agents.voice.io import TimedString

from bench.participant import resident_mib
from relay.capture.audio.source import SAMPLE_RATE, Track
from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Detectors, Providers
from relay.clock import SystemClock
from relay.config.capture import Capture, Provider, Vad
from relay.config.models import Speech
from relay.events.envelope import ParticipantRef, RoomRef, StreamEvent
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream
from relay.recording.track import Listeners
from tests.support.audio.speech import speech
from tests.support.providers.streaming_stt import StreamingStt

PARTS = 10
PART_S = 360
INTERIM_S, FINAL_S = 1, 6


class Forgetful:
    """A log that stores nothing."""

    async def open_stream(self, stream: NewStream) -> "Forgetful":
        return self

    async def give_up(self, stream_id: str) -> None:
        pass

    async def append(self, events: Sequence[StreamEvent]) -> None:
        pass


class _Prompting(stt.RecognizeStream):
    """Recognizes every second of audio at once, as the same few words."""

    async def _run(self) -> None:
        samples = seconds = 0
        async for frame in self._input_ch:
            if isinstance(frame, rtc.AudioFrame):
                samples += frame.samples_per_channel
            while samples >= (seconds + INTERIM_S) * SAMPLE_RATE:
                seconds += INTERIM_S
                self._event_ch.send_nowait(_said(seconds, self.start_time_offset))


def _said(seconds: int, offset_s: float) -> stt.SpeechEvent:
    final = seconds % FINAL_S == 0
    begins = (seconds - 1) // FINAL_S * FINAL_S
    words = [
        TimedString(f"word{second - begins}", start_time=offset_s + second, end_time=offset_s + second + 0.9)
        for second in range(begins, seconds)
    ]
    return stt.SpeechEvent(
        type=stt.SpeechEventType.FINAL_TRANSCRIPT if final else stt.SpeechEventType.INTERIM_TRANSCRIPT,
        alternatives=[
            stt.SpeechData(
                language=LanguageCode("en"),
                text=" ".join(words),
                start_time=offset_s + begins,
                end_time=offset_s + seconds,
                confidence=0.9,
                words=words,
            )
        ],
    )


class Loop:
    """Repeat the frames at full speed. ``on_part`` is called after each part of the hour."""

    dropped_ms = 0

    def __init__(self, frames: Sequence[rtc.AudioFrame], on_part: Callable[[], None]) -> None:
        self._frames = frames
        self._on_part = on_part

    async def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        for _ in range(PARTS):
            samples = 0
            while samples < PART_S * SAMPLE_RATE:
                frame = self._frames[samples // self._frames[0].samples_per_channel % len(self._frames)]
                samples += frame.samples_per_channel
                yield rtc.AudioFrame(frame.data, frame.sample_rate, 1, frame.samples_per_channel)
                await asyncio.sleep(0)
            self._on_part()

    async def aclose(self) -> None:
        """Nothing to do: it ends with its listener."""


async def _hear_an_hour(database: str = "") -> None:
    """The measured process: MiB after each part, then how many seconds it took."""
    capture, clock = Capture(vad=Vad(provider="livekit")), SystemClock()
    providers = Providers(capture.vad, Provider(provider="none"))
    heard = providers.detectors()
    detectors = Detectors(
        vad=heard.vad,
        stt="prompter",
        shared_vad=heard.shared_vad,
        new_stt=lambda: StreamingStt(_Prompting),
        tail_s=heard.tail_s,
        paced=heard.paced,
    )
    # All of the same length, so that a position in the hour is an index.
    frames = [frame async for frame in WavSource(speech("two_cities.wav"), realtime=False)][:-1]
    outbox = await Outbox.open(database, name="bench", clock=clock) if database else None
    listeners = Listeners(outbox or Forgetful(), detectors, clock, capture=capture, speech=Speech(), realtime=False)
    began = time.perf_counter()
    parts: list[float] = []

    def on_part() -> None:
        gc.collect()
        parts.append(resident_mib())

    listener = await listeners(
        Track(
            room=RoomRef(sid="RM_bench", name="bench"),
            participant=ParticipantRef(sid="PA_1", identity="p1", name="", kind="standard", attributes={}),
            sid="TR_1",
            source="file",
            audio=Loop(frames, on_part),
            subscribed_at=0,
        )
    )
    assert listener is not None
    await listener.ended()
    await listener.close("unpublished")
    if outbox is not None:
        await outbox.aclose()
    await providers.aclose()
    print(*(f"{mib:.0f}" for mib in parts), f"{time.perf_counter() - began:.0f}", flush=True)


async def measure() -> None:
    print("\n(i) an hour of speech through one stream, as fast as it is taken: MiB of the process after each tenth")
    with tempfile.TemporaryDirectory() as folder:
        await _measure("with the log", f"sqlite:///{folder}/relay.db")
    await _measure("without", "")


async def _measure(how: str, database: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.hour", database], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    output, _ = await asyncio.to_thread(child.communicate, None, 1800)
    *parts, seconds = output.split()
    print(f"    {how:>12}: {' '.join(parts)}; {seconds} s")


if __name__ == "__main__":
    asyncio.run(_hear_an_hour(*sys.argv[1:]))
