"""The call that the samples come from."""

from datetime import UTC, datetime, timedelta

from relay.events.envelope import RoomRef

START = datetime(2026, 11, 21, 10, 15, 0, tzinfo=UTC)
STREAM = "01KAJ8Q6T5ZV8K7W0C9Y4M2N3B"
UTTERANCE = "utt_01KAJ8QC1S0Q4X6J7F4V2R9D5E"
ROOM = RoomRef(sid="RM_hT3kq9", name="support-42")


def at(media_ms: int) -> datetime:
    """The time this long after the start of Alice's stream."""
    return START + timedelta(milliseconds=media_ms)
