"""Buffers a track's newest audio for a reconnection."""

from collections import deque
from collections.abc import Iterator

from livekit import rtc

from relay.capture.audio.frames import position


class KeptAudio:
    """Frames in order, each with its position in the stream in samples."""

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
