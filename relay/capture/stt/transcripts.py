"""Turns a provider's speech events into observations."""

from collections.abc import Callable

from livekit.agents import NotGivenOr, stt
from livekit.agents.types import TimedString
from livekit.agents.utils import is_given

from relay.capture.audio.source import AHEAD_S
from relay.speech.matching import Repeats
from relay.speech.observations import SpokenWord, SttEnded, SttStarted, SttTranscript

TEXTS = (
    stt.SpeechEventType.INTERIM_TRANSCRIPT,
    stt.SpeechEventType.PREFLIGHT_TRANSCRIPT,
    stt.SpeechEventType.FINAL_TRANSCRIPT,
)


class Transcripts:
    """Reports a provider's events, with paired starts and ends.

    ``timed`` false: the provider's times are not relative to the stream, and are left out. ``offset_s`` is the media
    time, in seconds, that the provider's stream was configured to start from.
    """

    def __init__(self, report: Callable[[SttStarted | SttEnded | SttTranscript], None], *, timed: bool) -> None:
        self._report = report
        self._timed = timed
        self._speaking = False
        self._guessing = False
        self._repeats = Repeats()
        self._until_s = LONGEST_S
        self.repeated = False
        """Whether the newest event is a final that was reported before. It is passed on: another observer of the
        provider may report it too, and the two are joined later."""
        self.offset_s = 0.0
        self.final_to_ms: int | None = None
        """Where the newest final ends; None where the provider did not report it."""

    @property
    def open(self) -> bool:
        """Whether more is to come: the end of speech, or the final text of an interim."""
        return self._speaking or self._guessing

    def heard(self, event: stt.SpeechEvent, offset_now_s: float, began_at_s: float, given_s: float) -> None:
        """Report an event. ``offset_now_s`` is the stream's current offset: it moves when the library reconnects.
        ``began_at_s`` is the wall time of the connection's first audio, from which some providers count onsets.
        ``given_s`` is the media time at which the audio ends that the provider was given so far."""
        self.repeated = False
        spoken = event.alternatives[0] if event.alternatives else None
        request_id = event.request_id or None
        # Our own offset is passed on as it is; the library adds the microseconds of its first start.
        steady = offset_now_s - self.offset_s < 0.005
        self._until_s = min(given_s + AHEAD_S, LONGEST_S) if steady else LONGEST_S
        if event.type in (*TEXTS, stt.SpeechEventType.END_OF_SPEECH):
            self._guessing = event.type in TEXTS and event.type is not stt.SpeechEventType.FINAL_TRANSCRIPT
        match event.type:
            case stt.SpeechEventType.START_OF_SPEECH if not self._speaking:
                self._speaking = True
                at_ms = self._span(spoken, (), offset_now_s)[0]
                if event.speech_start_time is not None:
                    at_ms = self._ms(offset_now_s + event.speech_start_time - began_at_s)
                self._report(SttStarted(at_ms=at_ms if steady else None, request_id=request_id))
            case stt.SpeechEventType.END_OF_SPEECH if self._speaking:
                self._speaking = False
                at_ms = self._span(spoken, (), offset_now_s)[1]
                self._report(SttEnded(at_ms=at_ms if steady else None, request_id=request_id))
            case kind if kind in TEXTS and spoken is not None:
                words = tuple(self._word(word, offset_now_s) for word in spoken.words or ())
                start_ms, end_ms = self._span(spoken, words, offset_now_s)
                if kind is stt.SpeechEventType.FINAL_TRANSCRIPT:
                    self.final_to_ms = end_ms if steady else None
                transcript = SttTranscript(
                    text=spoken.text,
                    final=kind is stt.SpeechEventType.FINAL_TRANSCRIPT,
                    start_ms=start_ms,
                    end_ms=end_ms,
                    words=words,
                    # LiveKit uses 0.0 where a provider gives none.
                    confidence=spoken.confidence or None,
                    language=str(spoken.language) or None,
                    speaker_id=spoken.speaker_id,
                    request_id=request_id,
                    # Where the words have no times, those of the whole are the provider's window, not the speech.
                    reliable=steady and (not words or None not in (words[0].start_ms, words[-1].end_ms)),
                )
                self.repeated = transcript.final and self._repeats.take(transcript)
                self._report(transcript)

    def end(self) -> None:
        """The provider's stream ended, possibly in mid-speech."""
        self._guessing = False
        if self._speaking:
            self._speaking = False
            self._report(SttEnded(at_ms=None))

    def _span(
        self, spoken: stt.SpeechData | None, words: tuple[SpokenWord, ...], offset_now_s: float
    ) -> tuple[int | None, int | None]:
        if words and words[0].start_ms is not None and words[-1].end_ms is not None:
            # Some providers' own span is a window that begins in the silence before.
            return words[0].start_ms, words[-1].end_ms
        # A provider without times leaves both at zero, or at the offset if it adds that unconditionally.
        if not self._timed or spoken is None or spoken.end_time <= offset_now_s:
            return None, None
        return self._ms(spoken.start_time), self._ms(spoken.end_time)

    def _word(self, word: TimedString, offset_now_s: float) -> SpokenWord:
        timed = self._timed and is_given(word.end_time) and word.end_time > offset_now_s
        return SpokenWord(
            text=str(word),
            start_ms=self._given_ms(word.start_time) if timed else None,
            end_ms=self._given_ms(word.end_time) if timed else None,
            confidence=(word.confidence or None) if is_given(word.confidence) else None,
        )

    def _ms(self, seconds: float) -> int | None:
        """None for what is no time in the audio so far: NaN, infinity, or one that lies ahead of it."""
        return max(0, round(seconds * 1000)) if -LONGEST_S < seconds < self._until_s else None

    def _given_ms(self, seconds: NotGivenOr[float]) -> int | None:
        return self._ms(seconds) if is_given(seconds) else None


LONGEST_S = 2.0**30
"""34 years of audio."""
