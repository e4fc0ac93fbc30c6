"""``source.*``: an audio source or detector failed or recovered. Each outage and its end are reported once."""

from typing import Literal

from relay.events.envelope import Instant, Model, StreamEvent

SourceName = Literal["audio", "vad", "stt", "session", "realtime"]
"""audio: the track's audio itself; vad: voice activity detection; stt: speech-to-text; session: the agent session that
runs them; realtime: the realtime model."""

SourceFailure = Literal["stalled", "lost", "refused", "unreachable", "overloaded", "encrypted", "not_permitted"]
"""stalled: connected, but sends no data when it should; lost: the connection broke; refused: it rejects the relay
(credentials, quota, too many requests); unreachable: it cannot be connected to, or answers with an error of its own;
overloaded: the machine cannot keep up with it; encrypted: the track is end-to-end encrypted, and the relay has no key;
not_permitted: LiveKit does not allow the relay to subscribe to the track."""


class SourceFailedData(Model):
    detector: SourceName
    reason: SourceFailure
    failed_at: Instant
    """The start of the outage. It may be earlier than this event: an outage that ends within a moment is not
    reported."""


class SourceFailed(StreamEvent):
    """A detector of this stream is down. The service retries it until it works or the stream ends. In an embedding
    agent, LiveKit decides whether to retry."""

    type: Literal["source.failed"] = "source.failed"
    data: SourceFailedData


class SourceRecoveredData(Model):
    detector: SourceName
    reason: SourceFailure
    """Why it failed, as in ``source.failed``."""
    failed_at: Instant
    """When it failed, as in ``source.failed``."""
    gone_ms: int
    """The length of the outage, in milliseconds."""
    missed_ms: int | None
    """Audio that it will never process, silence included, in milliseconds; null where unknown. Speech that was buffered
    and processed late is not counted."""


class SourceRecovered(StreamEvent):
    """A detector that had failed works again."""

    type: Literal["source.recovered"] = "source.recovered"
    data: SourceRecoveredData
