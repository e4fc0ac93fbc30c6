"""Reports an agent session's events: transcripts, the user's state, ends of turns."""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentSession,
    CloseEvent,
    ConversationItemAddedEvent,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
    llm,
    stt,
)
from livekit.agents.voice import ModelSettings

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.stt.tap import SttTap
from relay.speech.observations import StateChanged, Transcribed, TurnEnded

Report = Callable[[Transcribed | StateChanged | TurnEnded], None]


class ListeningAgent(Agent):
    """An agent that only listens."""

    def __init__(self, stt_tap: SttTap | None, on_turn: Callable[[llm.ChatMessage], None]) -> None:
        super().__init__(instructions="Listen.")
        self._stt_tap = stt_tap
        self._on_turn = on_turn

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], model_settings: ModelSettings
    ) -> AsyncIterator[stt.SpeechEvent]:
        if self._stt_tap is not None:
            async for event in self._stt_tap.events(audio):
                yield event

    async def on_user_turn_completed(self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
        self._on_turn(new_message)


class SessionTap:
    """Reports a session's events.

    An end of turn comes from the agent's ``on_user_turn_completed``; while a session closes it comes as
    ``conversation_item_added`` instead. Each turn is reported once, whichever brings it. Its times are the session's
    wall clock's, and are meaningless where audio is fed faster than real time (``realtime`` false): then it has none.
    """

    def __init__(
        self, report: Report, *, on_closed: Callable[[CloseEvent], None], realtime: bool, guard: ErrorGuard
    ) -> None:
        self._report = report
        self._on_closed = on_closed
        self._realtime = realtime
        self._last_turn: str | None = None
        self._unheard = ""
        """What a session that is replaced made a final of while it closed."""
        self.on_turn = guard(self._turn)
        self._handlers: dict[Any, Callable[..., None]] = {
            "user_input_transcribed": guard(self._transcribed),
            "user_state_changed": guard(self._state_changed),
            "conversation_item_added": guard(self._item_added),
            "close": guard(self._on_closed),
        }

    def attach(self, session: AgentSession[None]) -> None:
        """Listen to this session."""
        self._unheard = ""
        for event, handler in self._handlers.items():
            session.on(event, handler)

    def hear_no_more(self, session: AgentSession[None]) -> None:
        """Take no more texts of this session, nor in its turn: what it makes a final of while it closes is still to be
        answered."""
        session.off("user_input_transcribed", self._handlers["user_input_transcribed"])
        session.on("user_input_transcribed", self._made_final)

    def _made_final(self, event: UserInputTranscribedEvent) -> None:
        self._unheard = event.transcript if event.is_final else ""

    def _transcribed(self, event: UserInputTranscribedEvent) -> None:
        self._report(
            Transcribed(
                text=event.transcript,
                final=event.is_final,
                language=str(event.language) if event.language else None,
                speaker_id=event.speaker_id,
            )
        )

    def _state_changed(self, event: UserStateChangedEvent) -> None:
        self._report(StateChanged(old=event.old_state, new=event.new_state))

    def _item_added(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        # Typed text was not recognized from speech, so it has no confidence, not even 0.
        if isinstance(item, llm.ChatMessage) and item.role == "user" and item.transcript_confidence is not None:
            self._turn(item)

    def _turn(self, message: llm.ChatMessage) -> None:
        if message.id == self._last_turn:
            return
        self._last_turn = message.id
        unheard, self._unheard = self._unheard, ""
        text = (message.text_content or "").removesuffix(unheard)
        if unheard and not text.strip():
            return
        metrics: llm.MetricsReport = message.metrics if self._realtime else {}
        self._report(
            TurnEnded(
                text=text.rstrip() if unheard else text,
                confidence=message.transcript_confidence or None,  # 0.0 is a provider that gives none
                started_speaking_at=_ms(metrics.get("started_speaking_at")),
                stopped_speaking_at=_ms(metrics.get("stopped_speaking_at")),
                transcription_delay_ms=_ms(metrics.get("transcription_delay")),
                end_of_turn_delay_ms=_ms(metrics.get("end_of_turn_delay")),
            )
        )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def forget_recorded_events(session: AgentSession[Any]) -> None:
    """Drop the events that a session keeps for a final report, which is not used here.

    It keeps every one, transcripts included, for as long as it lives, and has no public way to bound that
    (``AgentSession._recorded_events``; livekit-agents 1.8.9).
    """
    session._recorded_events.clear()  # noqa: SLF001 - see above; tests/contract/test_capture_session.py names it
