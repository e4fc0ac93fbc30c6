"""Records one track from the reports of an agent's session elsewhere, without its audio."""

from dataclasses import dataclass
from typing import Protocol

from relay.capture.health.supervisor import RETRY_S, StreamSupervisor
from relay.clock import Clock
from relay.events.envelope import ParticipantRef, RoomRef
from relay.speech.observations import Ended, Listening, Observation


@dataclass(frozen=True, slots=True)
class ObservedTrack:
    """The participant that the session listens to. ``joined_at`` is epoch milliseconds."""

    room: RoomRef
    participant: ParticipantRef
    sid: str
    source: str
    joined_at: int | None
    muted: bool


class TrackRecord(Protocol):
    """Takes the observations of one stream."""

    @property
    def stream_id(self) -> str: ...

    def observe(self, observation: Observation) -> None: ...

    async def lost(self) -> None:
        """Wait until the stream can no longer be written."""
        ...

    async def close(self) -> None:
        """Returns when the last event is committed, or known to be lost."""
        ...


class OpenRecord(Protocol):
    """Opens the record of a track. None: another process records it."""

    async def __call__(self, track: ObservedTrack) -> TrackRecord | None: ...


class ObservedStream(StreamSupervisor):
    """Passes observations to a track's record, from construction until it is ended."""

    def __init__(self, track: ObservedTrack, open_record: OpenRecord, clock: Clock) -> None:
        super().__init__(track.sid, self._open, muted=track.muted, waits_s=(RETRY_S,))
        self._track = track
        self._open_record = open_record
        self._clock = clock

    async def _open(self, muted: bool) -> "_ObservedRecord | None":
        listening = Listening(self._clock.now_ms(), None, self._track.joined_at, muted=muted)
        record = await self._open_record(self._track)
        if record is None:
            return None
        record.observe(listening)
        return _ObservedRecord(record)


class _ObservedRecord:
    def __init__(self, record: TrackRecord) -> None:
        self.stream_id = record.stream_id
        self.observe = record.observe
        self._record = record

    async def failed(self) -> str:
        await self._record.lost()
        return "its stream can no longer be written"

    async def end(self, ended: Ended | None) -> None:
        if ended is not None:
            self._record.observe(ended)
        await self._record.close()

    async def release(self) -> None:
        pass
