"""``stream.*``: the relay began, or ceased, to listen to a track."""

from typing import Literal

from relay.events.envelope import StreamEvent
from relay.events.model import Instant, Model

StreamEnd = Literal["unpublished", "disconnected", "room_ended", "shutdown", "worker_lost"]
"""unpublished: the track went away; disconnected: the participant left; room_ended: the room closed;
shutdown: the relay stopped; worker_lost: the process that listened died."""


class StreamStartedData(Model):
    joined_at: Instant | None
    """When the participant joined the room, as the server says; null for a file."""
    subscribed_at: Instant
    """When the relay subscribed to the track. Never later than ``first_frame_at``."""
    first_frame_at: Instant | None
    """When the first audio arrived; null while none has (a track that is published muted sends none)."""
    missed_ms: int | None
    """Audio that could not be heard between publishing and the first frame, in milliseconds: 0 where nothing was
    missed. Where the relay did not see the publication it is counted from the participant's join, so it may be less in
    truth. Null where no audio has come, and where an earlier stream has heard the track."""
    muted: bool
    """Whether the microphone was muted when the stream began."""


class StreamStarted(StreamEvent):
    """The relay began to listen to this track. The first event of a stream."""

    type: Literal["stream.started"] = "stream.started"
    data: StreamStartedData


class StreamEndedData(Model):
    reason: StreamEnd
    heard_ms: int | None
    """Audio heard on this stream, in milliseconds; null where the process that listened died."""
    utterances: int
    """How many utterances the stream had."""
    listened_until: Instant | None = None
    """worker_lost: until when the process that listened is known to have been there. What was said from then to the
    ``first_frame_at`` of the participant's next stream may have been missed. Null for any other reason."""


class StreamEnded(StreamEvent):
    """The relay ceased to listen to this track. The last event of a stream: nothing follows."""

    type: Literal["stream.ended"] = "stream.ended"
    data: StreamEndedData
