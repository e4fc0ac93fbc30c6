"""Builds the events of a room's own stream, and ends one whose writer died."""

from collections.abc import Sequence

from relay.clock import epoch_ms, instant
from relay.events.envelope import Model, RoomEvent, RoomRef, RoomStreamRef, Source, Timing
from relay.events.overlap import OverlapEnded, OverlapEndedData, OverlapStarted
from relay.ids import event_id


class RoomEmission:
    """Builds the events of one room's stream, in order. Wall times are epoch milliseconds.

    ``sequence`` and ``emitted_wall`` are those of the stream's last existing event.
    """

    def __init__(self, room: RoomRef, stream_id: str, sequence: int = 0, emitted_wall: int = 0) -> None:
        self._room = room
        self._stream_id = stream_id
        self._sequence = sequence
        self._now = self._emitted_wall = emitted_wall
        self._written: list[RoomEvent] = []

    def at(self, now: int) -> None:
        """Set the current time: see :meth:`relay.speech.emission.Emission.at`."""
        self._now = now
        self._emitted_wall = max(now, self._emitted_wall)

    def write(
        self, kind: type[RoomEvent], data: Model, source: Source, *, occurred_wall: int | None, reliable: bool = True
    ) -> None:
        """Append an event of this type, detected now. ``source`` names the providers of the speech that caused it."""
        self._sequence += 1
        occurred = None if occurred_wall is None else instant(occurred_wall)
        self._written.append(
            kind.model_validate(
                {
                    "timestamp": occurred or instant(self._now),
                    "id": event_id(self._stream_id, self._sequence),
                    "room": self._room,
                    "stream": RoomStreamRef(id=self._stream_id, sequence=self._sequence),
                    "timing": Timing(
                        occurred_at=occurred,
                        detected_at=instant(self._now),
                        emitted_at=instant(self._emitted_wall),
                        media_start_ms=None,
                        media_end_ms=None,
                        timed_by=None,
                        reliable=reliable,
                    ),
                    "source": source.model_copy(update={"detector": "tracker"}),
                    "data": data,
                }
            )
        )

    def take(self) -> list[RoomEvent]:
        """Return the events written since the last call."""
        written, self._written = self._written, []
        return written


def closing_room_events(history: Sequence[RoomEvent], now: int, *, last_sequence: int) -> list[RoomEvent]:
    """Return the events that end a dead writer's room stream, to append at ``now`` (epoch ms).

    ``history`` is the stream's log, oldest first. At most one event: the end of the overlap in progress. Its end time,
    its maximum number of speakers and the participants who joined after its start are unknown.
    """
    last = history[-1] if history else None
    if not isinstance(last, OverlapStarted):
        return []
    emission = RoomEmission(last.room, last.stream.id, last_sequence, epoch_ms(last.timing.emitted_at))
    emission.at(now)
    data = OverlapEndedData(
        overlap_id=last.data.overlap_id,
        reason="worker_lost",
        duration_ms=None,
        peak=len({speaker.identity for speaker in last.data.speakers}),
        speakers=last.data.speakers,
    )
    emission.write(OverlapEnded, data, last.source, occurred_wall=None)
    return emission.take()
