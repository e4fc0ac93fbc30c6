"""After a switch, an observation is the new participant's only if it cannot be the former one's."""

import pytest

from relay.embedded.turnover import Turnover
from relay.speech.observations import (
    Observation,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)

AT, WALL = 10_000, 1_700_000_000_000


def after(*before: Observation) -> Turnover:
    """A session in which these were observed before it switched."""
    turnover = Turnover(250)
    assert not any(turnover.of_former(observation) for observation in before)
    turnover.switched(AT, WALL)
    return turnover


def said(text: str, start_ms: int | None = None, *, final: bool = True, reliable: bool = True) -> SttTranscript:
    return SttTranscript(text, final, start_ms=start_ms, reliable=reliable)


SPEAKING = VadStarted(9_000, 100)


def test_without_a_switch_everything_is_the_participants() -> None:
    turnover = Turnover(250)
    for observation in (VadStarted(-900, 100), said("a", -900), TurnEnded("a", started_speaking_at=0)):
        assert not turnover.of_former(observation)


def test_times_before_the_switch_are_the_formers_and_times_after_it_are_not() -> None:
    turnover = after(SPEAKING)
    assert turnover.of_former(said("theirs", 9_000))
    assert not turnover.of_former(said("mine", AT))
    assert turnover.of_former(said("theirs again", 9_100)), "also when it comes late"


@pytest.mark.parametrize(("before", "former"), [((SPEAKING,), True), ((), False)])
def test_a_time_in_which_the_switch_may_have_been_is_the_formers_while_theirs_is_due(
    before: tuple[Observation, ...], former: bool
) -> None:
    assert after(*before).of_former(said("a", AT - 100)) is former


@pytest.mark.parametrize("untimed", [said("theirs"), said("theirs", AT, reliable=False), Transcribed("theirs", True)])
def test_a_text_without_a_time_is_the_formers_until_theirs_is_final(
    untimed: SttTranscript | Transcribed,
) -> None:
    turnover = after(SPEAKING)
    assert turnover.of_former(untimed)
    assert turnover.of_former(Transcribed("more of theirs", True)), "they still speak"
    assert turnover.of_former(VadEnded(AT + 200))
    assert not turnover.of_former(Transcribed("mine", True))


def test_a_text_without_a_time_is_the_new_ones_if_nothing_was_due() -> None:
    turnover = after(SttStarted(9_000), said("theirs", 9_000), SttEnded(9_500))
    assert not turnover.of_former(Transcribed("mine", True))


def test_what_the_session_repeats_is_whose_the_providers_text_was() -> None:
    turnover = after(SPEAKING)
    assert not turnover.of_former(said("mine", AT))
    assert not turnover.of_former(Transcribed("mine", True))
    assert turnover.of_former(said("theirs", 9_000))
    assert turnover.of_former(Transcribed("theirs", True))


@pytest.mark.parametrize("began_ms", [None, WALL + 1_000])
def test_a_turn_with_words_of_both_is_the_formers_whatever_its_times(began_ms: int | None) -> None:
    turnover = after(said("earlier", 8_000), SPEAKING)
    assert turnover.of_former(said("theirs", 9_000))
    assert not turnover.of_former(said("mine", AT + 500))
    assert turnover.of_former(TurnEnded("earlier theirs mine", started_speaking_at=began_ms))
    assert not turnover.of_former(said("not theirs, mine", AT + 2_000))
    assert not turnover.of_former(TurnEnded("not theirs, mine", started_speaking_at=WALL + 2_000))


def test_words_that_were_in_a_turn_before_the_switch_are_due_in_no_other() -> None:
    turnover = after(said("yes", 8_000), TurnEnded("yes", started_speaking_at=WALL - 2_000))
    assert not turnover.of_former(said("yes", AT + 500))
    assert not turnover.of_former(TurnEnded("yes", started_speaking_at=WALL + 500))


def test_words_that_came_to_no_turn_are_not_awaited_after_the_next_one() -> None:
    turnover = after(said("yes", 8_000))
    assert not turnover.of_former(said("no", AT + 500))
    assert not turnover.of_former(TurnEnded("no", started_speaking_at=WALL + 500))
    assert not turnover.of_former(said("yes", AT + 2_000))
    assert not turnover.of_former(TurnEnded("yes", started_speaking_at=WALL + 2_000))


def test_an_end_is_whose_the_start_was() -> None:
    turnover = after(SPEAKING)
    assert not turnover.of_former(VadStarted(AT + 100, 100)), "the former end was never reported"
    assert not turnover.of_former(VadEnded(AT + 900))
    turnover = after(SPEAKING)
    assert turnover.of_former(VadEnded(AT + 900))
    assert turnover.of_former(VadStarted(9_500, 100)), "found late"
    assert turnover.of_former(VadEnded(AT + 950))


@pytest.mark.parametrize(("began_ms", "former"), [(WALL - 1, True), (WALL, False), (None, True)])
def test_a_turn_that_began_before_the_switch_has_the_formers_words(began_ms: int | None, former: bool) -> None:
    assert after(SPEAKING).of_former(TurnEnded("theirs and mine", started_speaking_at=began_ms)) is former


def test_a_text_that_is_due_to_the_first_is_not_the_thirds_either() -> None:
    turnover = after(SPEAKING)
    turnover.switched(AT + 500, WALL + 500)
    assert turnover.of_former(Transcribed("of the first", True))
