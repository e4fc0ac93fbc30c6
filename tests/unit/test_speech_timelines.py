"""Golden timelines: each file in timelines/ is what a stream observed and, indented, what the tracker says about it;
each in timelines/overlap/ who spoke when in a room, and what is said about that."""

from pathlib import Path

import pytest

from tests.unit.timelines import play, rooms

HERE = Path(__file__).parent / "timelines"
TIMELINES = sorted(HERE.glob("*.txt"))
ROOMS = sorted(HERE.glob("overlap/*.txt"))


@pytest.mark.parametrize("path", TIMELINES, ids=lambda path: path.stem)
def test_says_what_the_timeline_says(path: Path) -> None:
    assert play.replayed(path) == path.read_text()


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: path.stem)
def test_says_who_spoke_at_once(path: Path) -> None:
    assert rooms.replayed(path) == path.read_text()


def test_the_timelines_are_there() -> None:
    assert TIMELINES
    assert ROOMS
