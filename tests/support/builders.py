"""Values that many tests need, with everything in them that the test at hand does not care about.

Streams are numbered: stream 1 is the track TR_1, and its events are recognized by stream and sequence.
"""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

from relay.clock import SystemClock, instant
from relay.config.endpoint import Endpoint
from relay.events.detectors import SttSpeechData, SttSpeechStarted
from relay.events.envelope import (
    Delivery,
    Detector,
    ParticipantRef,
    RoomEvent,
    RoomRef,
    RoomStreamRef,
    Source,
    StreamEvent,
    StreamRef,
    Timing,
    UtteranceRef,
)
from relay.events.speech import (
    OverlapStarted,
    OverlapStartedData,
    Speaker,
    TranscriptFinal,
    TranscriptFinalData,
    TranscriptInterim,
    TranscriptInterimData,
)
from relay.events.stream import StreamEnded, StreamEndedData
from relay.ids import event_id
from relay.outbox.log.processes import ProcessState
from relay.outbox.records import NewStream, Record

EPOCH_MS = 1_800_000_000_000
"""The wall time of events, and of clocks that stand still."""

NOWHERE = "http://127.0.0.1:9/"
"""The URL of an endpoint that is not sent to."""

ROOM = RoomRef(sid="RM_1", name="room")


def a_participant(identity: str = "alice", *, sid: str = "PA_1") -> ParticipantRef:
    return ParticipantRef(sid=sid, identity=identity, name=identity.title(), kind="standard", attributes={})


ALICE = a_participant()


def endpoint(name: str = "crm", **keys: Any) -> Endpoint:
    """An endpoint that gets every event, unsigned. ``keys`` are those of config.yaml."""
    return Endpoint.model_validate({"name": name, "url": NOWHERE, "signing": "none", "events": ["*"], **keys})


def stream_id(number: int) -> str:
    return f"str_{number:026d}"


def new_stream(number: int = 1, *, track: str | None = None) -> NewStream:
    return NewStream(stream_id(number), ROOM.sid, ROOM.name, track or f"TR_{number}", "alice")


def track(number: int, identity: str, room: str = "room") -> NewStream:
    """The stream of a participant's track in a room."""
    return NewStream(stream_id(number), f"RM_{room}", room, f"TR_{number}", identity)


def own(number: int, room: str = "room") -> NewStream:
    """The stream of the room itself."""
    return NewStream(stream_id(number), f"RM_{room}", room, "", "")


def timing(at: int) -> Timing:
    """Detected and emitted at this wall time; it did not occur at a known one."""
    return Timing(
        occurred_at=None,
        detected_at=instant(at),
        emitted_at=instant(at),
        media_start_ms=None,
        media_end_ms=None,
        timed_by=None,
        reliable=True,
    )


def envelope(
    number: int,
    sequence: int,
    *,
    at: int = EPOCH_MS,
    room: RoomRef = ROOM,
    participant: ParticipantRef = ALICE,
    detector: Detector = "stt",
) -> dict[str, Any]:
    """What an event of a numbered stream has besides its type and its data."""
    return {
        "timestamp": instant(at),
        "id": event_id(stream_id(number), sequence),
        "room": room,
        "participant": participant,
        "stream": StreamRef(
            id=stream_id(number), sequence=sequence, track_sid=f"TR_{number}", track_source="microphone"
        ),
        "utterance": None,
        "timing": timing(at),
        "source": Source(detector=detector, stt="deepgram/nova-3", vad=None),
    }


def durable(number: int, sequence: int, *, at: int = EPOCH_MS, size: int = 0) -> StreamEvent:
    """An event without particular meaning, with at least ``size`` bytes."""
    data = SttSpeechData(request_id="x" * size)
    return SttSpeechStarted.model_validate({**envelope(number, sequence, at=at), "data": data})


def run(number: int, first: int, last: int) -> list[StreamEvent]:
    """Durable events with these sequences."""
    return [durable(number, sequence) for sequence in range(first, last + 1)]


