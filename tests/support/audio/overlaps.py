"""Several participants' speech, as their streams' trackers report it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from relay.clock import epoch_ms, instant
from relay.events.envelope import (
    RoomEvent,
    RoomRef,
    Source,
    StreamEvent,
    StreamRef,
    UtteranceRef,
)
from relay.events.speech import (
    OverlapEnded,
    OverlapStarted,
    SpeechEnd,
    SpeechEnded,
    SpeechEndedData,
    SpeechStarted,
    SpeechStartedData,
)
from relay.events.stream import StreamEnded, StreamEndedData, StreamStarted, StreamStartedData
from relay.speech.overlap import OverlapSettings, OverlapTracker
from tests.support.builders import a_participant, timing

T0 = 1_795_256_100_000
ROOM = RoomRef(sid="RM_x", name="support-42")


@dataclass(frozen=True)
class Speech:
    """Milliseconds since T0. Reported when it happens unless set otherwise."""

    who: str
    utterance: str
    start: int
    end: int | None = None
    """None: it continues."""
    start_told: int | None = None
    end_told: int | None = None
    reason: SpeechEnd = "silence"


class HandOverlapTracker(OverlapTracker):
    """A tracker for which time passes by its wall clock, unless a test says otherwise."""

    def observe(self, event: StreamEvent, now: int, steady: int | None = None) -> list[RoomEvent]:
        return super().observe(event, now, now if steady is None else steady)

    def tick(self, now: int, steady: int | None = None) -> list[RoomEvent]:
        return super().tick(now, now if steady is None else steady)


def tracker(min_ms: int = 300, lag_ms: int = 850) -> HandOverlapTracker:
    numbers = count()
    settings = OverlapSettings(min_ms=min_ms, lag_ms=lag_ms)
    return HandOverlapTracker(ROOM, "str_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B", settings, lambda: f"ovl_{next(numbers)}")


def told(speech: Sequence[Speech], *, measured: bool = True) -> list[tuple[int, StreamEvent]]:
    """(wall time of the report, event) in that order. Not ``measured``: the time of the speech is unknown."""
    found = []
    for number, one in enumerate(speech):
        start_told = one.start if one.start_told is None else one.start_told
        found.append((T0 + start_told, 2 * number, speech_event(one, measured=measured)))
        if one.end is not None:
            end_told = max(start_told, one.end if one.end_told is None else one.end_told)
            found.append((T0 + end_told, 2 * number + 1, speech_event(one, ends=True, measured=measured)))
    return [(at, event) for at, _, event in sorted(found, key=lambda each: each[:2])]


def heard_out(
    speech: Sequence[Speech], *, min_ms: int = 300, measured: bool = True, close: bool = True
) -> Iterator[tuple[int, OverlapStarted | OverlapEnded]]:
    """(wall time of emission, event): a tracker's output for this speech, ticked at its deadlines. ``close``: listening
    ends a minute after T0."""
    machine = tracker(min_ms)
    for at, event in [*told(speech, measured=measured), (None, None)]:
        while (due := machine.deadline) is not None and (at is None or due <= at):
            yield from _said(due, machine.tick(due))
        if at is not None and event is not None:
            yield from _said(at, machine.observe(event, at))
    if close:
        yield from _said(T0 + 60_000, machine.close(T0 + 60_000))


def _said(now: int, events: Sequence[RoomEvent]) -> Iterator[tuple[int, OverlapStarted | OverlapEnded]]:
    for event in events:
        assert isinstance(event, OverlapStarted | OverlapEnded)
        yield now, event


def speech_event(one: Speech, *, ends: bool = False, measured: bool = True, room: RoomRef = ROOM) -> StreamEvent:
    occurred = instant(T0 + (one.end if ends and one.end is not None else one.start))
    fields = {
        "timestamp": occurred,
        "id": f"evt_{one.utterance}_{ends}",
        "room": room,
        "participant": a_participant(one.who, sid=f"PA_{one.who}"),
        "stream": StreamRef(
            id=f"str_{one.who}", sequence=1 + ends, track_sid=f"TR_{one.who}", track_source="microphone"
        ),
        "utterance": UtteranceRef(id=one.utterance, index=0, revision=1 + ends),
        "timing": timing(epoch_ms(occurred)).model_copy(update={"occurred_at": occurred if measured else None}),
        "source": Source(detector="tracker", stt="deepgram/nova-3", vad="silero"),
    }
    if ends:
        return SpeechEnded.model_validate(
            {**fields, "data": SpeechEndedData(reason=one.reason, duration_ms=None, flaps=0)}
        )
    return SpeechStarted.model_validate({**fields, "data": SpeechStartedData(opened_by="vad")})


def stream_event(who: str, *, ends: bool = False, room: RoomRef = ROOM) -> StreamEvent:
    """The first event of a participant's stream, or the last."""
    like = speech_event(Speech(who, "utt_0", 0), room=room)
    fields = {
        name: getattr(like, name) for name in ("timestamp", "id", "room", "participant", "stream", "timing", "source")
    }
    fields["utterance"] = None
    if ends:
        return StreamEnded.model_validate(
            {**fields, "data": StreamEndedData(reason="disconnected", heard_ms=None, utterances=1)}
        )
    data = StreamStartedData(
        joined_at=None, subscribed_at=instant(T0), first_frame_at=None, missed_ms=None, muted=False
    )
    return StreamStarted.model_validate({**fields, "data": data})
