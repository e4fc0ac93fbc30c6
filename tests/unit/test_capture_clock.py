"""Ties between the audio clock and the wall clock."""

import pytest

from relay.capture.audio.clock_anchors import Anchors
from relay.speech.observations import Anchored


def arrivals(*frames: tuple[int, int]) -> list[Anchored]:
    anchors = Anchors()
    return [tie for media, wall in frames if (tie := anchors.arrived(media, wall)) is not None]


def test_the_first_frame_is_tied() -> None:
    assert arrivals((0, 1_000_000)) == [Anchored(0, 1_000_000)]


def test_a_steady_stream_needs_no_other_tie() -> None:
    assert len(arrivals(*((n * 20, 5_000 + n * 20) for n in range(10_000)))) == 1


@pytest.mark.parametrize("late", [1, 50, 60])
def test_jitter_says_nothing(late: int) -> None:
    assert len(arrivals((0, 0), (20, 20 + late), (40, 40))) == 1


def test_a_pause_in_the_audio_is_a_gap() -> None:
    assert arrivals((0, 0), (20, 20), (40, 60_040), (60, 60_060)) == [Anchored(0, 0), Anchored(40, 60_040)]


def test_a_pause_that_could_be_jitter_is_a_gap_once_nothing_makes_up_for_it() -> None:
    after = [(media, media + 40) for media in range(1000, 3000, 20)]
    ties = arrivals(*((media, media) for media in range(0, 1000, 20)), *after)

    assert ties == [Anchored(0, 0), Anchored(1000, 1040)]


def test_a_tie_on_a_late_frame_is_corrected_from_its_own_place_on() -> None:
    assert arrivals((0, 100), (20, 20), (40, 40)) == [Anchored(0, 100), Anchored(0, 0)]


def test_the_burst_after_a_stall_leads_back_to_where_it_was() -> None:
    ties = arrivals((0, 0), *((20 * n, 320) for n in range(1, 17)), (340, 340))

    assert ties[:2] == [Anchored(0, 0), Anchored(20, 320)]
    assert ties[-1].media_ms == 20, "what was held up was heard in its time, too"
    assert abs(ties[-1].wall_ms - 20) <= 5


def test_a_clock_that_is_fast_moves_what_comes_and_not_what_was() -> None:
    frames = [(media, round(media * 0.999)) for media in range(0, 20_000, 20)]
    ties = arrivals(*frames)

    assert [tie.media_ms for tie in ties] == sorted({tie.media_ms for tie in ties})
    assert all(abs(tie.wall_ms - tie.media_ms * 0.999) <= 1 for tie in ties)
    assert len(ties) == 4
