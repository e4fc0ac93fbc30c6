"""Plays a room: who speaks when at the left margin, what the overlap tracker says about it indented below.

# A title.
min_ms=300                                       whatever differs from the defaults

alice 0..5000                                    milliseconds; a start is told 200 ms late, an end 600 ms
bob 2000..3500
    2950 overlap.started @2000 alice+bob         when it is said, @when it was, who takes part
"""

from pathlib import Path

from relay.clock import epoch_ms
from relay.events.speech import OverlapEnded, OverlapStarted
from tests.support.audio.overlaps import T0, Speech, heard_out

__all__ = ["T0", "overlapped", "replayed", "spoken"]

_START_TOLD_MS, _END_TOLD_MS = 200, 600


def spoken(path: Path) -> list[Speech]:
    """Who speaks when."""
    found = list[Speech]()
    for line in path.read_text().splitlines()[2:]:
        if line and not line.startswith(" "):
            who, _, when = line.partition(" ")
            start, end = (int(ms) for ms in when.split(".."))
            found.append(
                Speech(
                    who, f"utt_{len(found)}", start, end, start_told=start + _START_TOLD_MS, end_told=end + _END_TOLD_MS
                )
            )
    return found


def overlapped(path: Path) -> list[tuple[int, OverlapStarted | OverlapEnded]]:
    """What is said about it, and when."""
    min_ms = int(path.read_text().splitlines()[1].removeprefix("min_ms="))
    return [(now - T0, event) for now, event in heard_out(spoken(path), min_ms=min_ms)]


def replayed(path: Path) -> str:
    """The room again, with what the tracker says now."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith(" ")]
    return "\n".join([*lines, *(f"    {_rendered(at, event)}" for at, event in overlapped(path))]) + "\n"


def _rendered(at: int, event: OverlapStarted | OverlapEnded) -> str:
    occurred = event.timing.occurred_at
    words = [str(at), event.type] + ([] if occurred is None else [f"@{epoch_ms(occurred) - T0}"])
    words.append("+".join(speaker.identity for speaker in event.data.speakers))
    if isinstance(event, OverlapEnded):
        words.append(f"duration_ms={event.data.duration_ms} peak={event.data.peak} reason={event.data.reason}")
    return " ".join(words)
