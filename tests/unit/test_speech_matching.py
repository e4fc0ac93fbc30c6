"""Which reports are of the same words."""

from dataclasses import replace

import pytest

from relay.speech.matching import Joiner
from relay.speech.observations import SpokenWord, SttTranscript, Transcribed
from relay.speech.timing import Span
from relay.speech.utterance import Said

WORDS = (SpokenWord("yes.", 100, 300), SpokenWord("yes.", 350, 600))


def test_equal_texts_join_in_order_each_once() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("yes", True, 100, 200, confidence=0.1), 0)
    joiner.provided(SttTranscript("yes", True, 900, 950, confidence=0.2), 10)
    report = Transcribed("yes", True)
    joined = [joiner.final(report) for _ in range(3)]
    assert [[said.confidence for said in each] for each in joined] == [[0.1], [0.2], [None]]
    assert joined[0][0].span == Span(100, 200, "stt")
    assert joiner.deadline is None


def test_a_final_waits_for_the_session_for_the_timeout_and_no_longer() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("yes", True), 500)
    assert joiner.deadline == 1500
    assert joiner.expired(1499) == []
    assert joiner.expired(1500) == [Said("yes", "stt")]
    assert joiner.deadline is None


def test_an_interim_takes_what_the_session_lacks_from_the_same_provider_text_only() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("ye", False, language="en", speaker_id="S1"), 0)
    assert joiner.interim(Transcribed("ye", False, language="de")) == Said("ye", "session", "de", "S1")
    assert joiner.interim(Transcribed("yes", False)) == Said("yes", "session", provided=False)
    joiner.provided(SttTranscript("yes", True), 0)
    assert joiner.interim(Transcribed("ye", False)) == Said("ye", "session", provided=False)


@pytest.mark.parametrize(
    "final",
    [
        SttTranscript("yes. yes.", True, words=WORDS),
        SttTranscript("yes.", True, start_ms=100, end_ms=300),
        SttTranscript("yes.", True, request_id="item_1", detector="realtime"),
    ],
    ids=["words with times", "times of the whole", "the item of a realtime model"],
)
@pytest.mark.parametrize("session", [True, False], ids=["with the session", "by the provider alone"])
def test_the_same_final_twice_is_said_once(final: SttTranscript, session: bool) -> None:
    joiner = Joiner(1000)
    told = list[Said]()
    for at in (0, 100):
        joiner.provided(replace(final, confidence=at / 1000, language="en" if at else None), at)
        if session:
            told += joiner.final(Transcribed(final.text, True))
    told += joiner.expired(5000)
    assert [said.text for said in told] == [final.text]
    assert joiner.deadline is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SttTranscript("yes.", True, start_ms=100, end_ms=300), SttTranscript("yes.", True, start_ms=350, end_ms=600)),
        (SttTranscript("yes.", True, request_id="req"), SttTranscript("yes.", True, request_id="req")),
        (SttTranscript("yes.", True, 0, 900, reliable=False), SttTranscript("yes.", True, 0, 900, reliable=False)),
        (
            SttTranscript("yes.", True, request_id="item_1", detector="realtime"),
            SttTranscript("yes.", True, request_id="item_2", detector="realtime"),
        ),
    ],
    ids=["other times", "no times", "times that are not reliable", "another item"],
)
def test_who_says_yes_twice_is_heard_twice(first: SttTranscript, second: SttTranscript) -> None:
    joiner = Joiner(1000)
    told = list[Said]()
    for at, final in ((0, first), (100, second)):
        joiner.provided(final, at)
        told += joiner.final(Transcribed(final.text, True))
    assert [said.text for said in told] == ["yes.", "yes."]


def test_a_session_that_repeats_an_interim_as_a_final_gets_its_words_once() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("Ever", False, 100, 300), 0)
    [said] = joiner.final(Transcribed("Ever", True))
    assert (said.span, said.provided) == (Span(100, 300, "stt"), False)
    [again] = joiner.final(Transcribed("Ever", True))
    assert again.span == Span()


def test_a_guess_that_repeats_a_final_is_not_sent_when_it_becomes_a_final() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("yes. yes.", True, words=WORDS), 0)
    assert len(joiner.final(Transcribed("yes. yes.", True))) == 1
    joiner.provided(SttTranscript("yes. yes.", False, words=WORDS), 100)
    assert joiner.final(Transcribed("yes. yes.", True)) == []


def test_a_final_that_says_what_the_session_made_of_its_interim_is_not_said_again() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("yes. yes.", False, words=WORDS), 0)
    assert len(joiner.final(Transcribed("yes. yes.", True))) == 1
    joiner.provided(SttTranscript("yes. yes.", True, words=WORDS), 100)
    assert joiner.expired(5000) == []
