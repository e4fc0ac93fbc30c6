"""Wall times of what was said: right whatever lies between the microphone and the relay.

A frame has its place in the audio and a true wall time. It arrives late by what the network and the machine make of
it, never early, and now and then in time. Nothing else is known to the anchors.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.capture.audio.clock_anchors import DRIFT_MS, EARLY_MS, LATE_MS, STRETCH_MS, Anchors
from relay.speech.observations import Anchored
from relay.speech.timing import AudioClock

T0 = 1_700_000_000_000
FRAME_MS = 20
NEAR_MS = DRIFT_MS + EARLY_MS + 2
"""As near as the anchors come: what they take for nothing, and rounding."""

bounded = settings(deadline=None, max_examples=50)
"""Minutes of frames each, on a machine that may be busy."""

jitter = st.builds(lambda seed, most: _jitter(seed, most), st.integers(0, 2**32), st.integers(0, LATE_MS - NEAR_MS))


def _jitter(seed: int, most: int) -> Callable[[], int]:
    """Lateness of up to ``most`` ms; in every ten frames there is one in time."""
    dice, lateness = random.Random(seed), list[int]()

    def late() -> int:
        if not lateness:
            lateness.extend([0, *(dice.randint(0, most) for _ in range(9))])
            dice.shuffle(lateness)
        return lateness.pop()

    return late


@dataclass(frozen=True)
class Frame:
    media_ms: int
    true_wall_ms: float
    arrives_ms: float
    """When its last sample is there; its first one is then taken to be a frame's length older."""


class Clocks:
    """The relay's side."""

    def __init__(self) -> None:
        self._anchors, self._clock = Anchors(), AudioClock()
        self.ties: list[Anchored] = []

    def hear(self, frame: Frame) -> None:
        if (tie := self._anchors.arrived(frame.media_ms, round(frame.arrives_ms) - FRAME_MS)) is not None:
            self.ties.append(tie)
            self._clock.anchor(tie.media_ms, tie.wall_ms)

    def error(self, frame: Frame) -> float:
        wall = self._clock.wall(frame.media_ms)
        assert wall is not None
        return abs(wall - frame.true_wall_ms)


def said(
    seconds: float, late: Callable[[], int], *, pace: float = 1.0, media_ms: int = 0, wall: float = T0
) -> list[Frame]:
    """Audio from a microphone whose clock is off by ``pace``. Frames overtake each other nowhere."""
    frames: list[Frame] = []
    for n in range(round(seconds * 1000 / FRAME_MS)):
        true = wall + n * FRAME_MS * pace
        arrives = true + FRAME_MS * pace + late()
        if frames:
            arrives = max(arrives, frames[-1].arrives_ms)
        frames.append(Frame(media_ms + n * FRAME_MS, true, arrives))
    return frames


def after(frames: list[Frame], *, pause_ms: float = 0) -> tuple[int, float]:
    return frames[-1].media_ms + FRAME_MS, frames[-1].true_wall_ms + FRAME_MS + pause_ms


def settled(frames: Iterable[Frame], clocks: Clocks, since_ms: int) -> float:
    """Hear the frames; the largest error of those that start at ``since_ms`` or later, each asked half a second later,
    when speech that began there is reported."""
    waiting: list[Frame] = []
    worst = 0.0
    for frame in frames:
        clocks.hear(frame)
        waiting.append(frame)
        while waiting[0].media_ms <= frame.media_ms - 500:
            asked = waiting.pop(0)
            if asked.media_ms >= since_ms:
                worst = max(worst, clocks.error(asked))
    return worst


@bounded
@given(jitter)
def test_jitter_is_taken_out(late: Callable[[], int]) -> None:
    clocks = Clocks()

    assert settled(said(20, late), clocks, since_ms=0) <= NEAR_MS


@bounded
@given(jitter, st.sampled_from([0.995, 0.998, 0.999, 0.9999, 1.0001, 1.001, 1.002, 1.005]))
def test_a_clock_that_drifts_is_followed(late: Callable[[], int], pace: float) -> None:
    clocks, seconds = Clocks(), 240
    drift_in_a_stretch = abs(pace - 1) * STRETCH_MS

    worst = settled(said(seconds, late, pace=pace), clocks, since_ms=0)

    assert worst <= NEAR_MS + 3 * drift_in_a_stretch
    assert len(clocks.ties) <= 5 + seconds, "no more than the audio clock keeps for an hour"


@bounded
@given(jitter, st.integers(LATE_MS + NEAR_MS, 100_000))
def test_a_gap_moves_what_comes_after_it_and_nothing_before(late: Callable[[], int], pause_ms: int) -> None:
    before = said(3, late)
    media_ms, wall = after(before, pause_ms=pause_ms)
    behind = said(3, late, media_ms=media_ms, wall=wall)
    clocks = Clocks()

    assert settled([*before, *behind], clocks, since_ms=0) <= NEAR_MS
    assert max(clocks.error(frame) for frame in before) <= NEAR_MS


@bounded
@given(jitter, st.integers(0, LATE_MS))
def test_a_small_gap_is_followed_within_two_stretches(late: Callable[[], int], pause_ms: int) -> None:
    before = said(3, late)
    media_ms, wall = after(before, pause_ms=pause_ms)
    behind = said(6, late, media_ms=media_ms, wall=wall)
    clocks = Clocks()
    settled(before, clocks, since_ms=0)

    assert settled(behind, clocks, since_ms=media_ms + 2 * STRETCH_MS) <= NEAR_MS


@bounded
@given(jitter, st.integers(0, 60_000))
def test_a_microphone_that_is_muted_changes_nothing_whether_or_not_its_frames_go_on(
    late: Callable[[], int], muted_ms: int
) -> None:
    """LiveKit gives silence at full rate while a track is muted; a sender may as well stop."""
    goes_on, stops = Clocks(), Clocks()
    whole = said(3 + muted_ms / 1000 + 3, late)
    before = said(3, late)
    media_ms, wall = after(before, pause_ms=muted_ms)
    behind = said(3, late, media_ms=media_ms, wall=wall)

    assert settled(whole, goes_on, since_ms=0) <= NEAR_MS
    since = 0 if muted_ms > LATE_MS + NEAR_MS else media_ms + 2 * STRETCH_MS
    assert settled([*before, *behind], stops, since_ms=since) <= NEAR_MS


@bounded
@given(jitter, st.integers(0, 30_000))
def test_what_was_only_held_up_was_heard_in_its_time(late: Callable[[], int], stall_ms: int) -> None:
    """The process stood still; what came meanwhile is there all at once."""
    frames = said(3 + stall_ms / 1000 + 3, late)
    until = frames[150].true_wall_ms + stall_ms
    held = [
        Frame(frame.media_ms, frame.true_wall_ms, max(frame.arrives_ms, until)) if n >= 150 else frame
        for n, frame in enumerate(frames)
    ]
    clocks = Clocks()
    for frame in held:
        clocks.hear(frame)

    assert max(clocks.error(frame) for frame in held) <= NEAR_MS


@bounded
@given(jitter, st.integers(-100_000, 100_000))
def test_a_wall_clock_that_is_set_is_followed(late: Callable[[], int], by_ms: int) -> None:
    before = said(3, late)
    media_ms, wall = after(before, pause_ms=by_ms)
    behind = said(6, late, media_ms=media_ms, wall=wall)
    clocks = Clocks()
    settled(before, clocks, since_ms=0)
    for frame in behind:
        clocks.hear(frame)

    assert max(clocks.error(frame) for frame in behind if frame.media_ms >= media_ms + 2 * STRETCH_MS) <= NEAR_MS
