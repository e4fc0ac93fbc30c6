"""``overlap.*``: participants of a room who speak at once, on the room's own stream."""

from typing import Literal

from relay.events.envelope import RoomEvent
from relay.events.model import Model
from relay.events.speech import SpeechEnd


class Speaker(Model):
    identity: str
    sid: str
    """LiveKit's participant sid."""
    stream_id: str
    """The stream on which this speech is told."""
    utterance_id: str
    """The utterance with which they take part. Who speaks twice during an overlap is named twice."""


class OverlapStartedData(Model):
    overlap_id: str
    """The same in both events of an overlap."""
    speakers: tuple[Speaker, ...]
    """Who has taken part so far, in the order in which they began to speak: two participants at least."""


class OverlapStarted(RoomEvent):
    """Two participants or more speak at once, for ``speech.overlap_min`` already. ``timing.occurred_at`` is when the
    second of them began. Exactly one ``overlap.ended`` with the same overlap id follows, before any other overlap."""

    type: Literal["overlap.started"] = "overlap.started"
    data: OverlapStartedData


class OverlapEndedData(Model):
    overlap_id: str
    reason: SpeechEnd
    """What ended the speech that left fewer than two speaking."""
    duration_ms: int | None
    """From when two spoke until fewer than two did; null where one of them is not known."""
    peak: int
    """How many participants spoke at once at most."""
    speakers: tuple[Speaker, ...]
    """All who took part, in the order in which they began to speak. After ``worker_lost``: those named at its start."""


class OverlapEnded(RoomEvent):
    """Fewer than two participants speak."""

    type: Literal["overlap.ended"] = "overlap.ended"
    data: OverlapEndedData
