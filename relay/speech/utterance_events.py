"""Builds the events of an utterance and of a turn."""

from relay.events.speech import (
    SpeechEnded,
    SpeechEndedData,
    SpeechStarted,
    SpeechStartedData,
    UtteranceCompleted,
    UtteranceCompletedData,
)
from relay.events.transcript import TranscriptFinal, TranscriptFinalData
from relay.events.turn import TurnCompleted, TurnCompletedData
from relay.speech.emission import Emission, instant_or_none
from relay.speech.observations import TurnEnded
from relay.speech.utterance import Said, Utterance


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
