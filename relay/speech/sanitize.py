"""Sanitizes detector reports, so that the state machine can trust every value.

Media times before the first frame: clamped to 0 where one is required, else unknown. Wall times outside the range of a
datetime: unknown; an anchor with one is dropped. Probabilities and confidences outside 0 to 1, NaN included: unknown.
Lone surrogates, which are not valid text and cannot be encoded as UTF-8: the replacement character. The relay's own
readings (``now``, ``subscribed_at``) are trusted.
"""

from dataclasses import replace

from relay.speech.observations import (
    Anchored,
    Ended,
    Listening,
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SpokenWord,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)

_MEDIA_LIMIT = 2**40
"""35 years of audio. With the limit on wall times, sums stay within the range of a datetime."""
_WALL_LIMIT = 2**47
"""The year 6429."""


def sane(observation: Observation) -> Observation | None:
    """Return the observation without invalid values; None where nothing is left of it."""
    match observation:
        case Anchored(media_ms, wall_ms):
            return observation if _media(media_ms) is not None and _wall(wall_ms) is not None else None
        case Listening():
            return replace(
                observation,
                first_frame_at=_wall(observation.first_frame_at),
                joined_at=_wall(observation.joined_at),
                missed_ms=_media(observation.missed_ms),
            )
        case VadStarted(onset_ms, speech_ms, probability):
            return VadStarted(_clamped(onset_ms), _clamped(speech_ms), _share(probability))
        case VadEnded(end_ms, reason, speech_ms, silence_ms, peak, mean):
            return VadEnded(_media(end_ms), reason, _media(speech_ms), _media(silence_ms), _share(peak), _share(mean))
        case SttStarted() | SttEnded():
            return replace(observation, at_ms=_media(observation.at_ms), request_id=_label(observation.request_id))
        case RealtimeStarted(at_ms, item_id, padding_ms):
            return RealtimeStarted(_media(at_ms), _label(item_id), _media(padding_ms))
        case RealtimeEnded(at_ms, reason, item_id, silence_ms):
            return RealtimeEnded(_media(at_ms), reason, _label(item_id), _media(silence_ms))
        case SttTranscript():
            return replace(
                observation,
                text=_text(observation.text).strip(),
                start_ms=_media(observation.start_ms),
                end_ms=_media(observation.end_ms),
                words=tuple(_word(word) for word in observation.words),
                confidence=_share(observation.confidence),
                language=_label(observation.language),
                speaker_id=_label(observation.speaker_id),
            )
        case Transcribed(text, final, language, speaker_id):
            return Transcribed(_text(text).strip(), final, _label(language), _label(speaker_id))
        case TurnEnded():
            return replace(
                observation,
                text=_text(observation.text),
                confidence=_share(observation.confidence),
                started_speaking_at=_wall(observation.started_speaking_at),
                stopped_speaking_at=_wall(observation.stopped_speaking_at),
            )
        case Ended(reason, heard_ms):
            return Ended(reason, _media(heard_ms))
        case _:
            return observation


def _media(value: int | None) -> int | None:
    return value if value is not None and 0 <= value < _MEDIA_LIMIT else None


def _clamped(value: int) -> int:
    return min(max(value, 0), _MEDIA_LIMIT - 1)


def _wall(value: int | None) -> int | None:
    return value if value is not None and 0 <= value < _WALL_LIMIT else None


def _share(value: float | None) -> float | None:
    return value if value is not None and 0 <= value <= 1 else None


def _word(word: SpokenWord) -> SpokenWord:
    return SpokenWord(_text(word.text), _media(word.start_ms), _media(word.end_ms), _share(word.confidence))


def _text(value: str) -> str:
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _label(value: str | None) -> str | None:
    return value if value is None else _text(value)
