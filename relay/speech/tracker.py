"""Turns the detectors' observations of one stream into its events.

One utterance at a time is current (``speech.started`` sent, ``speech.ended`` not); any number may be settling.

- The opening detector opens and ends utterances: the voice activity detector; without one, the provider's own
  SpeechStarted and SpeechEnded; on a stream with a realtime model, which has neither, the model; for an agent's session
  elsewhere, its user state. Reports of other detectors are passed on and open nothing.
- Text that comes while nothing is current or settling opens an utterance of its own. A final of such an utterance ends
  it. Voice activity that comes before that takes it over.
- Text whose words lie in a completed utterance belongs to that one: its final is followed by another completion, which
  names the one it replaces. Each text is sent once in a final, and once in the newest completion of its utterance.
- A final whose words lie in several utterances is divided among them. A final that is reported twice is sent once.
- A detector's own event comes before the fused event that it causes, and both carry the utterance.
- A start in mid-speech and an end without a start are passed on and change nothing else.
- An utterance is completed a grace period after its end and its last transcript, or when no transcript came in time, or
  no final for its last interim. An utterance that is due waits for provider finals that the session has yet to report.
- After ``utterance.completed`` only late text is sent about an utterance. The detector's late end and the end of turn
  may still name it, with a higher revision.
- While the transcriber is down, ended speech waits for its text for as long as audio is buffered, and a while after the
  transcriber recovers. Where audio or voice activity fails, open speech ends as ``detector_lost``.
- Nothing is sent before ``Listening``, though sample anchors are accepted; nothing is sent after ``Ended``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from relay.clock import instant
from relay.events.detectors import (
    RealtimeEnd,
    RealtimeSpeechEnded,
    RealtimeSpeechEndedData,
    RealtimeSpeechStarted,
    RealtimeSpeechStartedData,
    SttSpeechData,
    SttSpeechEnded,
    SttSpeechStarted,
    UserStateChanged,
    UserStateChangedData,
    VadEnd,
    VadSpeechEnded,
    VadSpeechEndedData,
    VadSpeechStarted,
    VadSpeechStartedData,
)
from relay.events.envelope import Detector, Model, StreamEvent
from relay.events.speech import SpeechEnd, TranscriptInterim, TranscriptInterimData
from relay.events.stream import (
    MicrophoneMuted,
    MicrophoneMutedData,
    MicrophoneUnmuted,
    MicrophoneUnmutedData,
    SourceName,
    StreamEnded,
    StreamEndedData,
    StreamStarted,
    StreamStartedData,
)
from relay.speech.context import StreamContext, TrackerSettings
from relay.speech.emission import (
    TRANSCRIBERS,
    Emission,
    instant_or_none,
    source_failed,
    source_recovered,
    turn_completed,
)
from relay.speech.lifecycle import Lifecycle
from relay.speech.matching import Joiner
from relay.speech.observations import (
    Anchored,
    DetectorLost,
    Ended,
    Leaving,
    Listening,
    Muted,
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    SourceDown,
    SourceUp,
    StateChanged,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    Unmuted,
    VadEnded,
    VadStarted,
)
from relay.speech.sanitize import sane
from relay.speech.timing import AudioClock, Span, Waiting
from relay.speech.utterance import Utterance

_AS_VOICE: Mapping[RealtimeEnd, VadEnd] = MappingProxyType(
    {"silence": "silence", "lost": "flushed", "closed": "closed"}
)
"""Maps each end of a realtime model's speech to the voice activity end with the same effect on an utterance."""


