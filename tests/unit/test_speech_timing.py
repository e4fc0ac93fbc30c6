import pytest

from relay.speech.timing import KEPT_ANCHORS, AudioClock, Waiting


def test_a_media_time_is_mapped_by_the_newest_anchor_at_or_before_it() -> None:
    clock = AudioClock()
    clock.anchor(1000, 51_000)
    clock.anchor(2000, 57_000)
    assert [clock.wall(ms) for ms in (999, 1000, 1999, 2000, 2500)] == [50_999, 51_000, 51_999, 57_000, 57_500]


def test_anchors_may_come_in_any_order_and_the_last_word_counts() -> None:
    clock = AudioClock()
    clock.anchor(2000, 57_000)
    clock.anchor(1000, 51_000)
    clock.anchor(2000, 58_000)
    assert (clock.wall(1500), clock.wall(2000)) == (51_500, 58_000)


def test_without_a_time_or_an_anchor_there_is_no_wall_time() -> None:
    clock = AudioClock()
    assert clock.wall(1000) is None
    clock.anchor(0, 50_000)
    assert clock.wall(None) is None


def test_hours_of_anchors_are_bounded() -> None:
    clock = AudioClock()
    for second in range(3 * KEPT_ANCHORS):
        clock.anchor(second * 1000, second * 1001)
    assert len(clock._media) <= KEPT_ANCHORS
    last = 3 * KEPT_ANCHORS - 1
    assert clock.wall(last * 1000 + 5) == last * 1001 + 5


@pytest.mark.parametrize("set_by", [-7_000, 3_600_000])
def test_waiting_time_goes_on_while_the_wall_clock_is_set(set_by: int) -> None:
    waiting = Waiting()
    due = waiting.advance(10_000, 0) + 500
    assert waiting.wall(due) == 10_500
    assert waiting.advance(10_200 + set_by, 200) == due - 300
    assert waiting.wall(due) == 10_500 + set_by
    assert waiting.advance(10_500 + set_by, 500) == due
