"""One audio clock for a session's detectors, each of which counts its own audio."""

from collections.abc import Callable
from dataclasses import replace

from livekit import rtc

from relay.capture.audio.clock_anchors import Anchors
from relay.capture.audio.frames import length, position, stamp, to_ms
from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.livekit.stats import JitterBuffer
from relay.clock import Clock
from relay.speech.observations import (
    Anchored,
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SttEnded,
    SttStarted,
    SttTranscript,
    VadEnded,
    VadStarted,
)


class MediaClock:
    """Counts the session's audio in samples since a detector got its first frame.

    ``on_anchor`` gets each point at which media and wall clock are tied.
    """

    def __init__(self, clock: Clock, on_anchor: Callable[[Anchored], None]) -> None:
        self._clock = clock
        self._on_anchor = on_anchor
        self._anchors = Anchors()
        self.jitter: JitterBuffer | None = None
        """The audio delay before the session receives it, where known."""
        self.ends = 0

    @property
    def heard_ms(self) -> int:
        """The audio counted so far, in milliseconds."""
        return to_ms(self.ends)

    def tie_again(self) -> None:
        """Report an anchor with the next frame, whether or not it is new."""
        self._anchors = Anchors()

    def reached(self, start: int, end: int) -> None:
        """Count the audio from ``start`` to ``end``, for the first detector or for another one."""
        if end <= self.ends:
            return
        self.ends = end
        held_back_ms = 0 if self.jitter is None else round(self.jitter.behind_s * 1000)
        began = self._clock.now_ms() - to_ms(end - start) - held_back_ms
        if (anchor := self._anchors.arrived(to_ms(start), began)) is not None:
            self._on_anchor(anchor)


class Feed:
    """The audio of one detector's stream. It has no gaps: the detector gets silence for audio that it must not
    process."""

    def __init__(self, media: MediaClock) -> None:
        self._media = media
        self._given = 0
        self.begins: int | None = None
        """Its first sample's place on the media clock; None before the first frame."""

    @property
    def begins_ms(self) -> int:
        return to_ms(self.begins or 0)

    @property
    def ends_ms(self) -> int:
        """Where the audio that the detector was given ends on the media clock."""
        return to_ms((self.begins or 0) + self._given)

    @property
    def given_s(self) -> float:
        """How much audio the detector was given, in seconds."""
        return self._given / SAMPLE_RATE

    def take(self, frame: rtc.AudioFrame) -> None:
        """Place a frame on the media clock: the detectors get the same frames, one after the other."""
        if self.begins is None:
            placed = position(frame)
            self.begins = self._media.ends if placed is None else placed
        start = self.begins + self._given
        self._given += length(frame)
        stamp(frame, start)
        self._media.reached(start, self.begins + self._given)


def shifted(observation: Observation, by_ms: int) -> Observation:
    """The observation with shifted media times. (The tracker handles times below 0.)"""

    def moved(at_ms: int | None) -> int | None:
        return None if at_ms is None else at_ms + by_ms

    match observation:
        case Anchored(media_ms=media_ms):
            return replace(observation, media_ms=media_ms + by_ms)
        case VadStarted(onset_ms=onset_ms):
            return replace(observation, onset_ms=onset_ms + by_ms)
        case VadEnded(end_ms=end_ms):
            return replace(observation, end_ms=moved(end_ms))
        case (
            SttStarted(at_ms=at_ms) | SttEnded(at_ms=at_ms) | RealtimeStarted(at_ms=at_ms) | RealtimeEnded(at_ms=at_ms)
        ):
            return replace(observation, at_ms=moved(at_ms))
        case SttTranscript(start_ms=start_ms, end_ms=end_ms, words=words):
            placed = (replace(word, start_ms=moved(word.start_ms), end_ms=moved(word.end_ms)) for word in words)
            return replace(observation, start_ms=moved(start_ms), end_ms=moved(end_ms), words=tuple(placed))
        case _:
            return observation
