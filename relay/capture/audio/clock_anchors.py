"""Ties the audio clock to the wall clock."""

from relay.speech.observations import Anchored

EARLY_MS = 5
"""A frame earlier than expected by more than this shows that the anchor is wrong: no frame arrives before its time."""

LATE_MS = 60
"""A frame that is later than expected by more than this counts as the first one after a gap, at once."""

DRIFT_MS = 10
"""If every frame of a stretch is later than expected by more than this, the clocks moved; it is not network jitter."""

STRETCH_MS = 1000
"""The length of the stretch of audio whose least late frame is used. For as long, an anchor on a late frame may also be
corrected from its own place on."""


class Anchors:
    """Decides when and where the audio clock needs a new anchor to the wall clock.

    A frame was captured at its arrival, less its own length and its delay. From then on audio is expected at its own
    pace. Network jitter and delays of this machine only ever make a frame late, so the least late frame of a stretch
    shows the relation of the clocks. This follows a clock that drifts either way; a gap in the audio is followed with
    its first frame. Frames that were only delayed come in a burst, each earlier than expected: they correct the anchor
    that the first of them made, from that frame on.
    """

    def __init__(self) -> None:
        self._tie: Anchored | None = None
        self._late_at: int | None = None
        """When the anchor was made, if that was on a frame that may have been late."""
        self._stretch_from = 0
        self._least_late = LATE_MS

    def arrived(self, media_ms: int, wall_ms: int) -> Anchored | None:
        """Process a frame that starts at ``media_ms`` and was captured from ``wall_ms`` on. Returns the new anchor, if
        one is needed. It holds from its own media time on, which may lie before this frame's."""
        found = self._found(media_ms, wall_ms)
        if found is not None or media_ms - self._stretch_from >= STRETCH_MS:
            self._stretch_from, self._least_late = media_ms, LATE_MS
        self._tie = found or self._tie
        return found

    def _found(self, media_ms: int, wall_ms: int) -> Anchored | None:
        if self._tie is None or (late := wall_ms - _expected(self._tie, media_ms)) > LATE_MS:
            self._late_at = wall_ms
            return Anchored(media_ms, wall_ms)
        if late < -EARLY_MS:
            if self._late_at is not None and abs(wall_ms - self._late_at) < STRETCH_MS:
                return Anchored(self._tie.media_ms, self._tie.wall_ms + late)
            self._late_at = None
            return Anchored(media_ms, wall_ms)
        self._least_late = min(self._least_late, late)
        if media_ms - self._stretch_from >= STRETCH_MS and self._least_late > DRIFT_MS:
            self._late_at = None
            return Anchored(self._stretch_from, _expected(self._tie, self._stretch_from) + self._least_late)
        return None


def _expected(tie: Anchored, media_ms: int) -> int:
    return tie.wall_ms + media_ms - tie.media_ms
