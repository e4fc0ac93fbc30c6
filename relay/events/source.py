"""``source.*``: something that the relay hears with failed, or is back. Each outage is told once, and its end once."""

from typing import Literal

from relay.events.envelope import StreamEvent
from relay.events.model import Instant, Model

SourceName = Literal["audio", "vad", "stt", "session", "realtime"]
"""audio: the track's audio itself; vad: voice activity detection; stt: speech-to-text; session: the agent session that
runs them; realtime: the realtime model."""

SourceFailure = Literal["stalled", "lost", "refused", "unreachable", "overloaded", "encrypted", "not_permitted"]
"""stalled: it is there and says nothing, where it should; lost: it broke off; refused: it does not let the relay in
(credentials, quota, too many requests); unreachable: it cannot be connected to, or answers with an error of its own;
overloaded: the machine is too busy to keep up with it; encrypted: the track is end-to-end encrypted, and the relay has
no key; not_permitted: LiveKit does not let the relay subscribe to the track."""


class SourceFailedData(Model):
    detector: SourceName
    reason: SourceFailure
    failed_at: Instant
    """Since when. It may be earlier than this event: what passes by itself within a moment is not told."""


class SourceFailed(StreamEvent):
    """A detector of this stream is down. The service tries it again until it works, or the stream ends; in
    somebody's own agent LiveKit does, or does not."""

    type: Literal["source.failed"] = "source.failed"
    data: SourceFailedData


class SourceRecoveredData(Model):
    detector: SourceName
    reason: SourceFailure
    """Why it had failed, as ``source.failed`` said."""
    failed_at: Instant
    """When it had failed, as ``source.failed`` said."""
    gone_ms: int
    """How long it was gone, in milliseconds."""
    missed_ms: int | None
    """Audio that it will never hear, silence included, in milliseconds; null where that is not known. Speech that was
    kept and is heard late is not counted."""


class SourceRecovered(StreamEvent):
    """A detector that had failed works again."""

    type: Literal["source.recovered"] = "source.recovered"
    data: SourceRecoveredData
