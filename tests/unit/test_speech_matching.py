from relay.events.transcript import Word
from relay.speech.matching import Joiner, owner
from relay.speech.observations import SttTranscript, Transcribed
from relay.speech.timing import Span
from relay.speech.utterance import Phase, Said, Utterance


def utterance(index: int, onset: int | None, end: int | None, phase: Phase = "settling", finals: int = 0) -> Utterance:
    said = [Said("x", "stt")] * finals
    return Utterance(f"utt_{index}", index, "vad", True, 0, onset_ms=onset, end_ms=end, phase=phase, finals=said)


def final(*spans: tuple[int, int], reliable: bool = True) -> Said:
    words = tuple(Word(text="w", start_ms=start, end_ms=end) for start, end in spans)
    hull = Span(spans[0][0], spans[-1][1], "stt", reliable) if spans else Span()
    return Said("w", "session", words=words, span=hull)


def test_words_decide_where_a_final_that_spans_two_utterances_belongs() -> None:
    first, second = utterance(0, 900, 1500), utterance(1, 4000, None, "speaking")
    assert owner(final((1000, 1400), (5000, 5200)), [first, second]) is first
    assert owner(final((1300, 1500), (5000, 5900)), [first, second]) is second


def test_words_beside_all_utterances_belong_to_the_nearest() -> None:
    first, second = utterance(0, 1000, 2000), utterance(1, 5000, None, "speaking")
    assert owner(final((2100, 2400)), [first, second]) is first
    assert owner(final((4700, 4950)), [first, second]) is second


def test_an_end_that_nobody_measured_is_bounded_by_the_next_onset() -> None:
    muted, following = utterance(0, 1000, None), utterance(1, 6000, None, "speaking")
    assert owner(final((3000, 3500)), [muted, following]) is muted
    assert owner(final((7000, 7500)), [muted, following]) is following


def test_an_utterance_without_an_onset_is_the_last_choice() -> None:
    unknown, known = utterance(0, None, None), utterance(1, 5000, 6000)
    assert owner(final((100, 200)), [unknown, known]) is known
    assert owner(final((100, 200)), [unknown]) is unknown


def test_without_times_the_oldest_that_is_over_and_has_no_final() -> None:
    full, waiting, speaking = utterance(0, 0, 1, finals=1), utterance(1, 2, 3), utterance(2, 4, None, "speaking")
    assert owner(final(), [full, waiting, speaking]) is waiting
    assert owner(final(), [full, speaking]) is full
    assert owner(final(), [speaking]) is speaking
    assert owner(final(), []) is None


def test_unreliable_times_do_not_decide() -> None:
    over, speaking = utterance(0, 0, 1000), utterance(1, 5000, None, "speaking")
    assert owner(final((5100, 5900), reliable=False), [over, speaking]) is over


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


def test_an_interim_takes_from_the_provider_what_the_session_lacks_for_the_same_text_only() -> None:
    joiner = Joiner(1000)
    joiner.provided(SttTranscript("ye", False, language="en", speaker_id="S1"), 0)
    assert joiner.interim(Transcribed("ye", False, language="de")) == Said("ye", "session", "de", "S1")
    assert joiner.interim(Transcribed("yes", False)) == Said("yes", "session")
    joiner.provided(SttTranscript("yes", True), 0)
    assert joiner.interim(Transcribed("ye", False)) == Said("ye", "session")