def interim(number: int, sequence: int, *, revision: int, at: int = EPOCH_MS, text: str = "hello") -> StreamEvent:
    data = TranscriptInterimData(text=text, language="en", speaker_id=None)
    utterance = UtteranceRef(id="utt_1", index=0, revision=revision)
    return TranscriptInterim.model_validate({**envelope(number, sequence, at=at), "utterance": utterance, "data": data})


def said(number: int, sequence: int, identity: str, text: str, *, at: int = EPOCH_MS) -> StreamEvent:
    """A final transcript, in the room of :func:`track`."""
    common = envelope(
        number,
        sequence,
        at=at,
        room=RoomRef(sid="RM_room", name="room"),
        participant=a_participant(identity),
        detector="session",
    )
    data = TranscriptFinalData(text=text, language="en", speaker_id=None, confidence=None, words=())
    utterance = UtteranceRef(id="utt_1", index=0, revision=sequence)
    return TranscriptFinal.model_validate({**common, "utterance": utterance, "data": data})


def overlap(number: int, sequence: int, *identities: str, at: int = EPOCH_MS) -> RoomEvent:
    """The start of an overlap, on the room's own stream."""
    speakers = tuple(
        Speaker(identity=identity, sid="PA_1", stream_id=stream_id(1), utterance_id="utt_1") for identity in identities
    )
    return OverlapStarted(
        timestamp=instant(at),
        id=event_id(stream_id(number), sequence),
        room=RoomRef(sid="RM_room", name="room"),
        stream=RoomStreamRef(id=stream_id(number), sequence=sequence),
        timing=timing(at),
        source=Source(detector="tracker", stt=None, vad=None),
        data=OverlapStartedData(overlap_id="ovl_1", speakers=speakers),
    )


def ended(number: int, sequence: int, *, at: int = EPOCH_MS) -> StreamEvent:
    """The last event of a stream."""
    data = StreamEndedData(reason="unpublished", heard_ms=0, utterances=0)
    return StreamEnded.model_validate({**envelope(number, sequence, at=at), "data": data})


def a_record(
    sequence: int,
    type_: str = "speech.started",
    *,
    stream: str = "A",
    utterance: str | None = None,
    revision: int | None = None,
    emitted_at: int | None = None,
    expires_at: int | None = None,
    text: str = "hello",
) -> Record:
    """A record as in the log, created now. Its body identifies it."""
    event_id = f"evt_{stream}_{sequence}"
    body = {"type": type_, "id": event_id, "stream": {"id": f"str_{stream}", "sequence": sequence}}
    latest = type_ == "transcript.interim"
    at = SystemClock().now_ms() if emitted_at is None else emitted_at
    return Record(
        sequence=sequence,
        id=event_id,
        type=type_,
        delivery=Delivery.LATEST if latest else Delivery.DURABLE,
        utterance=utterance,
        revision=revision,
        emitted_at=at,
        expires_at=at + 10_000 if latest and expires_at is None else expires_at,
        body=json.dumps({**body, "data": {"text": text}}).encode(),
    )


def dead_pid() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    return dead.pid


def process(name: str, role: str = "worker", **changed: object) -> ProcessState:
    """What a process that listens in three rooms says of itself, on another machine; for a minute, so that a busy
    machine does not take it for lost."""
    now = SystemClock().now_ms()
    listens = 0 if role == "dispatch" else 3
    whole = ProcessState(
        id=name,
        role=role,  # type: ignore[arg-type]
        host=f"{name}.example pid:[1]",
        pid=7,
        version="1",
        started_at=now - 7_200_000,
        ready_at=now - 7_190_000,
        seen_at=now + 60_000,
        stopped_at=None,
        waits_for="",
        rooms_heard=listens,
        rooms_unheard=min(listens, 1),
        jobs=listens,
        lanes=0,
        cpu_load=0.45,
        cpu_limit=0.7,
        refusing=False,
        endpoints=() if role == "worker" else ("crm",),
    )
    return replace(whole, **changed)  # type: ignore[arg-type]
