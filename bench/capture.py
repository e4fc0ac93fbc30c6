"""(c) What one participant costs: voice detection and the plumbing of a remote speech-to-text, ten people at once.

The people speak from a file in real time; the provider is Deepgram's plugin against a stand-in in another process.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence

from livekit import rtc

from relay.capture.providers.detectors import Providers
from relay.capture.session import StreamSession
from relay.capture.source import Track
from relay.capture.wav import WavSource
from relay.clock import SystemClock
from relay.config.capture import Provider
from relay.events.envelope import ParticipantRef, RoomRef
from relay.speech.observations import Observation
from tests.support.deepgram import Deepgram
from tests.support.speech import speech

PEOPLE, SECONDS, WARM_UP = 10, 30.0, 5.0


class Speech:
    """Audio from memory, in real time: decoding a file is nothing that a room's track costs."""

    def __init__(self, frames: Sequence[rtc.AudioFrame], late_s: float) -> None:
        self._frames = frames
        self._late_s = late_s

    async def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._late_s
        while True:
            for frame in self._frames:
                due += frame.duration
                await asyncio.sleep(due - loop.time())
                yield rtc.AudioFrame(frame.data, frame.sample_rate, 1, frame.samples_per_channel)

    async def aclose(self) -> None:
        """It ends with whoever listens."""


async def _listen(vad: str, options: dict[str, str]) -> None:
    """The measured process: CPU seconds per second of call and participant, in percent of a core."""
    providers = Providers(Provider(provider=vad), Provider(provider="deepgram", options=options))
    detectors, clock = providers.detectors(), SystemClock()
    heard: list[Observation] = []
    frames = [frame async for frame in WavSource(speech("two_cities.wav"), realtime=False)]
    sessions = [StreamSession(_track(person, frames), detectors, heard.append, clock) for person in range(PEOPLE)]
    for session in sessions:
        await session.start()
    await asyncio.sleep(WARM_UP)
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(SECONDS)
    share = (time.process_time() - cpu) / (time.perf_counter() - began) / PEOPLE
    starts = sum(type(observation).__name__ == "VadStarted" for observation in heard)
    print(f"{share * 100:.2f} {starts}", flush=True)
    await asyncio.gather(*(session.close("shutdown") for session in sessions))
    await providers.aclose()


def _track(person: int, frames: Sequence[rtc.AudioFrame]) -> Track:
    return Track(
        room=RoomRef(sid="RM_bench", name="bench"),
        participant=ParticipantRef(sid=f"PA_{person}", identity=f"p{person}", name="", kind="standard", attributes={}),
        sid=f"TR_{person}",
        source="file",
        audio=Speech(frames, late_s=person * 0.002),
        subscribed_at=0,
    )


async def measure() -> None:
    print(f"\n(c) capture, {PEOPLE} people speaking at once for {SECONDS:.0f} s: CPU per participant")
    async with Deepgram([[]]) as provider:
        options = provider.options
        for vad in ("silero", "livekit"):
            child = subprocess.Popen(
                [sys.executable, "-m", "bench.capture", vad, options["base_url"], options["api_key"]],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            output, _ = await asyncio.to_thread(child.communicate, None, SECONDS + 60)
            share, starts = output.split()
            print(f"    {vad:>8}: {share} % of a core each ({starts} starts of speech heard)")


if __name__ == "__main__":
    asyncio.run(_listen(sys.argv[1], {"base_url": sys.argv[2], "api_key": sys.argv[3]}))
