"""Maps between three clocks: audio, wall and waiting time. All in integer milliseconds."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from relay.events.envelope import Detector

KEPT_ANCHORS = 4096
"""Older anchors are dropped. At one per second this is more than an hour: longer than any utterance waits."""


@dataclass(frozen=True, slots=True)
class Span:
    """A position in the stream's audio; None where it was not measured."""

    start_ms: int | None = None
    end_ms: int | None = None
    timed_by: Detector | None = None
    reliable: bool = True


NOWHERE = Span()


class AudioClock:
    """Maps media time to wall time through sample anchors.

    A media time uses the newest anchor at or before it; before the first anchor, the first. So a pause of the sender,
    after which the samples continue but wall time has advanced, shifts only what follows it.
    """

    def __init__(self) -> None:
        self._media: list[int] = []
        self._wall: list[int] = []

    def anchor(self, media_ms: int, wall_ms: int) -> None:
        """Add an anchor: ``media_ms`` was captured at ``wall_ms``. A second anchor at the same media time replaces the
        first."""
        at = bisect_left(self._media, media_ms)
        if at < len(self._media) and self._media[at] == media_ms:
            self._wall[at] = wall_ms
            return
        self._media.insert(at, media_ms)
        self._wall.insert(at, wall_ms)
        if len(self._media) > KEPT_ANCHORS:
            del self._media[: KEPT_ANCHORS // 2], self._wall[: KEPT_ANCHORS // 2]

    def wall(self, media_ms: int | None) -> int | None:
        """Epoch milliseconds at which this media time was captured; None without a time or an anchor."""
        if media_ms is None or not self._media:
            return None
        at = max(bisect_right(self._media, media_ms) - 1, 0)
        return self._wall[at] + media_ms - self._media[at]

    def media(self, wall_ms: int) -> int | None:
        """The media time captured at this wall time, by the newest anchor; None without one."""
        return max(0, self._media[-1] + wall_ms - self._wall[-1]) if self._media else None


class Waiting:
    """Waits by elapsed time: a wall clock that is set neither delays nor hastens a deadline."""

    def __init__(self) -> None:
        self._ahead = 0

    def advance(self, wall_ms: int, steady_ms: int) -> int:
        """The waiting time at this wall time: the elapsed time."""
        self._ahead = wall_ms - steady_ms
        return steady_ms

    def wall(self, waiting_ms: int) -> int:
        """The wall time of a waiting time, by the current state of the clock."""
        return waiting_ms + self._ahead
