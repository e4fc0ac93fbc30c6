"""Turns a realtime model's events into observations."""

from collections.abc import Callable, Mapping
from typing import Any

from livekit.agents import llm

from relay.capture.audio.source import AHEAD_S
from relay.events.detectors import RealtimeEnd
from relay.speech.matching import Repeats
from relay.speech.observations import RealtimeEnded, RealtimeStarted, SttTranscript

Report = Callable[[RealtimeStarted | RealtimeEnded | SttTranscript], None]

_AHEAD_MS = round(AHEAD_S * 1000)

_MOST_ITEMS = 64
"""Stretches of speech that may wait for their text. Without text, newer ones displace them."""


class RealtimeSpeech:
    """Reports a model's events, with paired starts and ends across connections.

    LiveKit's events about speech carry no times and no ids. Plugins of OpenAI's protocol also pass on the server's own
    message (``openai_server_event_received``), just before the event that they derive from it. :meth:`server_message`
    takes both from there. ``audio_start_ms`` and ``audio_end_ms`` count from the connection's first audio, and include
    ``prefix_padding_ms`` and the silence before the end (OpenAI's reference). A ``server_vad`` session reports their
    lengths, so onset and end are known. With ``semantic_vad`` its times are used as they are. A time that cannot be one
    of this audio is None: one ahead of what the model was given, or one before times that it has reported.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._base_ms = 0
        self._newest_ms = 0
        """The newest time that the connection has reported."""
        self._timed = False
        self._padding_ms: int | None = None
        self._silence_ms: int | None = None
        self._edge: tuple[str | None, int | None] = (None, None)
        self._onsets: dict[str, int | None] = {}
        self._spans: dict[str, tuple[int | None, int | None]] = {}
        self._repeats = Repeats()
        self.speaking = False

    def connected(self, base_ms: int | None) -> None:
        """A new connection, whose audio begins at this media time; None where unknown. Its ids are new ones."""
        self._base_ms, self._timed = base_ms or 0, base_ms is not None
        self._newest_ms = self._base_ms
        self._edge = (None, None)
        self._onsets.clear()
        self._spans.clear()

    def server_message(self, message: object) -> None:
        """Take a message of OpenAI's protocol."""
        match message:
            case {
                "type": "session.created" | "session.updated",
                "session": {"audio": {"input": {"turn_detection": vad}}},
            }:
                heard = vad if isinstance(vad, dict) and vad.get("type") == "server_vad" else {}
                self._padding_ms = _whole(heard.get("prefix_padding_ms"))
                self._silence_ms = _whole(heard.get("silence_duration_ms"))
            case {"type": "input_audio_buffer.speech_started", **rest}:
                self._edge = _item(rest), _whole(rest.get("audio_start_ms"))
            case {"type": "input_audio_buffer.speech_stopped", **rest}:
                self._edge = _item(rest), _whole(rest.get("audio_end_ms"))
            case {"type": "conversation.item.input_audio_transcription.failed", **rest}:
                self.unanswered()
            case _:
                pass

    def started(self, given_ms: int) -> bool:
        """The model reports the start of speech. False: it was known, from the connection before this one.
        ``given_ms`` is the media time at which the audio ends that the model was given so far."""
        item, at_ms = self._take_edge()
        # At the very beginning there is less audio than the padding: all that is known is that speech began there.
        onset = self._media(at_ms, self._padding_ms or 0 if at_ms else 0, given_ms)
        if item is not None:
            self._onsets[item] = onset
            _bound(self._onsets)
        if self.speaking:
            return False
        self.speaking = True
        self._report(RealtimeStarted(at_ms=onset, item_id=item, padding_ms=self._padding_ms))
        return True

    def stopped(self, given_ms: int) -> int | None:
        """The model reports the end of speech: the media time where it ended, if given. ``given_ms`` as above."""
        item, at_ms = self._take_edge()
        end = self._media(at_ms, -(self._silence_ms or 0), given_ms)
        if item is not None:
            self._spans[item] = self._onsets.pop(item, None), end
            _bound(self._spans)
        if self.speaking:
            self.speaking = False
            self._report(RealtimeEnded(at_ms=end, item_id=item, silence_ms=self._silence_ms))
        return end

    def transcribed(self, said: llm.InputTranscriptionCompleted) -> bool:
        """Take a transcript or an interim. It gets the times of its stretch of speech. False: the model reported the
        same before."""
        onset, end = self._spans.get(said.item_id, (self._onsets.get(said.item_id), None))
        if said.is_final:
            self._spans.pop(said.item_id, None)
        transcript = SttTranscript(
            text=said.transcript,
            final=said.is_final,
            start_ms=onset,
            end_ms=end,
            confidence=said.confidence,
            request_id=said.item_id or None,
            detector="realtime",
        )
        self._report(transcript)
        return not (said.is_final and self._repeats.take(transcript))

    def unanswered(self) -> None:
        """The speech gets no text."""
        self._report(SttTranscript(text="", final=True, detector="realtime"))

    def ended(self, reason: RealtimeEnd) -> None:
        """The model reports nothing more about the speech in progress."""
        if self.speaking:
            self.speaking = False
            self._report(RealtimeEnded(at_ms=None, reason=reason))

    def _take_edge(self) -> tuple[str | None, int | None]:
        edge, self._edge = self._edge, (None, None)
        return edge

    def _media(self, at_ms: int | None, correction_ms: int, given_ms: int) -> int | None:
        if at_ms is None or not self._timed:
            return None
        media_ms = self._base_ms + max(0, at_ms + correction_ms)
        if not self._newest_ms - _AHEAD_MS <= media_ms < given_ms + _AHEAD_MS:
            return None
        self._newest_ms = media_ms
        return media_ms


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _item(message: Mapping[Any, Any]) -> str | None:
    item = message.get("item_id")
    return item if isinstance(item, str) else None


def _bound(items: dict[str, Any]) -> None:
    if len(items) > _MOST_ITEMS:
        del items[next(iter(items))]
