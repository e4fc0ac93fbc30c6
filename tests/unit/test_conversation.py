"""The script of a conversation says what has to be heard of it, and nothing that was heard otherwise gets by."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.audio.conversation import (
    Does,
    Overlap,
    Phrase,
    Says,
    Script,
    Track,
    Utterance,
    misheard,
    overlaps,
    reconcile,
    reconcile_overlaps,
    reconcile_tracks,
    tracks,
    unclear,
    utterances,
)
from tests.support.livekit.twelve import TWELVE

LONG = Phrase("beckett", 500, 4500, "ever")


def script(*lines: Says | Does) -> Script:
    return Script(("ann", "bob"), lines, end_s=20.0)


def said(who: str, start_ms: int, end_ms: int | None, reason: str = "silence", *, track: int = 0) -> Utterance:
    return Utterance(who, track, start_ms, end_ms, reason, "ever" if reason == "silence" else "")  # type: ignore[arg-type]  # as short as a table


def test_nothing_in_the_two_minutes_hangs_on_the_tolerance() -> None:
    assert unclear(TWELVE, 600) == []
    assert len(TWELVE.cast) == 12
    assert {each.peak for each in overlaps(utterances(TWELVE))} == {2, 3, 4}
    reasons = {each.reason for each in utterances(TWELVE)}
    assert reasons == {"silence", "muted", "disconnected", "unpublished", "room_ended"}


@pytest.mark.parametrize(
    ("lines", "heard"),
    [
        ((Says(1, "ann", LONG),), [said("ann", 1_000, 5_000)]),
        ((Says(18, "ann", LONG),), [said("ann", 18_000, 20_000, "room_ended")]),
        ((Says(1, "ann", LONG), Does(3, "ann", "mutes")), [said("ann", 1_000, 3_000, "muted")]),
        ((Does(0.5, "ann", "mutes"), Says(1, "ann", LONG), Does(6, "ann", "unmutes")), []),
        ((Says(1, "ann", LONG), Does(2, "bob", "mutes")), [said("ann", 1_000, 5_000)]),
        ((Says(1, "ann", LONG), Does(3, "ann", "leaves")), [said("ann", 1_000, 3_000, "disconnected")]),
        ((Does(0.5, "ann", "leaves"), Says(1, "ann", LONG), Does(2, "ann", "returns")), []),
        (
            (Says(1, "ann", LONG), Does(3, "ann", "changes track"), Says(8, "ann", LONG)),
            [said("ann", 1_000, 3_000, "unpublished"), said("ann", 8_000, 12_000, track=1)],
        ),
    ],
)
def test_what_has_to_be_heard(lines: tuple[Says | Does, ...], heard: list[Utterance]) -> None:
    assert utterances(script(*lines)) == heard


def test_what_is_published() -> None:
    there = Does(2, "ann", "leaves"), Does(3, "ann", "returns"), Does(5, "ann", "changes track")
    assert tracks(script(*there)) == [
        Track("ann", 0, 0, 2_000, "disconnected"),
        Track("ann", 1, 3_000, 5_000, "unpublished"),
        Track("ann", 2, 5_000, 20_000, "room_ended"),
        Track("bob", 0, 0, 20_000, "room_ended"),
    ]


def test_what_was_late_is_expected_late() -> None:
    (late,) = utterances(script(Says(1, "ann", LONG)), {("ann", 1_000): 70})
    assert (late.start_ms, late.end_ms) == (1_070, 5_070)


@pytest.mark.parametrize(
    ("speech", "found"),
    [
        ((said("ann", 0, 2_000), said("bob", 2_000, 3_000)), []),
        ((said("ann", 0, 2_000), said("bob", 1_800, 3_000)), []),
        (
            (said("ann", 0, 2_000), said("bob", 1_000, 3_000)),
            [Overlap(frozenset({"ann", "bob"}), 1_000, 2_000, 2)],
        ),
        (
            (said("ann", 0, 5_000), said("bob", 1_000, 3_000), said("cat", 2_000, 4_000)),
            [Overlap(frozenset({"ann", "bob", "cat"}), 1_000, 4_000, 3)],
        ),
    ],
)
def test_who_speaks_at_once(speech: tuple[Utterance, ...], found: list[Overlap]) -> None:
    assert overlaps(speech) == found


SCRIPTED = [said("ann", 1_000, 2_000), said("bob", 3_000, 4_000), said("ann", 5_000, 6_000, "muted")]


def changed(index: int, **fields: object) -> list[Utterance]:
    told = list(SCRIPTED)
    told[index] = replace(told[index], **fields)  # type: ignore[arg-type]  # as short as a table
    return told


def test_what_was_heard_as_it_was_said_has_no_faults() -> None:
    assert reconcile(SCRIPTED, list(reversed(SCRIPTED)), 200) == []
    assert reconcile(SCRIPTED, changed(0, start_ms=1_200, end_ms=1_800), 200) == []
    assert reconcile(SCRIPTED, changed(2, end_ms=None), 200) == [], "the end of what was cut off is not measured"


@pytest.mark.parametrize(
    ("told", "faults"),
    [
        (SCRIPTED[1:], ["not heard: ann"]),
        ([*SCRIPTED, SCRIPTED[0]], ["never said: ann"]),
        (changed(0, start_ms=1_201), ["not heard: ann", "never said: ann"]),
        (changed(0, end_ms=2_201), ["its end is off: ann"]),
        (changed(0, end_ms=None), ["its end was not measured: ann"]),
        (changed(0, who="bob"), ["not heard: ann", "never said: bob"]),
        (changed(0, track=1), ["not heard: ann", "never said: ann"]),
        (changed(1, reason="muted"), ["ended otherwise: bob"]),
        (changed(1, text="nothing"), []),
    ],
)
def test_what_was_heard_otherwise_is_a_fault(told: list[Utterance], faults: list[str]) -> None:
    assert [str(fault).split(" (")[0] for fault in reconcile(SCRIPTED, told, 200)] == faults


def test_a_fault_is_the_same_in_another_performance() -> None:
    (late,) = reconcile(SCRIPTED, changed(0, end_ms=2_201), 200)
    (later,) = reconcile(SCRIPTED, changed(0, start_ms=1_100, end_ms=2_900), 200)
    (other,) = reconcile([*SCRIPTED, said("ann", 7_000, 8_000)], [*SCRIPTED, said("ann", 7_000, 8_300)], 200)
    assert late == later
    assert late != other, "of the same person, in another utterance"


def test_words_are_held_against_who_said_them() -> None:
    assert misheard(SCRIPTED, changed(1, text="Never mind."), 200) == []
    (fault,) = misheard(SCRIPTED, changed(1, text="nothing"), 200)
    assert str(fault).startswith("misheard: bob")
    assert misheard(SCRIPTED, SCRIPTED[1:], 200) == [], "what was not told at all is another fault"


def test_the_words_of_who_speaks_at_once_are_a_fault() -> None:
    ann, bob = replace(said("ann", 1_000, 3_000), text="spring"), replace(said("bob", 2_000, 4_000), text="winter")
    swapped = [replace(ann, text="Winter."), replace(bob, text="Spring.")]
    assert [fault.what for fault in reconcile([ann, bob], swapped, 200)] == ["another's words"] * 2
    later = replace(bob, start_ms=3_500)
    assert reconcile([ann, later], [replace(ann, text="Winter."), later], 200) == []


BOTH = Overlap(frozenset({"ann", "bob"}), 1_000, 2_000, 2)


@pytest.mark.parametrize(
    ("told", "faults"),
    [
        ([replace(BOTH, start_ms=1_200, end_ms=1_800)], []),
        ([], ["not told"]),
        ([BOTH, BOTH], ["did not overlap"]),
        ([replace(BOTH, end_ms=2_201)], ["told otherwise"]),
        ([replace(BOTH, end_ms=None)], ["told otherwise"]),
        ([replace(BOTH, peak=3)], ["told otherwise"]),
        ([replace(BOTH, who=frozenset({"ann", "cat"}))], ["told otherwise"]),
    ],
)
def test_overlaps_told_otherwise_are_faults(told: list[Overlap], faults: list[str]) -> None:
    assert [fault.what for fault in reconcile_overlaps([BOTH], told, 200)] == faults


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (lambda told: told, 0),
        (lambda told: told[1:], 1),
        (lambda told: [*told, told[0]], 2),
        (lambda told: [("ann", 0, "shutdown"), *told[1:]], 2),
        (lambda told: [("ann", 0, None), *told[1:]], 2),
        (lambda told: [("ann", 1, "room_ended"), *told[1:]], 2),
    ],
)
def test_a_track_has_one_stream_with_its_own_end(change: Callable[[list[object]], list[object]], faults: int) -> None:
    there = tracks(script())
    told = change([(each.who, each.number, each.end) for each in there])
    assert len(reconcile_tracks(there, told)) == faults  # type: ignore[arg-type]  # as short as a table
