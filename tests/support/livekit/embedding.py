"""An agent session without a server's room, with or without the relay."""

import asyncio
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from livekit import rtc
from livekit.agents import (
    DEFAULT_API_CONNECT_OPTIONS,
    Agent,
    AgentSession,
    APIConnectOptions,
    JobContext,
    LanguageCode,
    NotGivenOr,
    llm,
    stt,
    utils,
)
from livekit.agents.types import NOT_GIVEN
from livekit.agents.voice import io

from tests.support.audio.speech import speech
from tests.support.cli import SECRET
from tests.support.livekit.agent_parts import Listener
from tests.support.outbox.outbox_store import write_migrated

RATE = 24_000
"""What LiveKit's own room input gives a session."""
SPEED = 3.0


class Spoken(io.AudioInput):
    """The first words of a recording, resampled like a room's input, at ``SPEED`` times the pace, then silence.

    The next words would start just when these end for a detector: a resampler's dither would decide.
    """

    def __init__(self, seconds: float = 1.6, silence: float = 2.4) -> None:
        super().__init__(label="spoken")
        with wave.open(str(speech("beckett.wav"))) as file:
            self._pcm = file.readframes(int(seconds * file.getframerate()))
            self._pcm += bytes(2 * int(silence * file.getframerate()))
            self._resampler = rtc.AudioResampler(file.getframerate(), RATE)
            self._step = file.getframerate() // 20 * 2
        self.over = asyncio.Event()

    async def __anext__(self) -> rtc.AudioFrame:
        while True:
            await asyncio.sleep(0.05 / SPEED)
            chunk, self._pcm = self._pcm[: self._step], self._pcm[self._step :]
            if not chunk:
                self.over.set()
                await asyncio.Event().wait()
            frames = self._resampler.push(bytearray(chunk))
            if frames:
                return utils.merge_frames(frames)


class Script(stt.STT[Any]):
    """Scripted speech recognition: each line is an event at this many seconds of audio."""

    def __init__(self, *lines: tuple[float, stt.SpeechEvent]) -> None:
        capabilities = stt.STTCapabilities(streaming=True, interim_results=True, keyterms=True)
        super().__init__(capabilities=capabilities)
        self.lines = lines
        self.keyterms: list[str] = []
        self.closed = False

    @property
    def model(self) -> str:
        return "by-heart"

    @property
    def provider(self) -> str:
        return "Script"

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        return _ScriptStream(self, conn_options)

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        self.keyterms = keyterms

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


class _ScriptStream(stt.RecognizeStream):
    def __init__(self, script: Script, conn_options: APIConnectOptions) -> None:
        super().__init__(stt=script, conn_options=conn_options)
        self._lines = script.lines

    async def _run(self) -> None:
        heard_s, lines = 0.0, list(self._lines)
        async for frame in self._input_ch:
            if isinstance(frame, rtc.AudioFrame):
                heard_s += frame.duration
            while lines and lines[0][0] <= heard_s:
                self._event_ch.send_nowait(_placed(lines.pop(0)[1], self.start_time_offset))


def _placed(event: stt.SpeechEvent, offset_s: float) -> stt.SpeechEvent:
    """Like plugins: its times count from the stream's start plus the given offset."""
    for said in event.alternatives:
        said.start_time += offset_s
        said.end_time += offset_s
    return event


def ever_tried() -> Script:
    """The text of the first seconds."""

    def said(kind: stt.SpeechEventType, text: str, end: float) -> stt.SpeechEvent:
        data = stt.SpeechData(language=LanguageCode("en"), text=text, start_time=0.5, end_time=end, confidence=0.9)
        return stt.SpeechEvent(kind, request_id="r1", alternatives=[data])

    return Script(
        (0.8, stt.SpeechEvent(stt.SpeechEventType.START_OF_SPEECH, request_id="r1")),
        (0.9, said(stt.SpeechEventType.INTERIM_TRANSCRIPT, "Ever", 0.8)),
        (1.6, said(stt.SpeechEventType.FINAL_TRANSCRIPT, "Ever tried.", 1.3)),
        (1.7, stt.SpeechEvent(stt.SpeechEventType.END_OF_SPEECH, request_id="r1")),
    )


