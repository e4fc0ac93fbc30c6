"""Feeds an agent session one source's audio, with each frame's place in the stream."""

import asyncio
import time
from collections.abc import Callable

from livekit import rtc
from livekit.agents.voice import io

from relay.capture.audio.clock_anchors import Anchors
from relay.capture.audio.frames import age_ms, missed_before, stamp, to_ms
from relay.capture.audio.source import SAMPLE_RATE, AudioSource
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import Watchdog
from relay.clock import Clock
from relay.speech.observations import Anchored

_SILENCE = SAMPLE_RATE // 50
"""Samples per frame of the silence at the end: 20 ms."""


class StreamInput(io.AudioInput):
    """The session's audio input: the source's audio, then ``tail_s`` seconds of silence, so that voice activity and
    speech recognition finish the speech in progress themselves.

    ``on_anchor`` gets each tie of media and wall clock; its first call is the stream's first frame. A source that is
    faster than real time (``realtime`` false) is throttled to the detectors' pace, and gets the first anchor only: its
    wall times are those of real time. ``on_audio_back`` gets how many milliseconds no audio came, once it does after
    the watchdog raised an alarm; ``on_audio_missed`` gets how many milliseconds arrived and were skipped.
    """

    def __init__(
        self,
        source: AudioSource,
        *,
        clock: Clock,
        lead: Backpressure,
        tail_s: float,
        realtime: bool,
        on_anchor: Callable[[Anchored], None],
        on_audio_back: Callable[[int], None],
        on_audio_missed: Callable[[int], None],
        watchdog: Watchdog,
    ) -> None:
        super().__init__(label="speech-relay")
        self._source = source
        self._frames = aiter(source)
        self._clock = clock
        self._lead = lead
        self._realtime = realtime
        self._on_anchor = on_anchor
        self._on_audio_back = on_audio_back
        self._on_audio_missed = on_audio_missed
        self._watchdog = watchdog
        self._anchors = Anchors()
        self._heard = 0
        self._silence = 0
        self._tail = int(tail_s * SAMPLE_RATE)
        self._failure: Exception | None = None
        self._ended = asyncio.Event()
        self._drained = asyncio.Event()

    @property
    def heard_ms(self) -> int:
        """Audio from the source, in milliseconds."""
        return to_ms(self._heard)

    @property
    def dropped_ms(self) -> int:
        """Audio that waited for the session for too long, in milliseconds."""
        return self._source.dropped_ms

    async def ended(self) -> None:
        """Wait until the source ends. Raises the source's error."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def drained(self) -> None:
        """Wait until the session has taken everything, including the silence."""
        await self._drained.wait()

    async def __anext__(self) -> rtc.AudioFrame:
        self._watchdog.asked()
        if not self._ended.is_set():
            if not self._realtime:
                await self._lead.within()
            try:
                frame = await anext(self._frames)
            except StopAsyncIteration:
                self._end(None)
            except Exception as error:
                self._end(error)
            else:
                self._came(frame)
                self._anchor(frame)
                return self._placed(frame)
        if self._silence < self._tail:
            self._silence += _SILENCE
            return self._placed(rtc.AudioFrame.create(SAMPLE_RATE, 1, _SILENCE))
        self._drained.set()
        raise StopAsyncIteration

    def _end(self, failure: Exception | None) -> None:
        self._failure = failure
        self._ended.set()
        self._watchdog.over()

    def _came(self, frame: rtc.AudioFrame) -> None:
        gap_s = self._watchdog.frame(asyncio.get_running_loop().time())
        if gap_s is not None:
            self._on_audio_back(round(gap_s * 1000))
        if missed_ms := missed_before(frame):
            self._on_audio_missed(missed_ms)

    def _anchor(self, frame: rtc.AudioFrame) -> None:
        if self._realtime or self._heard == 0:
            began = self._clock.now_ms() - age_ms(frame, time.monotonic())
            if (anchor := self._anchors.arrived(self.heard_ms, began)) is not None:
                self._on_anchor(anchor)

    def _placed(self, frame: rtc.AudioFrame) -> rtc.AudioFrame:
        stamp(frame, self._heard + self._silence)
        if not self._ended.is_set():
            self._heard += frame.samples_per_channel
        self._lead.fed(self._heard + self._silence)
        return frame
