"""A room's speech in a log, as the page shows it: whole utterances, without audio."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser, Page, async_playwright

from relay.clock import SystemClock, instant
from relay.events.envelope import ParticipantRef, RoomRef, RoomStreamRef, StreamEvent, StreamRef, UtteranceRef
from relay.events.samples import SAMPLES
from relay.ids import event_id, new_id
from relay.outbox.log.stream_log import StreamLog
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream
from tests.support.livekit.browser import chromium

CLOCK = SystemClock()
_TRACKS = count(1)


@dataclass
class Voice:
    """A participant's stream, to which utterances are appended."""

    log: StreamLog
    id: str
    room: str
    identity: str
    name: str
    track: str
    index: int = 0
    utterances: list[str] = field(default_factory=list)
    held: list[StreamEvent] | None = None

    def event(
        self, kind: str, at: int, *, occurred: int | None = None, utterance: tuple[str, int] | None = None, **data: Any
    ) -> StreamEvent:
        """The next event of the stream. ``at``: when it is emitted; ``occurred``: when it happened."""
        sample = SAMPLES[kind]
        sequence = self.log.last_sequence + len(self.held or ()) + 1
        happened = instant(at if occurred is None else occurred)
        said = utterance and UtteranceRef(id=utterance[0], index=self.index, revision=utterance[1])
        fields: dict[str, Any] = {
            "id": event_id(self.id, sequence),
            "timestamp": happened,
            "room": RoomRef(sid=f"RM_{abs(hash(self.room)) % 10**8}", name=self.room),
            "participant": ParticipantRef(
                sid=f"PA_{self.track}", identity=self.identity, name=self.name, kind="standard", attributes={}
            ),
            "stream": StreamRef(id=self.id, sequence=sequence, track_sid=self.track, track_source="microphone"),
            "utterance": said,
            "timing": sample.timing.model_copy(  # type: ignore[attr-defined]
                update={"occurred_at": happened, "detected_at": instant(max(at - 1, 0)), "emitted_at": instant(at)}
            ),
            "data": sample.data.model_copy(update=data),  # type: ignore[attr-defined]
        }
        changed = sample.model_copy(update=fields)
        assert isinstance(changed, StreamEvent)
        return changed

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """What is added within the block is appended at once, at its end."""
        self.held = []
        try:
            yield
        finally:
            events, self.held = self.held, None
        await self.log.append(events)

    async def add(self, kind: str, at: int | None = None, **fields: Any) -> StreamEvent:
        event = self.event(kind, CLOCK.now_ms() if at is None else at, **fields)
        if self.held is None:
            await self.log.append([event])
        else:
            self.held.append(event)
        return event

    async def begins(self, at: int | None = None) -> "Speaking":
        at = CLOCK.now_ms() if at is None else at
        speaking = Speaking(self, new_id("utt"), at - 210)
        self.utterances.append(speaking.id)
        for kind in ("vad.speech_started", "speech.started"):
            await self.add(kind, at, occurred=speaking.began, utterance=speaking.next())
        return speaking

    async def says(self, text: str, *, at: int | None = None, lasts_ms: int = 1800) -> str:
        """A whole utterance at once; returns its id. ``at``: when it is noticed."""
        at = CLOCK.now_ms() - lasts_ms - 700 if at is None else at
        speaking = await self.begins(at)
        await speaking.guesses(text[: len(text) // 2], at=at + lasts_ms // 2)
        await speaking.ends(text, at=at + lasts_ms)
        return speaking.id


@dataclass
class Speaking:
    """An utterance that is being spoken."""

    voice: Voice
    id: str
    began: int
    revision: int = 0

    def next(self) -> tuple[str, int]:
        self.revision += 1
        return self.id, self.revision

    async def guesses(self, text: str, *, at: int | None = None) -> None:
        await self.voice.add("transcript.interim", at, utterance=self.next(), text=text)

    async def ends(self, text: str, *, at: int | None = None) -> None:
        """``at``: the last moment of the voice; the text comes 430 ms later."""
        live = at is None
        at = CLOCK.now_ms() if at is None else at
        voice, lasted = self.voice, at - self.began
        if live:
            await asyncio.sleep(0.4)
        for kind, after in (("vad.speech_ended", 380), ("speech.ended", 380)):
            more = {"duration_ms": lasted, "reason": "silence"} if kind == "speech.ended" else {}
            await voice.add(kind, at + after, occurred=at, utterance=self.next(), **more)
        if text:
            await voice.add("transcript.final", at + 430, occurred=at, utterance=self.next(), text=text)
        await voice.add(
            "utterance.completed",
            at + 435,
            occurred=at,
            utterance=self.next(),
            text=text,
            duration_ms=lasted,
            outcome="transcribed" if text else "no_transcript",
            reason="silence",
            finals=int(bool(text)),
        )
        voice.index += 1


async def joins(outbox: Outbox, room: str, identity: str, name: str = "", *, at: int | None = None) -> Voice:
    """A participant whose track the relay begins to hear."""
    track = f"TR_{next(_TRACKS)}"
    stream = new_id("str")
    log = await outbox.open_stream(NewStream(stream, f"RM_{room}", room, track, identity))
    voice = Voice(log, stream, room, identity, name or identity.title(), track)
    await voice.add("stream.started", at)
    return voice


async def overlap(outbox: Outbox, voices: Sequence[Voice], began: int, ended: int) -> None:
    """Both events of an overlap, on the room's own stream."""
    stream = new_id("str")
    room = voices[0].room
    log = await outbox.open_stream(NewStream(stream, f"RM_{room}", room, f"overlaps-{stream}", ""))
    which = new_id("ovl")
    for sequence, (kind, at) in enumerate((("overlap.started", began), ("overlap.ended", ended)), start=1):
        sample = SAMPLES[kind]
        speakers = sample.data.speakers  # type: ignore[attr-defined]
        who = tuple(
            speakers[0].model_copy(
                update={"identity": each.identity, "stream_id": each.id, "utterance_id": each.utterances[-1]}
            )
            for each in voices
        )
        data: dict[str, Any] = {"overlap_id": which, "speakers": who}
        if kind == "overlap.ended":
            data |= {"duration_ms": ended - began}
        moments = dict.fromkeys(("occurred_at", "detected_at", "emitted_at"), instant(at))
        event = sample.model_copy(
            update={
                "id": event_id(stream, sequence),
                "timestamp": instant(at),
                "room": RoomRef(sid=f"RM_{abs(hash(room)) % 10**8}", name=room),
                "stream": RoomStreamRef(id=stream, sequence=sequence),
                "timing": sample.timing.model_copy(update=moments),  # type: ignore[attr-defined]
                "data": sample.data.model_copy(update=data),  # type: ignore[attr-defined]
            }
        )
        await log.append([event])  # type: ignore[list-item]


LINES = (
    "Good morning, thanks for calling. How can I help you?",
    "Hi, my order has not arrived, and the tracking page shows nothing since Tuesday.",
    "I am sorry to hear that. May I have the order number?",
    "Sure, it is four, seven, one, one, zero, nine.",
    "Thank you. I see it: it left our warehouse on Monday.",
    "Could you send a replacement?",
    "Of course. You will get a message as soon as it is on its way.",
)


_FLAGS = (
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


@asynccontextmanager
async def running_browser(*, microphone: Path | None = None) -> AsyncIterator[Browser]:
    """Debian's Chromium. ``microphone``: a WAV file that it hears in a loop."""
    executable = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=executable,
            chromium_sandbox=os.geteuid() != 0,
            args=[*_FLAGS, *([f"--use-file-for-fake-audio-capture={microphone}"] if microphone else [])],
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def browsing(
    url: str,
    *,
    browser: Browser | None = None,
    scheme: Literal["light", "dark"] = "light",
    width: int = 1280,
    height: int = 800,
    microphone: Path | None = None,
    script: str = "",
) -> AsyncIterator[Page]:
    """A page at this address, in a profile of its own. Console errors fail the block.

    ``browser``: the one to open it in, instead of a new one. ``script``: runs before the page's own.
    """
    async with AsyncExitStack() as stack:
        running = (
            browser if browser is not None else await stack.enter_async_context(running_browser(microphone=microphone))
        )
        context = await running.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            has_touch=width < 500,
        )
        stack.push_async_callback(context.close)
        page = await context.new_page()
        if script:
            await page.add_init_script(script)
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        await page.goto(url)
        yield page
        assert [each for each in said if "status of 40" not in each and "ERR_" not in each] == []
