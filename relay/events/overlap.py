"""``overlap.*``: several participants of a room speak at the same time. On the room's own stream."""

from typing import Literal

from relay.events.envelope import Model, RoomEvent
from relay.events.speech import SpeechEnd


class Speaker(Model):
    identity: str
    sid: str
    """LiveKit's participant sid."""
    stream_id: str
    """The stream that reports this speech."""
    utterance_id: str
    """The participant's utterance in the overlap. A participant with two utterances in it is listed twice."""


class OverlapStartedData(Model):
    overlap_id: str
    """The same in both events of an overlap."""
    speakers: tuple[Speaker, ...]
    """The participants so far, in the order in which they started to speak: at least two."""


class OverlapStarted(RoomEvent):
    """Two or more participants have been speaking at once for ``speech.overlap_min``. ``timing.occurred_at`` is when
    the second of them started. Exactly one ``overlap.ended`` with the same overlap id follows, before any other
    overlap."""

    type: Literal["overlap.started"] = "overlap.started"
    data: OverlapStartedData


class OverlapEndedData(Model):
    overlap_id: str
    reason: SpeechEnd
    """Why the speech ended that left fewer than two participants speaking."""
    duration_ms: int | None
    """From the time two were speaking until fewer than two were; null where either time is unknown."""
    peak: int
    """The maximum number of participants speaking at once."""
    speakers: tuple[Speaker, ...]
    """All participants, in the order in which they started to speak. After ``worker_lost``: those listed at its
    start."""


class OverlapEnded(RoomEvent):
    """Fewer than two participants are speaking."""

    type: Literal["overlap.ended"] = "overlap.ended"
    data: OverlapEndedData
