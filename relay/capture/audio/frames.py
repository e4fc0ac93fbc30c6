"""Audio frames: the notes that they carry, their mix to mono, and a buffer of the newest."""

from collections import deque
from collections.abc import Iterator

import numpy as np
from livekit import rtc

from relay.capture.audio.source import SAMPLE_RATE

_KEY = "speech_relay.position"
_HEARD = "speech_relay.heard"
_MISSED = "speech_relay.missed"


def stamp(frame: rtc.AudioFrame, samples: int) -> None:
    """Note on the frame that it starts ``samples`` samples after the stream's first one."""
    frame.userdata[_KEY] = samples


def position(frame: rtc.AudioFrame) -> int | None:
    """The frame's start in samples since the stream's first one; None for audio that LiveKit inserted itself."""
    found = frame.userdata.get(_KEY)
    return found if isinstance(found, int) else None


def heard_from(frame: rtc.AudioFrame, monotonic_s: float) -> None:
    """Note the frame's capture time: the monotonic clock at its first sample, in seconds.

    Do not use the event loop's clock: uvloop updates it once per iteration.
    """
    frame.userdata[_HEARD] = monotonic_s


def age_ms(frame: rtc.AudioFrame, monotonic_s: float) -> int:
    """The age of the frame's first sample at that time; for a frame without a note, its length."""
    heard = frame.userdata.get(_HEARD)
    age_s = monotonic_s - heard if isinstance(heard, float) else frame.duration
    return round(age_s * 1000)


def comes_after_missed(frame: rtc.AudioFrame, ms: int) -> None:
    """Note on the frame how much audio before it was skipped."""
    frame.userdata[_MISSED] = ms


def missed_before(frame: rtc.AudioFrame) -> int:
    """The audio before the frame that was skipped, in milliseconds."""
    found = frame.userdata.get(_MISSED)
    return found if isinstance(found, int) else 0


def to_ms(samples: int) -> int:
    """Convert samples to milliseconds of media."""
    return round(samples * 1000 / SAMPLE_RATE)


def length(frame: rtc.AudioFrame) -> int:
    """The frame's length, in samples at ``SAMPLE_RATE``, whatever its own rate."""
    return frame.samples_per_channel * SAMPLE_RATE // frame.sample_rate


CANCELLED = 1 / 16
"""A share of the louder channel's energy. Where the mean of both has less, the channels cancel each other. A voice in
one channel only, the extreme of ordinary stereo, leaves a quarter."""


def mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Return the mean of a frame's two channels, or the louder one in antiphase.

    The mean of channels in antiphase (a microphone wired with inverted polarity, some stereo wideners) would be
    silence. A mono frame is returned as it is.
    """
    if frame.num_channels != 2:
        return frame
    samples = np.frombuffer(frame.data, np.int16)
    left, right = samples[0::2].astype(np.float32), samples[1::2].astype(np.float32)
    mean = (left + right) * np.float32(0.5)
    in_left, in_right = float(left @ left), float(right @ right)
    if float(mean @ mean) < CANCELLED * max(in_left, in_right):
        mean = left if in_left >= in_right else right
    return rtc.AudioFrame(mean.astype(np.int16).tobytes(), frame.sample_rate, 1, len(mean))


class KeptAudio:
    """A track's newest frames in order, kept for a reconnection, each with its position in the stream in samples."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, rtc.AudioFrame]] = deque()
        self._next = 0

    @property
    def begins(self) -> int:
        """The position of the oldest frame."""
        return self._frames[0][0] if self._frames else self._next

    @property
    def ends(self) -> int:
        """The position of the next frame."""
        return self._next

    def add(self, frame: rtc.AudioFrame, most: int) -> None:
        """Keep the frame, and drop older ones beyond ``most`` samples in all."""
        at = position(frame)
        # Audio that LiveKit inserts has no position: it comes after all audio that has one.
        start = self._next if at is None else at
        self._frames.append((start, frame))
        self._next = start + frame.samples_per_channel
        self.forget(self._next - most)

    def forget(self, until: int) -> None:
        """Drop the frames that end before this sample."""
        while self._frames and self._frames[0][0] + self._frames[0][1].samples_per_channel <= until:
            self._frames.popleft()

    def __iter__(self) -> Iterator[rtc.AudioFrame]:
        return (frame for _, frame in self._frames)
