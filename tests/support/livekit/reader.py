"""The transcripts that a client in the room gets: text streams, and the older events."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc


@dataclass(frozen=True)
class Shown:
    """One update of a segment."""

    who: str
    segment: str
    text: str
    """The visible text, without surrounding white space."""
    final: bool
    track: str


class Reader:
    """Reads from construction on. ``streams`` are in the order of their openings, ``events`` in that of arrival."""

    def __init__(self, room: rtc.Room) -> None:
        self.streams: list[Shown] = []
        self.events: list[Shown] = []
        self._more = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        room.register_text_stream_handler("lk.transcription", self._on_stream)
        room.on("transcription_received", self._on_event)

    def _on_stream(self, stream: rtc.TextStreamReader, who: str) -> None:
        self._reading = asyncio.create_task(self._read(stream, who, self._reading))

    async def _read(self, stream: rtc.TextStreamReader, who: str, before: asyncio.Task[None] | None) -> None:
        attributes = dict(stream.info.attributes or {})
        text = (await stream.read_all()).strip()
        if before is not None:
            await before  # of two that end at the same moment the second one's task may run first
        segment, final = attributes.pop("lk.segment_id"), attributes.pop("lk.transcription_final") == "true"
        self.streams.append(Shown(who, segment, text, final, attributes.pop("lk.transcribed_track_id")))
        assert not attributes, "nothing that LiveKit's own agents do not send"
        self._more.set()

    def _on_event(
        self,
        segments: list[rtc.TranscriptionSegment],
        participant: rtc.Participant | None,
        publication: rtc.TrackPublication | None,
    ) -> None:
        who, track = (participant.identity if participant else ""), (publication.sid if publication else "")
        self.events += [Shown(who, segment.id, segment.text.strip(), segment.final, track) for segment in segments]
        self._more.set()

    async def until(self, condition: Callable[[], bool], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self._more.clear()
                await self._more.wait()


def lines(shown: list[Shown]) -> dict[str, list[Shown]]:
    """Segment → its updates, as a frontend that replaces text would apply them."""
    found: dict[str, list[Shown]] = {}
    for one in shown:
        found.setdefault(one.segment, []).append(one)
    return found
