"""Plays a timeline: what is observed at the left margin, what the tracker says about it indented below.

    # A title.
    vad=silero stt=deepgram/nova-3 merge_gap_ms=400          whatever differs from the defaults

    1000 VadStarted(onset_ms=800, speech_ms=200)             milliseconds since the first frame, observation
        2 vad.speech_started u0.1 800.. vad @800 speech_ms=200
    1700 tick                                                 only where a deadline fell due: nobody writes it

An event is shown as: sequence, type, utterance index and revision, media start..end with who timed it, @occurred (ms
since the first frame), ~detected where that is not now, then what its data says, nulls and empties left out.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from relay.clock import instant
from relay.events.envelope import RoomRef, StreamEvent
from relay.speech import observations
from relay.speech.context import StreamContext, TrackerSettings
from relay.speech.observations import Observation
from relay.speech.tracker import Tracker
from tests.support.builders import a_participant

T0 = 1_795_256_100_000
"""2026-11-21T10:15:00Z, the wall time of the first frame in every timeline."""


def context(
    vad: str | None = "silero", stt: str | None = "deepgram/nova-3", realtime: str | None = None
) -> StreamContext:
    return StreamContext(
        stream_id="str_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B",
        room=RoomRef(sid="RM_x", name="support-42"),
        participant=a_participant("alice", sid="PA_x"),
        track_sid="TR_x",
        track_source="microphone",
        vad=vad,
        stt=stt,
        realtime=realtime,
    )


class HandTracker(Tracker):
    """A tracker for which time passes by its wall clock, unless a test says otherwise."""

    def observe(self, observation: Observation, now: int, steady: int | None = None) -> list[StreamEvent]:
        return super().observe(observation, now, now if steady is None else steady)

    def tick(self, now: int, steady: int | None = None) -> list[StreamEvent]:
        return super().tick(now, now if steady is None else steady)


def tracker(
    vad: str | None = "silero", stt: str | None = "deepgram/nova-3", realtime: str | None = None, **settings: int
) -> HandTracker:
    numbers = count()
    return HandTracker(context(vad, stt, realtime), TrackerSettings(**settings), lambda: f"utt_{next(numbers)}")


@dataclass(frozen=True)
class Step:
    """What happened at ``at``, in milliseconds since the first frame, and what the tracker said about it."""

    at: int
    observation: Observation | None
    """None: a deadline fell due."""
    events: list[StreamEvent]


def played(path: Path) -> Iterator[Step]:
    """The timeline through the tracker."""
    _, settings, *script = path.read_text().splitlines()
    options = {key: value for key, _, value in (pair.partition("=") for pair in settings.split())}
    vad, stt, realtime = (_name(options.pop(key, "none")) for key in ("vad", "stt", "realtime"))
    machine = tracker(vad, stt, realtime, **{key: int(value) for key, value in options.items()})
    for at, observation in _script(script):
        yield from _ticked(machine, at)
        yield Step(at, observation, machine.observe(observation, T0 + at))
    yield from _ticked(machine, 1_000_000)


def replayed(path: Path) -> str:
    """The timeline again, with what the tracker says now."""
    lines = [*path.read_text().splitlines()[:2], ""]
    for step in played(path):
        lines.append(f"{step.at} {'tick' if step.observation is None else _shown(step.observation)}")
        lines.extend(f"    {rendered(event, step.at)}" for event in step.events)
    return "\n".join(lines) + "\n"


def rendered(event: StreamEvent, now: int) -> str:
    """One line for an event; times in milliseconds since the first frame."""
    timing = event.timing
    words = [str(event.stream.sequence), event.type]
    if event.utterance is not None:
        words.append(f"u{event.utterance.index}.{event.utterance.revision}")
    if timing.timed_by is not None:
        start, end = ("" if ms is None else ms for ms in (timing.media_start_ms, timing.media_end_ms))
        words.append(f"{start}..{end} {timing.timed_by}{'' if timing.reliable else '?'}")
    if timing.occurred_at is not None:
        words.append(f"@{_since(timing.occurred_at)}")
    if timing.detected_at != instant(T0 + now):
        words.append(f"~{_since(timing.detected_at)}")
    if event.type.startswith("transcript.") and event.source.detector != "session":
        words.append(f"by {event.source.detector}")
    data = event.model_dump()["data"]
    words.extend(f"{key}={_value(value)}" for key, value in data.items() if value is not None and value != ())
    return " ".join(words)


def _script(lines: list[str]) -> Iterator[tuple[int, Observation]]:
    for line in lines:
        if line and not line.startswith(" ") and not line.endswith(" tick"):
            at, _, call = line.partition(" ")
            yield int(at), _built(ast.parse(call, mode="eval").body)


def _built(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = {str(keyword.arg): _built(keyword.value) for keyword in node.keywords}
        if node.func.id == "Listening":
            arguments = {"subscribed_at": T0, "first_frame_at": T0, **arguments}
        return getattr(observations, node.func.id)(**arguments)
    if isinstance(node, ast.Tuple):
        return tuple(_built(item) for item in node.elts)
    return ast.literal_eval(node)


def _shown(value: Any) -> str:
    """The observation as it is written in a timeline: defaults left out."""
    if isinstance(value, tuple):
        return "(" + ", ".join(_shown(item) for item in value) + ("," if len(value) == 1 else "") + ")"
    if not hasattr(value, "__dataclass_fields__"):
        return repr(value)
    hidden = {"subscribed_at", "first_frame_at"} if isinstance(value, observations.Listening) else set()
    arguments = (
        f"{name}={_shown(getattr(value, name))}"
        for name, field in value.__dataclass_fields__.items()
        if name not in hidden and getattr(value, name) != field.default
    )
    return f"{type(value).__name__}({', '.join(arguments)})"


def _ticked(machine: HandTracker, until: int) -> Iterator[Step]:
    while (deadline := machine.deadline) is not None and deadline <= T0 + until:
        yield Step(deadline - T0, None, machine.tick(deadline))


def _since(moment: datetime) -> int:
    return (moment - instant(T0)) // timedelta(milliseconds=1)


def _name(value: str) -> str | None:
    return None if value == "none" else value


def _value(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if " " in value or not value else value
    if isinstance(value, tuple):
        return "[" + " ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return f"{value['text']}@{value['start_ms']}-{value['end_ms']}"
    return str(value)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(replayed(path))
