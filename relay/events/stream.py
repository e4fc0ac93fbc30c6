"""``stream.*``, ``microphone.*``, ``source.*``: the state of a track: listened to, muted, failing."""

from typing import Literal

from relay.events.envelope import Instant, Model, StreamEvent

StreamEnd = Literal["unpublished", "disconnected", "room_ended", "shutdown", "worker_lost"]
"""unpublished: the track was unpublished; disconnected: the participant left, was removed, or lost the connection;
room_ended: the room closed; shutdown: the relay stopped; worker_lost: the process that listened died."""


class StreamStartedData(Model):
    joined_at: Instant | None
    """When the participant joined the room, according to the server; null for a file."""
    subscribed_at: Instant
    """When the relay subscribed to the track. Never later than ``first_frame_at``."""
    first_frame_at: Instant | None
    """When the first audio arrived; null until then (a track that is published muted sends none)."""
    missed_ms: int | None
    """Audio between publishing and the first frame that the relay did not receive, in milliseconds: 0 where none was
    missed. Where the relay did not see the publication, it is counted from the participant's join, so the true value
    may be lower. Null where no audio has arrived, and where an earlier stream listened to the track."""
    muted: bool
    """Whether the microphone was muted when the stream started."""


class StreamStarted(StreamEvent):
    """The relay started to listen to this track. The first event of a stream."""

    type: Literal["stream.started"] = "stream.started"
    data: StreamStartedData


class StreamEndedData(Model):
    reason: StreamEnd
    heard_ms: int | None
    """Audio received on this stream, in milliseconds; null where the process that listened died."""
    utterances: int
    """The number of utterances of the stream."""
    listened_until: Instant | None = None
    """worker_lost: the last time at which the process that listened is known to have been alive. Speech from then to
    the ``first_frame_at`` of the participant's next stream may have been missed. Null for any other reason."""


class StreamEnded(StreamEvent):
    """The relay stopped listening to this track. The last event of a stream: nothing follows."""

    type: Literal["stream.ended"] = "stream.ended"
    data: StreamEndedData


class MicrophoneMutedData(Model):
    cut_speech: bool
    """Whether the participant was speaking when the microphone was muted."""


class MicrophoneMuted(StreamEvent):
    """The participant muted the track."""

    type: Literal["microphone.muted"] = "microphone.muted"
    data: MicrophoneMutedData


class MicrophoneUnmutedData(Model):
    muted_ms: int | None
    """How long the track was muted, in milliseconds; null where the mute was not observed."""


class MicrophoneUnmuted(StreamEvent):
    """The participant unmuted the track."""

    type: Literal["microphone.unmuted"] = "microphone.unmuted"
    data: MicrophoneUnmutedData


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
