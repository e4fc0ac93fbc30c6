"""The newest audio of a track, kept for a connection that has to be made again."""

from collections import deque
from collections.abc import Iterator

from livekit import rtc

from relay.capture.audio.frame_metadata import position


class KeptAudio:
    """Frames in order, each with its place in the stream in samples."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, rtc.AudioFrame]] = deque()
        self._next = 0

    @property
    def begins(self) -> int:
        """Where the oldest frame lies."""
        return self._frames[0][0] if self._frames else self._next

    @property
    def ends(self) -> int:
        """Where the next frame will lie."""
        return self._next

    def add(self, frame: rtc.AudioFrame, most: int) -> None:
        """Keep the frame, and of those before it no more than makes ``most`` samples in all."""
        at = position(frame)
        # What LiveKit makes up itself bears no position: it comes after all that does.
        start = self._next if at is None else at
        self._frames.append((start, frame))
        self._next = start + frame.samples_per_channel
        self.forget(self._next - most)

    def forget(self, until: int) -> None:
        """Drop the frames that lie wholly before this sample."""
        while self._frames and self._frames[0][0] + self._frames[0][1].samples_per_channel <= until:
            self._frames.popleft()

    def __iter__(self) -> Iterator[rtc.AudioFrame]:
        return (frame for _, frame in self._frames)