class Tracker:
    """The state machine of one stream. ``now`` is wall time in epoch milliseconds.

    ``steady`` is elapsed time in milliseconds, by which the tracker waits, so that the wall clock may be set. ``ids``
    makes utterance ids. Call ``tick`` when ``deadline`` is reached; earlier or later does no harm.
    """

    def __init__(self, context: StreamContext, settings: TrackerSettings, ids: Callable[[], str]) -> None:
        self._opener: Detector = context.opener
        self._clock = AudioClock()
        self._waiting = Waiting()
        self._emission = Emission(context)
        self._joiner = Joiner(settings.join_timeout_ms)
        self._life = Lifecycle(self._emission, self._clock, settings, ids, texts=context.transcribes)
        self._now = 0
        self._phase: Literal["new", "listening", "over"] = "new"
        self._active: Utterance | None = None
        """The utterance in which the opening detector reports voice activity, even if something else ended it."""
        self._muted = False
        self._muted_at: int | None = None
        self._down: set[SourceName] = set()

    @property
    def deadline(self) -> int | None:
        """Epoch milliseconds at which ``tick`` is due; None while nothing is pending."""
        final_due = self._joiner.deadline
        dues = [due for due in (final_due, self._life.deadline(final_due)) if due is not None]
        return self._waiting.wall(min(dues)) if dues else None

    def observe(self, observation: Observation, now: int, steady: int) -> list[StreamEvent]:
        """Take an observation made at ``now`` and return the resulting events, in the order to append them."""
        known = sane(observation)
        if self._phase == "over" or known is None:
            return []
        self._at(now, steady)
        if isinstance(known, Anchored):
            self._clock.anchor(known.media_ms, known.wall_ms)
        elif self._phase == "listening":
            self._take(known)
        elif isinstance(known, Listening):
            self._begin(known)
        return self._emission.take()

    def tick(self, now: int, steady: int) -> list[StreamEvent]:
        """Run the steps due at ``now``."""
        if self._phase != "listening":
            return []
        self._at(now, steady)
        for said in self._joiner.expired(self._now):
            self._life.final(said, self._now)
        self._life.advance(self._now, self._joiner.deadline)
        return self._emission.take()

    def _at(self, now: int, steady: int) -> None:
        self._now = self._waiting.advance(now, steady)
        self._emission.at(now)

    def _take(self, observation: Observation) -> None:
        match observation:
            case VadStarted(onset_ms, speech_ms, probability):
                started = VadSpeechStartedData(speech_ms=speech_ms, probability=probability)
                self._voice_started("vad", VadSpeechStarted, started, onset_ms)
            case VadEnded():
                ended = VadSpeechEndedData(
                    reason=observation.reason,
                    speech_ms=observation.speech_ms,
                    silence_ms=observation.silence_ms,
                    probability_peak=observation.probability_peak,
                    probability_mean=observation.probability_mean,
                )
                self._voice_ended("vad", VadSpeechEnded, ended, observation.end_ms, observation.reason)
            case SttStarted(at_ms, request_id):
                self._voice_started("stt", SttSpeechStarted, SttSpeechData(request_id=request_id), at_ms)
            case SttEnded(at_ms, request_id):
                self._voice_ended("stt", SttSpeechEnded, SttSpeechData(request_id=request_id), at_ms)
            case RealtimeStarted(at_ms, item_id, padding_ms):
                began = RealtimeSpeechStartedData(item_id=item_id, padding_ms=padding_ms)
                self._voice_started("realtime", RealtimeSpeechStarted, began, at_ms)
            case RealtimeEnded(at_ms, reason, item_id, silence_ms):
                over = RealtimeSpeechEndedData(item_id=item_id, reason=reason, silence_ms=silence_ms)
                self._voice_ended("realtime", RealtimeSpeechEnded, over, at_ms, _AS_VOICE[reason])
            case SttTranscript(text):
                if text:
                    self._joiner.provided(observation, self._now)
                else:
                    self._life.withdrawn()
            case Transcribed(text, final) if text:
                self._transcribed(observation) if final else self._guessed(observation)
            case StateChanged(old, new):
                self._state_changed(UserStateChangedData(old_state=old, new_state=new))
            case TurnEnded():
                turn_completed(self._emission, observation, self._life.transcribed)
            case Muted() if not self._muted:
                self._mute()
            case Unmuted() if self._muted:
                self._unmute()
            case Leaving(reason):
                self._life.leaving = reason
            case DetectorLost():
                self._close("detector_lost")
            case SourceDown(detector) if detector not in self._down:
                self._source_down(observation)
            case SourceUp(detector) if detector in self._down:
                self._source_up(observation)
            case Ended():
                self._finish(observation)
            case _:
                pass  # No change: an empty session transcript, a mute while muted, a recovery without a failure.

    def _begin(self, listening: Listening) -> None:
        self._phase, self._muted = "listening", listening.muted
        if listening.first_frame_at is not None:
            self._clock.anchor(0, listening.first_frame_at)
        data = StreamStartedData(
            joined_at=instant_or_none(listening.joined_at),
            subscribed_at=instant(listening.subscribed_at),
            first_frame_at=instant_or_none(listening.first_frame_at),
            missed_ms=listening.missed_ms,
            muted=listening.muted,
        )
        self._emission.write(StreamStarted, data, "room", occurred_wall=listening.first_frame_at)

    def _voice_started(self, detector: Detector, kind: type[StreamEvent], data: Model, media_ms: int | None) -> None:
        span = Span(start_ms=media_ms, timed_by=detector)
        utterance, fresh = self._life.current, False
        if detector == self._opener:
            utterance, fresh = self._life.hear(detector, span, self._now)
            self._active = utterance
        self._emission.write(
            kind, data, detector, utterance=utterance, span=span, occurred_wall=self._clock.wall(media_ms)
        )
        if fresh and utterance is not None:
            self._life.announce(utterance)

    def _voice_ended(
        self, detector: Detector, kind: type[StreamEvent], data: Model, media_ms: int | None, reason: VadEnd = "silence"
    ) -> None:
        span = Span(end_ms=media_ms, timed_by=detector)
        opens = detector == self._opener
        utterance = self._active if opens else self._life.current
        self._emission.write(
            kind, data, detector, utterance=utterance, span=span, occurred_wall=self._clock.wall(media_ms)
        )
        if opens and utterance is not None:
            self._active = None
            self._life.quiet(utterance, span, reason, self._now)

    def _state_changed(self, data: UserStateChangedData) -> None:
        if self._opener != "session":
            self._emission.write(UserStateChanged, data, "session", utterance=self._life.current)
        elif data.new_state == "speaking":
            self._voice_started("session", UserStateChanged, data, None)
        elif data.old_state == "speaking":
            self._voice_ended("session", UserStateChanged, data, None)
        else:
            self._emission.write(UserStateChanged, data, "session")

    def _transcribed(self, report: Transcribed) -> None:
        for said in self._joiner.final(report):
            self._life.final(said, self._now)

    def _guessed(self, report: Transcribed) -> None:
        said = self._joiner.interim(report)
        data = TranscriptInterimData(text=said.text, language=said.language, speaker_id=said.speaker_id)
        utterance = self._life.interim(said, self._now)
        occurred = self._clock.wall(said.span.end_ms)
        self._emission.write(
            TranscriptInterim, data, said.detector, utterance=utterance, span=said.span, occurred_wall=occurred
        )

    def _mute(self) -> None:
        self._muted, self._muted_at = True, self._now
        current = self._life.current
        cut = current is not None and (current.phase == "speaking" or current.reason != "silence")
        self._emission.write(MicrophoneMuted, MicrophoneMutedData(cut_speech=cut), "room", utterance=current)
        self._life.cut("muted", self._now)

    def _unmute(self) -> None:
        muted_ms = None if self._muted_at is None else self._now - self._muted_at
        self._muted, self._muted_at = False, None
        self._emission.write(MicrophoneUnmuted, MicrophoneUnmutedData(muted_ms=muted_ms), "room")

    def _close(self, reason: SpeechEnd) -> None:
        for said in self._joiner.flush():
            self._life.final(said, self._now)
        self._life.close(reason, self._now)
        self._active = None

    def _source_down(self, down: SourceDown) -> None:
        self._down.add(down.detector)
        source_failed(self._emission, down, self._life.current)
        if down.detector in TRANSCRIBERS:
            self._life.transcriber_down(self._now)
        else:
            self._life.cut("detector_lost", self._now)

    def _source_up(self, up: SourceUp) -> None:
        self._down.remove(up.detector)
        source_recovered(self._emission, up)
        if up.detector in TRANSCRIBERS:
            self._life.transcriber_up(self._now)

    def _finish(self, ended: Ended) -> None:
        self._close(ended.reason)
        self._phase = "over"
        until = self._waiting.wall(self._now) if ended.reason == "worker_lost" else None
        data = StreamEndedData(
            reason=ended.reason,
            heard_ms=ended.heard_ms,
            utterances=self._life.opened,
            listened_until=instant_or_none(until),
        )
        self._emission.write(StreamEnded, data, "room")
