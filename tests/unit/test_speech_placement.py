"""Which utterance a text belongs to, and how a final is divided among several."""

import pytest

from relay.events.speech import Word
from relay.speech.placement import lies_in, place, place_interim
from relay.speech.timing import Span
from relay.speech.utterance import Phase, Said, Utterance


def utterance(
    index: int, onset: int | None, end: int | None, phase: Phase = "settling", *, heard: bool = True
) -> Utterance:
    return Utterance(f"utt_{index}", index, "vad", heard, 0, onset_ms=onset, end_ms=end, phase=phase)


def final(*spans: tuple[int, int]) -> Said:
    words = tuple(Word(text="w", start_ms=start, end_ms=end) for start, end in spans)
    return Said("not these", "session", words=words, span=Span(spans[0][0], spans[-1][1], "stt"))


def spoken(text: str, *words: tuple[str, int | None, int | None]) -> Said:
    timed = tuple(Word(text=word, start_ms=start, end_ms=end) for word, start, end in words)
    starts = [start for _, start, _ in words if start is not None]
    ends = [end for _, _, end in words if end is not None]
    return Said(text, "session", words=timed, span=Span(min(starts), max(ends), "stt"))


def owner(said: Said, live: list[Utterance], done: list[Utterance] | None = None) -> Utterance | None:
    [(part, whose)] = place(said, live, done or [])
    assert part == said
    return whose


def texts(said: Said, live: list[Utterance], done: list[Utterance] | None = None) -> list[tuple[str, int | None]]:
    return [(part.text, None if whose is None else whose.index) for part, whose in place(said, live, done or [])]


def test_words_decide_where_a_final_that_cannot_be_divided_belongs() -> None:
    first, second = utterance(0, 900, 1500), utterance(1, 4000, None, "speaking")
    assert owner(final((1000, 1400), (5000, 5200)), [first, second]) is first
    assert owner(final((1300, 1500), (5000, 5900)), [first, second]) is second


def test_words_beside_all_utterances_belong_to_the_nearest_that_is_live() -> None:
    first, second = utterance(0, 1000, 2000), utterance(1, 5000, None, "speaking")
    assert owner(final((2100, 2400)), [first, second]) is first
    assert owner(final((4700, 4950)), [first, second]) is second
    first.phase = "completed"
    assert owner(final((2100, 2400)), [second], [first]) is second
    assert owner(final((2100, 2400)), [], [first]) is None


def test_an_end_that_nobody_measured_is_bounded_by_the_next_onset_or_the_cut() -> None:
    muted, following = utterance(0, 1000, None), utterance(1, 6000, None, "speaking")
    assert owner(final((3000, 3500)), [muted, following]) is muted
    assert owner(final((7000, 7500)), [muted, following]) is following
    muted.phase, muted.cut_ms = "completed", 4000
    assert owner(final((3000, 3500)), [], [muted]) is muted
    assert owner(final((4500, 5000)), [], [muted]) is None


def test_an_unmeasured_end_is_not_bounded_by_an_utterance_that_lies_before() -> None:
    muted, whispered = utterance(0, 2600, None, "completed"), utterance(1, 1000, 1100, "completed", heard=False)
    muted.cut_ms = 2720
    assert owner(final((2620, 2700)), [], [muted, whispered]) is muted


def test_an_utterance_without_an_onset_is_the_last_choice() -> None:
    unknown, known = utterance(0, None, None), utterance(1, 5000, 6000)
    assert owner(final((100, 200)), [unknown, known]) is known
    assert owner(final((100, 200)), [unknown]) is unknown


def test_words_in_a_completed_utterance_belong_to_it_also_where_another_is_live() -> None:
    first, second = utterance(0, 1000, 2000, "completed"), utterance(1, 5000, None, "speaking")
    assert owner(final((1200, 1500)), [second], [first]) is first
    assert owner(final((1900, 2600)), [], [first]) is first, "it begins inside of it"


def test_words_that_only_touch_an_utterance_known_by_its_words_are_not_its() -> None:
    said = utterance(0, 1000, 2000, "completed", heard=False)
    assert owner(final((1980, 2600)), [], [said]) is None
    assert owner(final((1500, 1900)), [], [said]) is said


