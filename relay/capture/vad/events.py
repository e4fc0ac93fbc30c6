"""Turns a voice activity detector's events into observations."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc
from livekit.agents import vad

from relay.capture.audio.frames import length, position
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.progress import Backpressure
from relay.events.detectors import VadEnd
from relay.speech.observations import VadEnded, VadStarted


class Probability:
    """Peak and mean over the inferences of a segment, which only INFERENCE_DONE events carry.

    The silence that a detector waits for before it ends a segment does not count.
    """

    def __init__(self) -> None:
        self._speaking = False
        self._peak = 0.0
        self._total = 0.0
        self._count = 0
        self._pending: list[float] = []

    @property
    def peak(self) -> float | None:
        return round(self._peak, 4) if self._count else None

    @property
    def mean(self) -> float | None:
        return round(self._total / self._count, 4) if self._count else None

    def heard(self, event: vad.VADEvent) -> None:
        """Take an inference. Its ``raw_accumulated_*`` precede it: they classify the earlier inferences."""
        if event.speaking:
            if event.raw_accumulated_silence == 0:
                self._settle()
        elif event.raw_accumulated_speech == 0:
            self._pending.clear()
        self._pending.append(event.probability)

    def started(self) -> None:
        """The inferences that led to this start are the segment's first ones."""
        self._peak = self._total = 0.0
        self._count = 0
        self._settle()

    def _settle(self) -> None:
        self._total += sum(self._pending)
        self._count += len(self._pending)
        self._peak = max([self._peak, *self._pending])
        self._pending.clear()


Report = Callable[[VadStarted | VadEnded], None]


@dataclass(slots=True)
class _Epoch:
    """Audio between two flushes. The detector's clock restarts with each."""

    base: int
    """Its start in the stream, in samples."""
    pushed: int = 0


class Segments:
    """Turns a detector's events into paired starts and ends, on the stream's own clock."""

    def __init__(self, report: Report, lead: Backpressure) -> None:
        self._report = report
        self._lead = lead
        self._epochs: deque[_Epoch] = deque()
        self._fresh = True
        self._stale = False
        self._last_index = 0
        self._speaking = False
        self._speech_until_ms = 0
        self._probability = Probability()
        self.heard_to: int | None = None
        """The detector's progress in the stream, in samples."""

    @property
    def speaking(self) -> bool:
        return self._speaking

    def pushed(self, frame: rtc.AudioFrame) -> None:
        """Note audio that goes in."""
        if self._fresh:
            # Audio that LiveKit inserts has no position: it comes after all audio that has one.
            after = self._epochs[-1].base + self._epochs[-1].pushed if self._epochs else 0
            at = position(frame)
            self._epochs.append(_Epoch(base=after if at is None else at))
            self._fresh = False
        self._epochs[-1].pushed += length(frame)

    def happened(self, event: vad.VADEvent) -> None:
        """Report the event's meaning."""
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
        """The detector drops the speech in progress: pending events no longer count."""
        self._end("flushed", self._speech_until_ms)
        self._fresh = True
        self._stale = self._last_index > 0

    def closed(self) -> None:
        """The detector is gone."""
        self._end("closed", self._speech_until_ms)

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
            self.heard_to = self._epochs[0].base + round(event.timestamp * SAMPLE_RATE)
            self._lead.heard("vad", self.heard_to)

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
