"""Builds an utterance's events, for both the tracker and recovery."""

from relay.events.speech import (
    SpeechEnded,
    SpeechEndedData,
    SpeechStarted,
    SpeechStartedData,
    UtteranceCompleted,
    UtteranceCompletedData,
)
from relay.events.transcript import TranscriptFinal, TranscriptFinalData
from relay.speech.emission import Emission
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
