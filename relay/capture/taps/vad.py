"""Raw voice activity, of which a LiveKit session has no public event: a detector that wraps another one."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from livekit import rtc
from livekit.agents import vad

from relay.capture.guard import Guard
from relay.capture.lead import Lead
from relay.capture.position import position
from relay.capture.source import SAMPLE_RATE
from relay.capture.taps.probability import Probability
from relay.events.vad import VadEnd
from relay.speech.observations import VadEnded, VadStarted

Report = Callable[[VadStarted | VadEnded], None]


class TappedVad(vad.VAD):
    """The detector ``inner`` as it is, with every start and end of speech reported on the way.

    Its metrics are not passed on: a session keeps every one of them for as long as it lives, 10 MB an hour.
    ``on_closed`` is called when a stream of it is over, which for LiveKit is also the answer to one that fails.
    """

    def __init__(
        self, inner: vad.VAD, *, report: Report, on_closed: Callable[[], None], lead: Lead, guard: Guard
    ) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner = inner
        self._report = report
        self._on_closed = guard(on_closed)
        self._lead = lead
        self._guard = guard

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def stream(self) -> vad.VADStream:
        tapped = _TappedStream(self._inner.stream(), Segments(self._report, self._lead), self._on_closed, self._guard)
        # VADStream's constructor starts tasks of its own, so the wrapper has its methods without being one.
        return cast("vad.VADStream", tapped)


class _TappedStream:
    def __init__(self, inner: vad.VADStream, segments: "Segments", on_closed: Callable[[], None], guard: Guard) -> None:
        self._inner = inner
        self._pushed = guard(segments.pushed)
        self._happened = guard(segments.happened)
        self._flushed = guard(segments.flushed)
        self._closed = guard(segments.closed)
        self._on_closed = on_closed

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self._pushed(frame)
        self._inner.push_frame(frame)

    def flush(self) -> None:
        self._flushed()
        self._inner.flush()

    def end_input(self) -> None:
        self._inner.end_input()

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._closed()
        self._on_closed()

    def __aiter__(self) -> "_TappedStream":
        return self

    async def __anext__(self) -> vad.VADEvent:
        event = await anext(self._inner)
        self._happened(event)
        return event


@dataclass(slots=True)
class _Epoch:
    """Audio between two flushes. The detector's clock starts anew with each."""

    base: int
    """Where in the stream it starts, in samples."""
    pushed: int = 0


class Segments:
    """Turns a detector's events into starts and ends that pair, on the stream's own clock."""

    def __init__(self, report: Report, lead: Lead) -> None:
        self._report = report
        self._lead = lead
        self._epochs: deque[_Epoch] = deque()
        self._fresh = True
        self._stale = False
        self._last_index = 0
        self._speaking = False
        self._speech_until_ms = 0
        self._probability = Probability()

    def pushed(self, frame: rtc.AudioFrame) -> None:
        """Note audio that goes in."""
        if self._fresh:
            # What LiveKit makes up itself bears no position: it comes after all that does.
            after = self._epochs[-1].base + self._epochs[-1].pushed if self._epochs else 0
            at = position(frame)
            self._epochs.append(_Epoch(base=after if at is None else at))
            self._fresh = False
        self._epochs[-1].pushed += frame.samples_per_channel

    def happened(self, event: vad.VADEvent) -> None:
        """Report what the event means."""
        match event.type:
            case vad.VADEventType.INFERENCE_DONE:
                self._inferred(event)
            case vad.VADEventType.START_OF_SPEECH if not self._stale and not self._speaking:
                self._speaking = True
                self._probability.started()
                self._speech_until_ms = self._ms(event.timestamp)
                self._report(
                    VadStarted(
                        onset_ms=self._ms(event.timestamp - event.speech_duration),
                        speech_ms=round(event.speech_duration * 1000),
                        probability=self._probability.peak,
                    )
                )
            case vad.VADEventType.END_OF_SPEECH if not self._stale:
                self._end(
                    "silence",
                    self._ms(event.timestamp - event.silence_duration),
                    speech_ms=round(event.speech_duration * 1000),
                    silence_ms=round(event.silence_duration * 1000),
                )

    def flushed(self) -> None:
        """The detector forgets what it is in the middle of: events still on their way count for nothing."""
        self._end("flushed", self._speech_until_ms)
        self._fresh = True
        self._stale = self._last_index > 0

    def closed(self) -> None:
        """The detector is gone."""
        self._end("closed", self._speech_until_ms)
        self._lead.lost("vad")

    def _inferred(self, event: vad.VADEvent) -> None:
        if event.samples_index <= self._last_index:
            self._stale = False
            if len(self._epochs) > 1:
                self._epochs.popleft()
        self._last_index = event.samples_index
        # A flush may follow so soon that an epoch is too short for a single inference.
        while len(self._epochs) > 1 and self._epochs[0].pushed < event.timestamp * SAMPLE_RATE:
            self._epochs.popleft()
        self._probability.heard(event)
        if event.raw_accumulated_silence == 0:
            self._speech_until_ms = self._ms(event.timestamp)
        if self._epochs:
            self._lead.heard("vad", self._epochs[0].base + round(event.timestamp * SAMPLE_RATE))

    def _end(self, reason: VadEnd, end_ms: int, speech_ms: int | None = None, silence_ms: int | None = None) -> None:
        if not self._speaking:
            return
        self._speaking = False
        self._report(
            VadEnded(
                end_ms=end_ms,
                reason=reason,
                speech_ms=speech_ms,
                silence_ms=silence_ms,
                probability_peak=self._probability.peak,
                probability_mean=self._probability.mean,
            )
        )

    def _ms(self, seconds: float) -> int:
        base = self._epochs[0].base if self._epochs else 0
        return max(0, round(base * 1000 / SAMPLE_RATE + seconds * 1000))