def test_each_word_goes_where_it_lies_and_the_text_with_its_punctuation_follows() -> None:
    first, second, third = utterance(0, 0, 1000, "completed"), utterance(1, 2000, 3000), utterance(2, 4000, 5000)
    said = spoken(
        '¿Ever "tried?"  "Ever," failed - no matter!',
        ("ever", 100, 300),
        ("tried", 500, 1100),
        ("Ever", 2100, 2300),
        ("failed", 2500, 2900),
        ("no", 4000, 4200),
        ("matter", 4300, 4900),
    )
    assert texts(said, [second, third], [first]) == [('¿Ever "tried?"', 0), ('"Ever," failed -', 1), ("no matter!", 2)]
    parts = [part for part, _ in place(said, [second, third], [first])]
    assert [(part.span.start_ms, part.span.end_ms) for part in parts] == [(100, 1100), (2100, 2900), (4000, 4900)]
    assert tuple(word for part in parts for word in part.words) == said.words


def test_a_text_without_spaces_is_divided_between_its_words() -> None:
    first, second = utterance(0, 0, 1000), utterance(1, 2000, 3000)
    said = spoken("你好。再见。", ("你好", 100, 900), ("再见", 2100, 2900))
    assert texts(said, [first, second]) == [("你好。", 0), ("再见。", 1)]


def test_a_word_beside_all_utterances_goes_with_the_nearest_word() -> None:
    first, second = utterance(0, 0, 1000), utterance(1, 4000, 5000)
    said = spoken("a b c d", ("a", 100, 900), ("b", 1100, 1300), ("c", None, None), ("d", 3800, 4500))
    assert texts(said, [first, second]) == [("a b c", 0), ("d", 1)]
    said = spoken("a b c", ("a", 100, 900), ("b", 3800, 3950), ("c", 4100, 4500))
    assert texts(said, [first, second]) == [("a", 0), ("b c", 1)]


def test_words_without_times_go_with_the_first_that_has_them() -> None:
    first, second = utterance(0, 0, 1000), utterance(1, 4000, 5000)
    said = spoken("a b c", ("a", None, None), ("b", 100, 900), ("c", 4100, 4500))
    assert texts(said, [first, second]) == [("a b", 0), ("c", 1)]


def test_an_interim_lies_only_where_it_overlaps() -> None:
    first, second = utterance(0, 0, 1000), utterance(1, 1000, 5000)
    within, touching, unreliable = Span(900, 999, "stt"), Span(1000, 1400, "stt"), Span(100, 300, "stt", reliable=False)
    assert [lies_in(span, first, [first, second]) for span in (within, touching, unreliable)] == [True, False, False]
    assert lies_in(Span(999, 1400, "stt"), first, [first, second]), "one millisecond"


@pytest.mark.parametrize(
    "text", ["it is 23 now", "it is", "it is twenty three now and more", "it was twenty three now"]
)
def test_a_final_whose_words_are_not_its_text_is_not_divided(text: str) -> None:
    first, second = utterance(0, 0, 1000), utterance(1, 2000, 4000)
    words = [("it", 0, 200), ("is", 300, 400), ("twenty", 2000, 2400), ("three", 2500, 2900), ("now", 3000, 3400)]
    assert texts(spoken(text, *words), [first, second]) == [(text, 1)]


def test_an_interim_goes_where_its_newest_word_lies_else_to_the_newest() -> None:
    first, second = utterance(0, 0, 1000), utterance(1, 2000, None, "speaking")
    assert place_interim(spoken("a", ("a", 100, 900)), [first, second], []) is first
    assert place_interim(spoken("a b", ("a", 100, 900), ("b", 2100, 2500)), [first, second], []) is second
    assert place_interim(spoken("a", ("a", 1200, 1900)), [first, second], []) is second
    assert place_interim(Said("a", "session"), [first, second], []) is second


def test_an_interim_that_begins_in_a_completed_utterance_opens_none() -> None:
    done = utterance(0, 0, 1000, "completed")
    assert place_interim(spoken("a b", ("a", 800, 1100), ("b", 1200, 1500)), [], [done]) is done
    assert place_interim(spoken("b", ("b", 1200, 1500)), [], [done]) is None
