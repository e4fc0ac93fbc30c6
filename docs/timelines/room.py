"""What a picture of a room shows: who spoke when, and the overlaps that came of it."""

from pathlib import Path

from docs.timelines.drawing import Lane, Mark, Picture, Section
from relay.clock import epoch_ms
from relay.events.speech import OverlapEnded, OverlapStarted
from tests.unit.timelines.rooms import T0, overlapped, spoken


def room_picture(path: Path) -> Picture:
    """The room in this file."""
    speech, events = spoken(path), overlapped(path)
    names = dict.fromkeys(one.who for one in speech)
    speakers = tuple(
        Lane(name, tuple(Mark("", one.start, one.end) for one in speech if one.who == name)) for name in names
    )
    told, began = list[Mark](), dict[str, int]()
    for at, event in events:
        if event.timing.occurred_at is None:
            continue
        occurred = epoch_ms(event.timing.occurred_at) - T0
        match event:
            case OverlapStarted(data=data):
                began[data.overlap_id] = occurred
                told.append(Mark(_line(event), occurred, told=(at,), colour=1))
            case OverlapEnded(data=data):
                told.append(Mark(_line(event), began[data.overlap_id], occurred, (at,), colour=1))
    return Picture(
        title=path.read_text().partition("\n")[0].removeprefix("# "),
        description=" ".join(
            [f"{one.who} speaks from {one.start} to {one.end} ms." for one in speech]
            + [f"{at} ms: {_line(event)}." for at, event in events]
        ),
        sections=(
            Section("who speaks", speakers),
            Section(
                "the relay sends",
                tuple(Lane("" if number else "the room", (mark,)) for number, mark in enumerate(told)),
            ),
        ),
    )


def _line(event: OverlapStarted | OverlapEnded) -> str:
    who = ", ".join(dict.fromkeys(speaker.identity for speaker in event.data.speakers))
    if isinstance(event, OverlapStarted):
        return f"{event.type} {who}"
    return f"{event.type} {event.data.duration_ms} ms, {who}"
