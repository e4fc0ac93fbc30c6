"""Publishes transcripts to the room itself, as LiveKit's own agents do.

Each line is sent twice, as livekit-agents 1.8.9 sends a user's transcript (``voice/room_io/_output.py``): as a text
stream on ``lk.transcription``, and, for clients that do not read those, as the older transcription event. Both are
attributed to the speaker, and carry the segment's whole text: a reader replaces its text of the segment.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from livekit import rtc
from livekit.agents.types import (
    ATTRIBUTE_TRANSCRIPTION_FINAL,
    ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID,
    ATTRIBUTE_TRANSCRIPTION_TRACK_ID,
    CLIENT_PROTOCOL_TRANSCRIPTION_STREAMS,
    TOPIC_TRANSCRIPTION,
)

from relay.events.envelope import StreamEvent
from relay.events.speech import TranscriptFinal, TranscriptInterim, UtteranceCompleted
from relay.events.stream import StreamEnded
from relay.speech.context import KEPT_UTTERANCES

_Transcript = TranscriptInterim | TranscriptFinal


@dataclass(frozen=True, slots=True)
class Line:
    """The complete current text of a segment. A newer line of the segment replaces an older one."""

    segment: str
    """The utterance's id."""
    text: str
    """Empty where only a retracted interim was shown."""
    final: bool
    """Nothing more comes in this segment."""
    identity: str
    """The speaker's identity."""
    track_sid: str
    language: str
    """Empty where unknown."""


@dataclass(slots=True)
class _ShownUtterances:
    """The transcripts of one stream's utterances that are not completed."""

    finals: dict[str, list[str]] = field(default_factory=dict)
    """By utterance, with an entry for each that has been shown."""
    guessed_in: str | None = None
    """The utterance that shows the current interim. Recognition has one interim at a time, so a newer interim or a
    final replaces it wherever it is shown."""
    closed: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_UTTERANCES))
    """The newest completed utterances. Late text of one is shown with its next completion."""


class TranscriptSegments:
    """Turns transcripts into lines. An utterance is a segment; its text is its finals so far and the current interim.

    A segment is closed once, with the utterance: more finals may follow a final. A segment with interims only is closed
    with no text, because nothing was confirmed. An utterance that is completed again, with late text, has its segment
    rewritten as a whole.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _ShownUtterances] = {}

    def take(self, event: StreamEvent) -> list[Line]:
        """The lines that an event changes, in display order."""
        match event:
            case TranscriptInterim() | TranscriptFinal():
                return list(self._transcript(event))
            case UtteranceCompleted():
                return self._completed(event)
            case StreamEnded():
                self._streams.pop(event.stream.id, None)
                return []
            case _:
                return []

    def _transcript(self, event: _Transcript) -> Iterator[Line]:
        said = self._streams.setdefault(event.stream.id, _ShownUtterances())
        utterance = event.utterance.id
        if utterance in said.closed:
            return
        if said.guessed_in is not None and said.guessed_in != utterance:
            yield _line(event, said.guessed_in, said.finals[said.guessed_in])
        finals = said.finals.setdefault(utterance, [])
        if isinstance(event, TranscriptFinal):
            said.guessed_in = None
            finals.append(event.data.text)
            yield _line(event, utterance, finals)
        else:
            said.guessed_in = utterance
            yield _line(event, utterance, [*finals, event.data.text])

    def _completed(self, event: UtteranceCompleted) -> list[Line]:
        said, utterance = self._streams.setdefault(event.stream.id, _ShownUtterances()), event.utterance.id
        if event.data.revises is None:
            said.closed.append(utterance)
        finals = said.finals.pop(utterance, None)
        if said.guessed_in == utterance:
            said.guessed_in = None
        if finals is None and event.data.revises is None:
            return []
        return [_line(event, utterance, [event.data.text], final=True)]


def _line(event: _Transcript | UtteranceCompleted, segment: str, texts: list[str], *, final: bool = False) -> Line:
    return Line(
        segment=segment,
        text=" ".join(texts),
        final=final,
        identity=event.participant.identity,
        track_sid=event.stream.track_sid,
        language=event.data.language or "",
    )


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
        self._segments: Final = TranscriptSegments()
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
