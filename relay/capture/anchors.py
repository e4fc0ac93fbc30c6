"""Ties the audio clock to the wall clock."""

from relay.speech.observations import Anchored

EARLY_MS = 5
LATE_MS = 150


class Anchors:
    """Decides when the audio clock needs a new tie to the wall clock.

    A frame was heard when it arrived, less its own length. From then on audio is expected at its own pace. A frame
    that comes earlier than expected shows that the tie was made on a late one, so it is made again; one that comes
    much later shows a gap in the audio. Between the two lies the network's jitter, which says nothing.
    """

    def __init__(self) -> None:
        self._tie: Anchored | None = None

    def arrived(self, media_ms: int, wall_ms: int) -> Anchored | None:
        """A frame that starts at ``media_ms`` was heard from ``wall_ms`` on: the new anchor, if one is needed."""
        if self._tie is not None:
            late = wall_ms - (self._tie.wall_ms + media_ms - self._tie.media_ms)
            if -EARLY_MS <= late <= LATE_MS:
                return None
        self._tie = Anchored(media_ms, wall_ms)
        return self._tie
