"""Builds the events of a track's stream, or a room's: adds the envelope and the next sequence number to each."""

from datetime import datetime

from relay.clock import instant
from relay.events.detectors import TurnCompleted, TurnCompletedData
from relay.events.envelope import (
    Detector,
    Model,
    RoomEvent,
    RoomRef,
    RoomStreamRef,
    Source,
    StreamEvent,
    StreamRef,
    Timing,
)
from relay.events.speech import (
    SpeechEnded,
    SpeechEndedData,
    SpeechStarted,
    SpeechStartedData,
    TranscriptFinal,
    TranscriptFinalData,
    UtteranceCompleted,
    UtteranceCompletedData,
)
from relay.events.stream import SourceFailed, SourceFailedData, SourceName, SourceRecovered, SourceRecoveredData
from relay.ids import event_id
from relay.speech.context import StreamContext
from relay.speech.observations import SourceDown, SourceUp, TurnEnded
from relay.speech.timing import NOWHERE, Span
from relay.speech.utterance import Said, Utterance


class Emission:
    """Builds the events of one stream, in order. Wall times are epoch milliseconds.

    ``sequence`` and ``emitted_wall`` are those of the stream's last existing event.
    """

    def __init__(self, context: StreamContext, sequence: int = 0, emitted_wall: int = 0) -> None:
        self._context = context
        self._sequence = sequence
        self._now = self._emitted_wall = emitted_wall
        self._sources: dict[Detector, Source] = {}
        self._written: list[StreamEvent] = []

    def at(self, now: int) -> None:
        """Set the current time. Events from here on are detected and emitted at ``now``, except that ``emitted_at``
        never goes back when the clock is set back."""
        self._now = now
        self._emitted_wall = max(now, self._emitted_wall)

    def write(
        self,
        kind: type[StreamEvent],
        data: Model,
        detector: Detector,
        *,
        utterance: Utterance | None = None,
        span: Span = NOWHERE,
        occurred_wall: int | None = None,
        detected_wall: int | None = None,
    ) -> None:
        """Append an event of this type; ``detected_wall`` defaults to now."""
        self._sequence += 1
        context = self._context
        detected = instant(self._now if detected_wall is None else detected_wall)
        occurred = None if occurred_wall is None else instant(occurred_wall)
        self._written.append(
            kind.model_validate(
                {
                    "timestamp": occurred or detected,
                    "id": event_id(context.stream_id, self._sequence),
                    "room": context.room,
                    "participant": context.participant,
                    "stream": StreamRef(
                        id=context.stream_id,
                        sequence=self._sequence,
                        track_sid=context.track_sid,
                        track_source=context.track_source,
                    ),
                    "utterance": utterance and utterance.ref(),
                    "timing": Timing(
                        occurred_at=occurred,
                        detected_at=detected,
                        emitted_at=instant(self._emitted_wall),
                        media_start_ms=span.start_ms,
                        media_end_ms=span.end_ms,
                        timed_by=None if span.start_ms is None and span.end_ms is None else span.timed_by,
                        reliable=span.reliable and not context.overheard,
                    ),
                    "source": self._source(detector),
                    "data": data,
                }
            )
        )

    @property
    def now(self) -> int:
        """The wall time of detection for the events being written."""
        return self._now

    def take(self) -> list[StreamEvent]:
        """Return the events written since the last call."""
        written, self._written = self._written, []
        return written

    def _source(self, detector: Detector) -> Source:
        if detector not in self._sources:
            context = self._context
            self._sources[detector] = Source(
                detector=detector, stt=context.stt, vad=context.vad, realtime=context.realtime
            )
        return self._sources[detector]


TRANSCRIBERS = ("stt", "realtime")
"""Without these, speech is still detected; without any other source, the rest of the speech is unknown."""


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
        """Set the current time: see :meth:`Emission.at`."""
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


def source_failed(emission: Emission, down: SourceDown, utterance: Utterance | None) -> None:
    """``utterance`` is the one in which the source failed."""
    data = SourceFailedData(detector=down.detector, reason=down.reason, failed_at=instant(down.failed_at))
    emission.write(SourceFailed, data, _reporter(down.detector), utterance=utterance)


def source_recovered(emission: Emission, up: SourceUp) -> None:
    data = SourceRecoveredData(
        detector=up.detector,
        reason=up.reason,
        failed_at=instant(up.failed_at),
        gone_ms=up.gone_ms,
        missed_ms=up.missed_ms,
    )
    emission.write(SourceRecovered, data, _reporter(up.detector))


def _reporter(source: SourceName) -> Detector:
    return "room" if source == "audio" else source


def instant_or_none(wall: int | None) -> datetime | None:
    return None if wall is None else instant(wall)


def speech_started(emission: Emission, utterance: Utterance, occurred_wall: int | None) -> None:
    emission.write(
        SpeechStarted,
        SpeechStartedData(opened_by=utterance.opened_by),
        "tracker",
        utterance=utterance,
        span=utterance.span,
        occurred_wall=occurred_wall,
    )


def transcript_final(emission: Emission, utterance: Utterance, said: Said, occurred_wall: int | None) -> None:
    emission.write(
        TranscriptFinal,
        TranscriptFinalData(
            text=said.text,
            language=said.language,
            speaker_id=said.speaker_id,
            confidence=said.confidence,
            words=said.words,
        ),
        said.detector,
        utterance=utterance,
        span=said.span,
        occurred_wall=occurred_wall,
    )


def speech_ended(emission: Emission, utterance: Utterance) -> None:
    emission.write(
        SpeechEnded,
        SpeechEndedData(reason=utterance.reason, duration_ms=utterance.duration_ms, flaps=utterance.flaps),
        "tracker",
        utterance=utterance,
        span=utterance.span,
        occurred_wall=utterance.end_occurred_wall,
        detected_wall=utterance.end_detected_wall,
    )


def utterance_completed(emission: Emission, utterance: Utterance) -> None:
    finals = utterance.finals
    confidences = [said.confidence for said in finals if said.confidence is not None]
    emission.write(
        UtteranceCompleted,
        UtteranceCompletedData(
            outcome=utterance.outcome,
            revises=utterance.completed_as,
            reason=utterance.reason,
            duration_ms=utterance.duration_ms,
            text=" ".join(said.text for said in finals),
            finals=len(finals),
            language=next((said.language for said in finals if said.language), None),
            speaker_ids=tuple(dict.fromkeys(said.speaker_id for said in finals if said.speaker_id)),
            confidence=sum(confidences) / len(confidences) if confidences else None,
            words=tuple(word for said in finals for word in said.words),
            flaps=utterance.flaps,
        ),
        "tracker",
        utterance=utterance,
        span=utterance.span,
        occurred_wall=utterance.end_occurred_wall,
    )
    utterance.completed_as = utterance.revision


def turn_completed(emission: Emission, turn: TurnEnded, utterance: Utterance | None) -> None:
    data = TurnCompletedData(
        text=turn.text,
        confidence=turn.confidence,
        started_speaking_at=instant_or_none(turn.started_speaking_at),
        stopped_speaking_at=instant_or_none(turn.stopped_speaking_at),
        transcription_delay_ms=turn.transcription_delay_ms,
        end_of_turn_delay_ms=turn.end_of_turn_delay_ms,
    )
    emission.write(TurnCompleted, data, "session", utterance=utterance)
