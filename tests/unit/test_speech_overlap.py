"""Who speaks at once: what a receiver is told, and when."""

from collections.abc import Sequence

from relay.events.envelope import RoomEvent
from relay.events.speech import OverlapEnded, OverlapStarted
from relay.speech.recovery import closing_room_events
from tests.support.audio.overlaps import T0, Speech, heard_out, told, tracker


def said(*speech: Speech, min_ms: int = 300, measured: bool = True, close: bool = True) -> list[str]:
    """Each event as ``told-at: type @occurred what``, in milliseconds."""
    heard = heard_out(speech, min_ms=min_ms, measured=measured, close=close)
    return [line for at, event in heard for line in rendered([event], at)]


def rendered(events: Sequence[RoomEvent], now: int) -> list[str]:
    lines = []
    for event in events:
        at = event.timing.occurred_at
        when = "" if at is None else f" @{round(at.timestamp() * 1000) - T0}"
        assert isinstance(event, OverlapStarted | OverlapEnded)
        who = "+".join(speaker.identity for speaker in event.data.speakers)
        line = f"{now - T0}: {event.type.removeprefix('overlap.')}{when} {who}"
        if isinstance(event, OverlapEnded):
            line += f" {event.data.duration_ms}ms peak={event.data.peak} {event.data.reason}"
        lines.append(line)
    return lines


ALICE = Speech("alice", "utt_a", 0, 5000, start_told=200, end_told=5600)


def test_bob_falls_in_and_is_heard_out() -> None:
    assert said(ALICE, Speech("bob", "utt_b", 2000, 3500, 2200, 4100)) == [
        "3150: started @2000 alice+bob",
        "4350: ended @3500 alice+bob 1500ms peak=2 silence",
    ]


def test_crosstalk_that_is_too_short_is_none() -> None:
    assert said(ALICE, Speech("bob", "utt_b", 2000, 2290, 2200, 2890)) == []
    assert len(said(ALICE, Speech("bob", "utt_b", 2000, 2300, 2200, 2900))) == 2


def test_an_end_that_is_told_after_the_next_has_begun_is_no_overlap() -> None:
    """Alice stops at 5000, which her detector is sure of at 5600; Bob begins at 5010."""
    assert said(ALICE, Speech("bob", "utt_b", 5010, 9000, 5200, 9600), min_ms=0) == []


def test_a_third_and_a_fourth_take_part_and_it_lasts_until_one_is_left() -> None:
    assert said(
        ALICE,
        Speech("bob", "utt_b", 1000, 3000),
        Speech("carol", "utt_c", 2000, 4000),
        Speech("dave", "utt_d", 2500, 2600),
    ) == ["2150: started @1000 alice+bob", "4850: ended @4000 alice+bob+carol+dave 3000ms peak=4 silence"]


def test_a_relay_of_voices_is_one_overlap_as_long_as_two_speak() -> None:
    assert said(
        Speech("alice", "utt_1", 0, 2000), Speech("bob", "utt_2", 1000, 4000), Speech("alice", "utt_3", 2000, 3000)
    ) == ["2150: started @1000 alice+bob", "3850: ended @3000 alice+bob+alice 2000ms peak=2 silence"]


def test_one_person_on_two_tracks_does_not_overlap() -> None:
    assert said(ALICE, Speech("alice", "utt_screen", 1000, 4000)) == []


def test_two_overlaps_of_one_utterance() -> None:
    assert [
        line.split(" ")[1]
        for line in said(ALICE, Speech("bob", "utt_1", 1000, 2000), Speech("bob", "utt_2", 3000, 4000))
    ] == ["started", "ended", "started", "ended"]


def test_what_cuts_the_speech_off_ends_the_overlap_with_its_reason() -> None:
    assert said(ALICE, Speech("bob", "utt_b", 1000, 3000, reason="muted"))[-1].endswith("muted")


def test_where_nobody_measured_when_there_is_no_time_and_no_duration() -> None:
    assert said(ALICE, Speech("bob", "utt_b", 1000, 3000), measured=False) == [
        "2150: started alice+bob",
        "3850: ended alice+bob Nonems peak=2 silence",
    ]


def test_listening_that_ends_ends_the_overlap() -> None:
    goes_on = Speech("alice", "utt_a", 0), Speech("bob", "utt_b", 1000)
    assert said(*goes_on) == [
        "2150: started @1000 alice+bob",
        "60000: ended alice+bob Nonems peak=2 shutdown",
    ]


def test_an_overlap_that_is_over_before_it_was_said_is_said_whole_at_the_close() -> None:
    machine = tracker()
    log = [event for at, one in told((ALICE, Speech("bob", "utt_b", 4000, 4900))) for event in machine.observe(one, at)]
    assert rendered(log, T0) == ["0: started @4000 alice+bob"], "told with Alice's end, at 5600"
    assert rendered(machine.close(T0 + 5600), T0 + 5600) == ["5600: ended @4900 alice+bob 900ms peak=2 silence"]


def test_an_end_that_comes_too_late_never_makes_it_shorter_than_nothing() -> None:
    assert said(
        Speech("alice", "utt_a", 0, 900, end_told=4000),
        Speech("bob", "utt_b", 1000, 6000),
    ) == ["2150: started @1000 alice+bob", "4000: ended @900 alice+bob 0ms peak=2 silence"]


def test_a_start_that_comes_too_late_does_not_begin_before_the_other() -> None:
    assert said(
        Speech("alice", "utt_a", 1000, 6000),
        Speech("bob", "utt_b", 0, 5000, start_told=4000),
    ) == ["4000: started @1000 bob+alice", "5850: ended @5000 bob+alice 4000ms peak=2 silence"]


def test_a_dead_writers_overlap_is_ended_with_what_is_known() -> None:
    machine = tracker()
    log: list[RoomEvent] = []
    for at, event in told((Speech("alice", "utt_a", 0), Speech("bob", "utt_b", 1000), Speech("carol", "utt_c", 3000))):
        log += machine.observe(event, at)
    (started,) = log
    closing = closing_room_events([started], T0 + 9000, last_sequence=1)
    assert rendered(closing, T0 + 9000) == ["9000: ended alice+bob Nonems peak=2 worker_lost"]
    assert closing[0].stream.sequence == 2
    assert closing[0].room == started.room
    assert closing_room_events([], T0, last_sequence=0) == []
