"""Publishes transcripts to the room itself, as LiveKit's own agents do.

Each line is sent twice, as livekit-agents 1.8.9 sends a user's transcript (``voice/room_io/_output.py``): as a text
stream on ``lk.transcription``, and, for clients that do not read those, as the older transcription event. Both are
attributed to the speaker, and carry the segment's whole text: a reader replaces its text of the segment.
"""

import asyncio
import logging
from typing import Final

from livekit import rtc
from livekit.agents.types import (
    ATTRIBUTE_TRANSCRIPTION_FINAL,
    ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID,
    ATTRIBUTE_TRANSCRIPTION_TRACK_ID,
    CLIENT_PROTOCOL_TRANSCRIPTION_STREAMS,
    TOPIC_TRANSCRIPTION,
)

from relay.capture.livekit.transcription_segments import Line, Segments
from relay.events.envelope import StreamEvent

log = logging.getLogger(__name__)

MOST_WAITING = 256
"""The maximum number of queued segments. Each waits with its newest line only."""

_LINE_S = 5.0
"""A line that takes longer is dropped: the connection is stuck, and newer lines wait."""

_NOTHING = " "
"""Sent for an empty line. A text stream of an empty text carries no data, and a frontend updates only when data arrives
(``@livekit/components-core`` 0.12.15): a retracted interim would stay on screen."""


class Forwarding:
    """Publishes the transcripts of a room's streams, one line after the other.

    ``take`` never waits: while a line is being sent, a newer line of a segment replaces the queued one. So interims are
    skipped but no segment's last line is, unless :data:`MOST_WAITING` segments wait. A line that cannot be sent is
    logged once and left out; recording is not affected. Nothing is sent while no reader is in the room. Construct it in
    a running event loop.
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room: Final = room
        self._segments: Final = Segments()
        self._waiting: Final[dict[str, Line]] = {}
        self._more: Final = asyncio.Event()
        self._failing = False
        self._closing = False
        self._sending: Final = asyncio.create_task(self._send_all(), name="forwarding")

    def take(self, event: StreamEvent) -> None:
        """Take an event of a stream, in the stream's order."""
        for line in self._segments.take(event):
            if line.segment not in self._waiting and len(self._waiting) >= MOST_WAITING:
                self._make_room()
            self._waiting[line.segment] = line
            self._more.set()

    async def aclose(self, *, within: float = 1.0) -> None:
        """Send the queued lines, within this many seconds, and stop."""
        self._closing = True
        self._more.set()
        await asyncio.wait([self._sending], timeout=within)
        self._sending.cancel()
        await asyncio.wait([self._sending])

    def _make_room(self) -> None:
        """Prefer to drop a line of an open segment, which can spare one; if all are closed, the oldest."""
        spare = next((line for line in self._waiting.values() if not line.final), None)
        del self._waiting[spare.segment if spare is not None else next(iter(self._waiting))]

    async def _send_all(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            line = self._waiting.pop(next(iter(self._waiting)))
            try:
                async with asyncio.timeout(_LINE_S):
                    await self._send(line)
            except Exception as error:
                # by its type alone: a message may quote the line
                if not self._failing:
                    log.warning("Transcripts cannot be published to the room now (%s)", type(error).__name__)
                self._failing = True
            else:
                self._failing = False

    async def _send(self, line: Line) -> None:
        if not self._room.isconnected() or not self._room.remote_participants:
            return
        attributes = {
            ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID: line.segment,
            ATTRIBUTE_TRANSCRIPTION_FINAL: "true" if line.final else "false",
            ATTRIBUTE_TRANSCRIPTION_TRACK_ID: line.track_sid,
        }
        writer = await self._room.local_participant.stream_text(
            topic=TOPIC_TRANSCRIPTION, sender_identity=line.identity, attributes=attributes
        )
        text = line.text or _NOTHING
        await writer.write(text)
        await writer.aclose()
        if reads_events_only(self._room):
            # no times, like LiveKit's own: the reader does not have their clock
            segment = rtc.TranscriptionSegment(
                id=line.segment, text=text, start_time=0, end_time=0, language=line.language, final=line.final
            )
            await self._room.local_participant.publish_transcription(
                rtc.Transcription(participant_identity=line.identity, track_sid=line.track_sid, segments=[segment])
            )


def reads_events_only(room: rtc.Room) -> bool:
    """Whether any participant's client does not turn text streams into transcription events itself.

    This is livekit-agents' own rule: such a client would show nothing without the older event; the others would get the
    text twice. The client's protocol is only in ``Participant._info`` (livekit 1.1.21). Phones and agents show no
    transcripts.
    """
    return any(
        participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD
        and participant._info.client_protocol < CLIENT_PROTOCOL_TRANSCRIPTION_STREAMS  # noqa: SLF001 - nothing public has it
        for participant in room.remote_participants.values()
    )
