"""A track with a realtime model, from its audio to its events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from relay.capture.audio.source import AudioSource
from relay.capture.session.stream_session import StreamSession
from relay.clock import SystemClock
from relay.config.capture import Realtime
from relay.events.envelope import StreamEvent
from relay.recording.recorder import StreamRecorder
from relay.speech.context import TrackerSettings
from relay.speech.observations import Observation
from relay.speech.tracker import Tracker
from tests.support.audio.speech import listening
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.unit.timelines.play import context

T = TypeVar("T", bound=StreamEvent)


@dataclass
class Told:
    """The tracker's events, and the operator's messages."""

    events: list[StreamEvent] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, events: Sequence[StreamEvent]) -> asyncio.Future[None]:
        self.events.extend(events)
        self._more.set()
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def types(self, *families: str) -> list[str]:
        return [event.type for event in self.events if event.type.split(".")[0] in families]

    async def until(self, condition: Callable[["Told"], bool], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while not condition(self):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def heard_by(
    server: OpenAIRealtime, audio: AudioSource, *, pace: bool = False, provider: Realtime | None = None
) -> AsyncIterator[tuple[StreamSession, Told]]:
    """A started session with LiveKit's own plugin and the stand-in; ``pace``: the audio comes as fast as it plays."""
    told, ids = Told(), count()
    model = provider or Realtime(provider="openai", options=server.options)
    tracker = Tracker(
        context(vad=None, stt=None, realtime="openai/gpt-realtime"),
        TrackerSettings(transcript_timeout_ms=1500),
        lambda: f"utt_{next(ids)}",
    )
    recorder = StreamRecorder(tracker, told, SystemClock())

    def observe(observation: Observation) -> None:
        recorder.observe(observation)

    try:
        async with listening(audio, observe, model=model, realtime=pace, on_fault=told.faults.append) as session:
            yield session, told
    finally:
        recorder.close()
    assert not server.wanted_to_speak
