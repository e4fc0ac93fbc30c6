"""``stream.*``: the relay started or stopped listening to a track."""

from typing import Literal

from relay.events.envelope import Instant, Model, StreamEvent

StreamEnd = Literal["unpublished", "disconnected", "room_ended", "shutdown", "worker_lost"]
"""unpublished: the track was unpublished; disconnected: the participant left; room_ended: the room closed; shutdown:
the relay stopped; worker_lost: the process that listened died."""


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
