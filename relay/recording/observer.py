"""Records a track that another agent's session listens to."""

from relay.capture.observe.recording import ObservedTrack
from relay.ids import new_id
from relay.recording.recorder import Records, StreamRecord
from relay.speech.context import StreamContext


class Observers:
    """Opens the record of a track, whose detectors are unknown."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def __call__(self, track: ObservedTrack) -> StreamRecord | None:
        return await self._records.open(
            StreamContext(
                stream_id=new_id("str"),
                room=track.room,
                participant=track.participant,
                track_sid=track.sid,
                track_source=track.source,
                vad=None,
                stt=None,
            )
        )
