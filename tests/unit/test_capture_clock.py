"""Ties between the audio clock and the wall clock."""

import pytest

from relay.capture.anchors import Anchors
from relay.speech.observations import Anchored


def arrivals(*frames: tuple[int, int]) -> list[Anchored]:
    anchors = Anchors()
    return [tie for media, wall in frames if (tie := anchors.arrived(media, wall)) is not None]


def test_the_first_frame_is_tied() -> None:
    assert arrivals((0, 1_000_000)) == [Anchored(0, 1_000_000)]


def test_a_steady_stream_needs_no_other_tie() -> None:
    assert len(arrivals(*((n * 20, 5_000 + n * 20) for n in range(10_000)))) == 1


@pytest.mark.parametrize("late", [1, 50, 150])
def test_jitter_says_nothing(late: int) -> None:
    assert len(arrivals((0, 0), (20, 20 + late), (40, 40))) == 1


def test_a_pause_in_the_audio_is_a_gap() -> None:
    assert arrivals((0, 0), (20, 20), (40, 60_040), (60, 60_060)) == [Anchored(0, 0), Anchored(40, 60_040)]


def test_a_tie_on_a_late_frame_is_corrected_by_those_in_time() -> None:
    assert arrivals((0, 100), (20, 20), (40, 40)) == [Anchored(0, 100), Anchored(20, 20)]


def test_the_burst_after_a_stall_leads_back_to_where_it_was() -> None:
    ties = arrivals((0, 0), *((20 * n, 320) for n in range(1, 17)), (340, 340))

    assert ties[0] == Anchored(0, 0)
    assert abs(ties[-1].wall_ms - ties[-1].media_ms) <= 5
