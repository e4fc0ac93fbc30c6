"""Ends a stream whose writer died, a track's or a room's, based on its logged events."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from relay.clock import epoch_ms, instant
from relay.events.detectors import (
    RealtimeSpeechEnded,
    RealtimeSpeechStarted,
    SttSpeechEnded,
    SttSpeechStarted,
    UserStateChanged,
    VadSpeechEnded,
    VadSpeechStarted,
)
from relay.events.envelope import Detector, RoomEvent, StreamEvent
from relay.events.omission import EventTooLarge
from relay.events.speech import (
    OverlapEnded,
    OverlapEndedData,
    OverlapStarted,
    SpeechEnded,
    SpeechStarted,
    TranscriptFinal,
    UtteranceCompleted,
)
from relay.events.stream import StreamEnded, StreamEndedData
from relay.speech.context import StreamContext
from relay.speech.emission import Emission, RoomEmission, speech_ended, utterance_completed
from relay.speech.timing import Span
from relay.speech.utterance import Said, Utterance

_EDGES: Mapping[Detector, tuple[type[StreamEvent], type[StreamEvent]]] = MappingProxyType(
    {
        "vad": (VadSpeechStarted, VadSpeechEnded),
        "stt": (SttSpeechStarted, SttSpeechEnded),
        "realtime": (RealtimeSpeechStarted, RealtimeSpeechEnded),
    }
)
"""The start and the end of speech, by the detector that opens utterances; a session reports both as the user's
state."""


def closing_events(
    history: Sequence[StreamEvent],
    now: int,
    *,
    last_sequence: int,
    last_beat: int | None = None,
) -> list[StreamEvent]:
    """Return the events that end a dead writer's stream, to append in order at ``now`` (epoch ms).

    ``history`` is the stream's log, oldest first; for a pruned log, the rest of it. ``last_sequence`` is the log's own
    last one: its event may be an interim whose body is already deleted. ``last_beat`` is the writer's last heartbeat
    (epoch ms); None where unknown. Each open utterance gets its end (without a measured time: no duration, no end) and
    its completion with the logged finals, then the stream ends. Returns nothing for a stream that already ended, or for
    one without any event: it was opened but never began, so no receiver can be waiting for it.
    """
    if not history or isinstance(history[-1], StreamEnded):
        return []
    last = history[-1]
    emission = Emission(_context(last), last_sequence, epoch_ms(last.timing.emitted_at))
    emission.at(now)
    opened = 0
    for events in _by_utterance(history):
        started = next((event for event in events if isinstance(event, SpeechStarted)), None)
        if started is None:
            continue
        opened = max(opened, started.utterance.index + 1)
        utterance = _rebuilt(started, events)
        if utterance.phase == "completed":
            continue
        if utterance.current:
            utterance.reason = "worker_lost"
            speech_ended(emission, utterance)
        utterance_completed(emission, utterance)
    until = max(epoch_ms(last.timing.emitted_at), last_beat or 0)
    data = StreamEndedData(reason="worker_lost", heard_ms=None, utterances=opened, listened_until=instant(until))
    emission.write(StreamEnded, data, "tracker")
    return emission.take()


def closing_room_events(history: Sequence[RoomEvent], now: int, *, last_sequence: int) -> list[RoomEvent]:
    """Return the events that end a dead writer's room stream, to append at ``now`` (epoch ms).

    ``history`` is the stream's log, oldest first. At most one event: the end of the overlap in progress. Its end time,
    its maximum number of speakers and the participants who joined after its start are unknown.
    """
    last = history[-1] if history else None
    if not isinstance(last, OverlapStarted):
        return []
    emission = RoomEmission(last.room, last.stream.id, last_sequence, epoch_ms(last.timing.emitted_at))
    emission.at(now)
    data = OverlapEndedData(
        overlap_id=last.data.overlap_id,
        reason="worker_lost",
        duration_ms=None,
        peak=len({speaker.identity for speaker in last.data.speakers}),
        speakers=last.data.speakers,
    )
    emission.write(OverlapEnded, data, last.source, occurred_wall=None)
    return emission.take()


def _by_utterance(history: Sequence[StreamEvent]) -> Iterable[list[StreamEvent]]:
    """The events of each utterance, in the order in which the utterances first appeared."""
    about: dict[str, list[StreamEvent]] = {}
    for event in history:
        if event.utterance is not None:
            about.setdefault(event.utterance.id, []).append(event)
    return about.values()


def _completes(event: StreamEvent) -> bool:
    """Whether it is the utterance's completion, or replaces one that was too large."""
    completion: str = UtteranceCompleted.model_fields["type"].default
    return completion == (event.data.type if isinstance(event, EventTooLarge) else event.type)


def _rebuilt(started: SpeechStarted, events: Sequence[StreamEvent]) -> Utterance:
    """Restore the utterance as its writer had it."""
    utterance = Utterance(
        id=started.utterance.id,
        index=started.utterance.index,
        opened_by=started.data.opened_by,
        heard=False,
        touched_at=0,
        onset_ms=started.timing.media_start_ms,
        timed_by=started.timing.timed_by,
        reliable=started.timing.reliable,
    )
    opener = _context(started).opener
    paused = False
    for event in events:
        if _begins(event, opener):
            if not utterance.heard:
                utterance.heard = True
                utterance.starts(Span(event.timing.media_start_ms, None, event.timing.timed_by))
            utterance.flaps += paused
            paused = False
        elif _ceases(event, opener):
            paused = True
        elif isinstance(event, TranscriptFinal):
            utterance.finals.append(_said(event))
            if utterance.phase == "completed":
                utterance.phase = "settling"
        elif isinstance(event, SpeechEnded):
            _end(utterance, event)
        elif _completes(event):
            utterance.phase = "completed"
            utterance.completed_as = None if event.utterance is None else event.utterance.revision
    utterance.revision = max(event.utterance.revision for event in events if event.utterance is not None)
    return utterance


def _begins(event: StreamEvent, opener: Detector) -> bool:
    if opener == "session":
        return isinstance(event, UserStateChanged) and event.data.new_state == "speaking"
    return isinstance(event, _EDGES[opener][0])


def _ceases(event: StreamEvent, opener: Detector) -> bool:
    if opener == "session":
        return isinstance(event, UserStateChanged) and event.data.old_state == "speaking"
    return isinstance(event, _EDGES[opener][1])


def _end(utterance: Utterance, ended: SpeechEnded) -> None:
    timing = ended.timing
    utterance.phase, utterance.reason, utterance.flaps = "settling", ended.data.reason, ended.data.flaps
    utterance.onset_ms, utterance.end_ms = timing.media_start_ms, timing.media_end_ms
    utterance.timed_by, utterance.reliable = timing.timed_by, timing.reliable
    utterance.end_occurred_wall = None if timing.occurred_at is None else epoch_ms(timing.occurred_at)


def _said(final: TranscriptFinal) -> Said:
    data = final.data
    return Said(data.text, final.source.detector, data.language, data.speaker_id, data.confidence, data.words)


def _context(event: StreamEvent) -> StreamContext:
    return StreamContext(
        stream_id=event.stream.id,
        room=event.room,
        participant=event.participant,
        track_sid=event.stream.track_sid,
        track_source=event.stream.track_source,
        vad=event.source.vad,
        stt=event.source.stt,
        realtime=event.source.realtime,
    )