class Room(rtc.EventEmitter[str]):
    """The parts of a room that the relay uses."""

    def __init__(self) -> None:
        super().__init__()
        self.connection_state = rtc.ConnectionState.CONN_CONNECTED
        self.remote_participants: dict[str, Any] = {}

    def joined(self, identity: str) -> Any:
        """A participant with a microphone."""
        microphone = SimpleNamespace(
            sid=f"TR_{identity}", source=rtc.TrackSource.SOURCE_MICROPHONE, track=object(), muted=False
        )
        somebody = SimpleNamespace(
            sid=f"PA_{identity}",
            identity=identity,
            name=identity.title(),
            kind=rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD,
            attributes={},
            joined_at=None,
            disconnect_reason=None,
            track_publications={microphone.sid: microphone},
        )
        self.remote_participants[identity] = somebody
        return somebody


class Session(AgentSession[None]):
    """A session that is linked to the participant that the test sets."""

    linked: Any = None

    @property
    def room_io(self) -> Any:
        return SimpleNamespace(linked_participant=self.linked)


class Job:
    """The parts of a job that the relay uses."""

    def __init__(self) -> None:
        self.room = Room()
        self.job = SimpleNamespace(room=SimpleNamespace(sid="RM_1", name="support"))
        self.callbacks: list[Callable[[], Awaitable[None]]] = []

    def add_shutdown_callback(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.callbacks.append(callback)

    @property
    def context(self) -> JobContext:
        return cast("JobContext", self)

    async def shut_down(self) -> None:
        for callback in self.callbacks:
            await callback()


class Conversation:
    """One user who says a sentence, and the session's reaction.

    ``happened`` are the session's events in order, without their times.
    """

    def __init__(self, job: Job, **parts: Any) -> None:
        self.session = Session(
            **{"llm": Listener(), **parts},
            turn_handling={"turn_detection": "vad", "endpointing": {"min_delay": 0.1}},
            user_away_timeout=None,
            aec_warmup_duration=None,
            session_close_transcript_timeout=0.1,
        )
        self.session.linked = job.room.joined("alice")
        self.happened: list[str] = []
        self.errors: list[Any] = []
        self.spoken = Spoken()
        self._heard = asyncio.Event()
        self.session.on("user_state_changed", lambda event: self.happened.append(f"user {event.new_state}"))
        self.session.on("agent_state_changed", lambda event: self.happened.append(f"agent {event.new_state}"))
        self.session.on("user_input_transcribed", lambda event: self.happened.append(f"heard {event.transcript}"))
        self.session.on("conversation_item_added", self._added)
        self.session.on("error", self.errors.append)
        self.session.on("close", lambda event: self.happened.append(f"closed {event.reason.value}"))
        self.session.on("close", lambda _: self.spoken.over.set())  # nothing listens to the rest

    async def __call__(self) -> list[str]:
        """Run it, from start to close."""
        self.session.input.audio = self.spoken
        await self.session.start(Agent(instructions="Listen."), record=False, session_host=False)
        async with asyncio.timeout(20):
            await self.spoken.over.wait()
        await self.session.aclose()
        return self.happened

    def _added(self, event: Any) -> None:
        if isinstance(event.item, llm.ChatMessage):
            self.happened.append(f"{event.item.role}: {event.item.text_content}")


CONFIG = """\
outbox: {{url: "sqlite:///{folder}/relay.db"}}
endpoints:
  - {{name: receiver, url: "{url}", events: ["*"], secret: {secret}}}
shutdown: {{grace: 4s}}
"""


def configured(folder: Path, url: str = "http://127.0.0.1:9/") -> Path:
    """A configuration with one endpoint, and its log; without a url, no receiver listens there.

    The log is there already: on a busy machine its first opening may take longer than a short conversation's end.
    """
    write_migrated(folder)
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(folder=folder, url=url, secret=SECRET))
    return path
