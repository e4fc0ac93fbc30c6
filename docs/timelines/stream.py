"""What a picture of one stream shows: what the detectors reported, and what the relay made of it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from docs.timelines.drawing import Lane, Mark, Picture, Section
from relay.clock import epoch_ms
from relay.events.envelope import StreamEvent
from relay.speech.observations import (
    Anchored,
    Muted,
    Observation,
    RealtimeEnded,
    RealtimeStarted,
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
from relay.speech.timing import AudioClock
from tests.unit.timelines.play import T0, Step, played

_LEFT_OUT = ("vad.", "stt.", "realtime.", "stream.")
"""What detectors say is above; that a stream begins and ends goes without saying."""

_COLOURS = 3


def stream_picture(path: Path) -> Picture:
    """The timeline in this file."""
    steps = list(played(path))
    clock = _clock(steps)
    events = [(step.at, event) for step in steps for event in step.events if not event.type.startswith(_LEFT_OUT)]
    lines = [(at, event, _said(event)) for at, event in events]
    told = tuple(
        Lane(whose, tuple(_placed(event, at, label, clock) for at, event, label in group))
        for whose, group in groupby(lines, key=lambda line: _whose(line[1]))
    )
    return Picture(
        title=path.read_text().partition("\n")[0].removeprefix("# "),
        description=" ".join(f"{at} ms: {_whose(event)} {label}.".replace("..", ".") for at, event, label in lines),
        sections=(
            Section("the detectors report", tuple(_lanes(steps, clock))),
            Section("the relay sends", tuple(_one_per_row(told))),
        ),
    )


def _one_per_row(lanes: Sequence[Lane]) -> Iterator[Lane]:
    for lane in lanes:
        for number, mark in enumerate(lane.marks):
            yield Lane("" if number else lane.name, (mark,))


def _clock(steps: Sequence[Step]) -> AudioClock:
    """Media to milliseconds since the first frame."""
    clock = AudioClock()
    clock.anchor(0, 0)
    for step in steps:
        if isinstance(step.observation, Anchored):
            clock.anchor(step.observation.media_ms, step.observation.wall_ms - T0)
    return clock


def _lanes(steps: Sequence[Step], clock: AudioClock) -> Iterator[Lane]:
    reports = [(step.at, step.observation) for step in steps if step.observation is not None]
    lanes = {
        "audio": _audio(reports),
        "microphone": _between(reports, Muted, Unmuted, "muted"),
        "VAD": _spoken(reports, VadStarted, VadEnded, clock),
        "realtime": [*_spoken(reports, RealtimeStarted, RealtimeEnded, clock), *_texts(reports, "realtime", clock)],
        "STT": [*_spoken(reports, SttStarted, SttEnded, clock), *_texts(reports, "stt", clock)],
        "session": _session(reports),
    }
    return (Lane(name, tuple(marks)) for name, marks in lanes.items() if marks)


Reports = Sequence[tuple[int, Observation]]


def _audio(reports: Reports) -> list[Mark]:
    """Stretches of audio, where there is a gap between any."""
    marks, began, media = [], 0, 0
    for _, report in reports:
        if isinstance(report, Anchored):
            stopped, restarted = began + report.media_ms - media, report.wall_ms - T0
            if restarted > stopped:
                marks.append(Mark(f"{report.media_ms} ms heard", began, stopped))
                began, media = restarted, report.media_ms
    return [*marks, Mark("", began, reports[-1][0])] if marks else []


def _between(reports: Reports, first: type[Observation], last: type[Observation], label: str) -> list[Mark]:
    marks, since = list[Mark](), None
    for at, report in reports:
        if isinstance(report, first):
            since = at
        elif isinstance(report, last) and since is not None:
            marks.append(Mark(label, since, at))
            since = None
    return marks


def _spoken(
    reports: Reports,
    first: type[VadStarted | RealtimeStarted | SttStarted],
    last: type[VadEnded | RealtimeEnded | SttEnded],
    clock: AudioClock,
) -> list[Mark]:
    """One mark from each start to its end."""
    marks, open_since = list[Mark](), None
    for at, report in reports:
        if isinstance(report, first):
            open_since = at, clock.wall(report.onset_ms if isinstance(report, VadStarted) else report.at_ms)
        elif isinstance(report, last) and open_since is not None:
            ended = clock.wall(report.end_ms if isinstance(report, VadEnded) else report.at_ms)
            reason = "silence" if isinstance(report, SttEnded) else report.reason
            label = "" if reason == "silence" else reason
            marks.append(Mark(label, open_since[1], ended, (open_since[0], at)))
            open_since = None
    return [*marks, Mark("", open_since[1], None, (open_since[0],))] if open_since is not None else marks


def _texts(reports: Reports, detector: str, clock: AudioClock) -> list[Mark]:
    marks = []
    for at, report in reports:
        if isinstance(report, SttTranscript) and report.detector == detector:
            starts = [word.start_ms for word in report.words] or [report.start_ms]
            ends = [word.end_ms for word in report.words] or [report.end_ms]
            label = _quoted(report.text, report.final) + ("" if report.reliable else ", times not reliable")
            marks.append(Mark(label, clock.wall(starts[0]), clock.wall(ends[-1]), (at,)))
    return marks


def _session(reports: Reports) -> list[Mark]:
    """What the session says and the provider has not: it repeats the provider's texts."""
    marks, provided = list[Mark](), list[str]()
    for at, report in reports:
        match report:
            case SttTranscript(text):
                provided.append(text)
            case Transcribed(text) if text in provided:
                provided.remove(text)
            case Transcribed(text, final) if text.strip():
                marks.append(Mark(_quoted(text.strip(), final), told=(at,)))
            case StateChanged(new=state):
                marks.append(Mark(state, told=(at,)))
            case TurnEnded():
                marks.append(Mark("end of turn", told=(at,)))
            case _:
                pass
    return marks


def _placed(event: StreamEvent, at: int, label: str, clock: AudioClock) -> Mark:
    timing, utterance = event.timing, event.utterance
    began, ended = clock.wall(timing.media_start_ms), clock.wall(timing.media_end_ms)
    if began is None and ended is None and timing.occurred_at is not None:
        began = epoch_ms(timing.occurred_at) - T0
    return Mark(label, began, ended, (at,), 0 if utterance is None else utterance.index % _COLOURS + 1)


def _whose(event: StreamEvent) -> str:
    return "stream" if event.utterance is None else f"utterance {event.utterance.index + 1}"


def _said(event: StreamEvent) -> str:
    data = event.model_dump()["data"]
    match event.type:
        case "transcript.interim" | "transcript.final":
            return f"{event.type} “{data['text']}”" + ("" if event.timing.reliable else ", reliable: false")
        case "speech.ended":
            long = "" if data["duration_ms"] is None else f", {data['duration_ms']} ms"
            merged = f", flaps {data['flaps']}" if data["flaps"] else ""
            return f"{event.type} {data['reason']}{long}{merged}"
        case "utterance.completed":
            return f"{event.type} {data['outcome']}" + (f" “{data['text']}”" if data["text"] else "")
        case "user.state_changed":
            return f"{event.type} {data['new_state']}"
        case _:
            return event.type


def _quoted(text: str, final: bool) -> str:
    return f"“{text}”" if final else f"“{text} …”"
