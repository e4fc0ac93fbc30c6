"""For any speech, and any delay of its reports: overlaps come in pairs and match the speech."""

from dataclasses import dataclass
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events.catalog import parse
from relay.events.envelope import RoomEvent, RoomRef
from relay.events.speech import OverlapEnded, OverlapStarted
from relay.ids import event_id
from relay.speech.overlap import OverlapSettings, OverlapTracker
from relay.speech.recovery import closing_room_events
from tests.support.audio.overlaps import T0, Speech, told, tracker

LAG_MS = 850

who = st.sampled_from(["alice", "bob", "carol", "dave"])
moment = st.integers(0, 40).map(lambda tick: tick * 100)
lag = st.integers(0, LAG_MS - 1)


@dataclass(frozen=True)
class Run:
    min_ms: int
    speech: tuple[Speech, ...]


@st.composite
def runs(draw: st.DrawFn, late: st.SearchStrategy[int] = lag) -> Run:
    speech = []
    for number in range(draw(st.integers(0, 9))):
        start = draw(moment)
        end = start + draw(st.sampled_from([0, 100, 200, 300, 500, 1200, 3000]))
        speech.append(
            Speech(draw(who), f"utt_{number}", start, end, start_told=start + draw(late), end_told=end + draw(late))
        )
    return Run(draw(st.sampled_from([0, 100, 300, 1000])), tuple(speech))


def played(run: Run, *, unmeasured: bool = False) -> list[RoomEvent]:
    machine = tracker(run.min_ms, LAG_MS)
    log: list[RoomEvent] = []
    for at, event in told(run.speech, measured=not unmeasured):
        while machine.deadline is not None and machine.deadline <= at:
            due = machine.deadline
            log += machine.tick(due)
            assert machine.deadline is None or machine.deadline > due
        log += machine.observe(event, at)
    log += machine.close(T0 + 100_000)
    assert machine.deadline is None
    check(log)
    return log


def check(log: list[RoomEvent]) -> None:
    """What holds of any run: whole pairs, in order, of two speakers or more."""
    stream = "str_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B"
    assert [event.stream.sequence for event in log] == list(range(1, len(log) + 1))
    assert [event.id for event in log] == [event_id(stream, n) for n in range(1, len(log) + 1)]
    emitted = [event.timing.emitted_at for event in log]
    assert emitted == sorted(emitted)
    assert len(log) % 2 == 0
    for started, ended in zip(log[::2], log[1::2], strict=True):
        assert isinstance(started, OverlapStarted)
        assert isinstance(ended, OverlapEnded)
        assert started.data.overlap_id == ended.data.overlap_id
        assert len({speaker.identity for speaker in started.data.speakers}) >= 2
        assert ended.data.speakers[: len(started.data.speakers)] == started.data.speakers
        assert len({speaker.utterance_id for speaker in ended.data.speakers}) == len(ended.data.speakers)
        assert 2 <= ended.data.peak <= len({speaker.identity for speaker in ended.data.speakers})
    assert len({event.data.overlap_id for event in log if isinstance(event, OverlapEnded)}) == len(log) // 2
    for event in log:
        assert parse(event.model_dump_json()) == event


def overlaps(log: list[RoomEvent]) -> list[tuple[int, int, int, frozenset[str]]]:
    """Start, end, peak, and utterances of those who took part, of each."""
    found = []
    for started, ended in zip(log[::2], log[1::2], strict=True):
        assert isinstance(ended, OverlapEnded)
        assert started.timing.occurred_at is not None
        assert ended.timing.occurred_at is not None
        start, end = (round(e.timing.occurred_at.timestamp() * 1000) - T0 for e in (started, ended))  # type: ignore[union-attr]
        assert ended.data.duration_ms == end - start
        found.append((start, end, ended.data.peak, frozenset(s.utterance_id for s in ended.data.speakers)))
    return found


def ends(speech: Speech) -> int:
    assert speech.end is not None
    return speech.end


def expected(run: Run) -> list[tuple[int, int, int, frozenset[str]]]:
    """The same, by looking at every moment: who speaks at it, the first and the last one of their speech included."""
    found: list[list[int]] = []
    for at in range(0, 8001, 50):
        speaking = len({one.who for one in run.speech if one.start <= at <= ends(one)})
        if speaking < 2:
            continue
        if found and found[-1][1] == at - 50:
            found[-1][1:] = [at, max(found[-1][2], speaking)]
        else:
            found.append([at, at, speaking])
    return [
        (start, end, peak, frozenset(s.utterance for s in run.speech if s.start <= end and ends(s) >= start))
        for start, end, peak in found
        if end - start >= max(run.min_ms, 1)
    ]


@settings(max_examples=400, deadline=None)
@given(runs())
def test_what_is_told_in_time_gives_exactly_the_overlaps_that_there_were(run: Run) -> None:
    assert overlaps(played(run)) == expected(run)


@settings(max_examples=200, deadline=None)
@given(runs(late=st.integers(0, 10_000)), st.booleans())
def test_what_is_told_late_or_was_never_measured_still_comes_in_whole_pairs(run: Run, unmeasured: bool) -> None:
    for event in played(run, unmeasured=unmeasured):
        if unmeasured:
            assert event.timing.occurred_at is None
        if isinstance(event, OverlapEnded) and event.data.duration_ms is not None:
            assert event.data.duration_ms >= 0


@settings(max_examples=150, deadline=None)
@given(runs(), st.lists(st.integers(-3_600_000, 3_600_000), max_size=20))
def test_a_clock_that_is_set_breaks_no_pair(run: Run, jumps: list[int]) -> None:
    machine, offset, log = tracker(run.min_ms, LAG_MS), 0, []
    for (at, event), jump in zip(told(run.speech), [*jumps, *[0] * 100], strict=False):
        offset += jump
        log += machine.observe(event, at + offset, at)
    check(log + machine.close(T0))


@settings(max_examples=200, deadline=None)
@given(runs(), st.integers(0, 20))
def test_a_writer_that_dies_leaves_an_overlap_that_can_be_ended(run: Run, length: int) -> None:
    log = played(run)[:length]
    closing = closing_room_events(log, T0 + 100_000, last_sequence=len(log))
    check(log + closing)
    assert len(closing) == len(log) % 2
    assert closing_room_events(log + closing, T0, last_sequence=len(log) + len(closing)) == []


def test_the_tracker_holds_nothing_of_speech_that_is_over() -> None:
    machine = tracker(300, LAG_MS)
    speech = [Speech("alice", f"utt_{n}", n * 1000, n * 1000 + 500) for n in range(50)]
    for at, event in told(speech):
        machine.observe(event, at)
    machine.tick(T0 + 100_000)
    assert [len(held) for held in (machine._boundaries, machine._began, machine._speaking)] == [0, 0, 0]
    assert (
        OverlapTracker(RoomRef(sid="RM", name="r"), "str_x", OverlapSettings(), lambda: str(count())).deadline is None
    )
