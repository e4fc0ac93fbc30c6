"""Golden timelines: each file in timelines/ is what a stream observed and, indented, what the tracker says about it."""

from pathlib import Path

import pytest

from tests.unit.timelines.play import replayed

TIMELINES = sorted((Path(__file__).parent / "timelines").glob("*.txt"))


@pytest.mark.parametrize("path", TIMELINES, ids=lambda path: path.stem)
def test_says_what_the_timeline_says(path: Path) -> None:
    assert replayed(path) == path.read_text()


def test_the_timelines_are_there() -> None:
    assert TIMELINES
