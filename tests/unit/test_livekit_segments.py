"""What a frontend is told of an utterance: lines that replace one another, closed once."""

from relay.capture.livekit.forwarding import Line, TranscriptSegments
from relay.speech.observations import (
    Ended,
    Listening,
    Observation,
    SpokenWord,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)
from tests.unit.timelines.play import T0, tracker


def told(*script: tuple[int, Observation]) -> list[str]:
    """Each line as ``segment text``, a closing one with a full stop behind it."""
    machine, segments = tracker(), TranscriptSegments()
    lines: list[Line] = []
    for at, observation in [(0, Listening(T0, T0)), *script]:
        while machine.deadline is not None and machine.deadline <= T0 + at:
            lines += [line for event in machine.tick(machine.deadline) for line in segments.take(event)]
        lines += [line for event in machine.observe(observation, T0 + at) for line in segments.take(event)]
    assert {(line.identity, line.track_sid) for line in lines} <= {("alice", "TR_x")}
    return [f"{line.segment} {line.text}{'.' if line.final else ''}" for line in lines]


def interim(text: str) -> Transcribed:
    return Transcribed(text, final=False)


def final(text: str) -> Transcribed:
    return Transcribed(text, final=True)


END = (20_000, Ended("shutdown", None))


def test_an_interim_grows_into_the_final_and_is_closed_once() -> None:
    assert told(
        (1000, VadStarted(800, 200)),
        (1500, interim("hello")),
        (1800, interim("hello wor")),
        (2600, VadEnded(2000)),
        (2700, final("hello world")),
        END,
    ) == ["utt_0 hello", "utt_0 hello wor", "utt_0 hello world", "utt_0 hello world."]


def test_several_finals_of_an_utterance_add_up() -> None:
    assert told(
        (1000, VadStarted(800, 200)),
        (1500, interim("so")),
        (1900, final("so it")),
        (2200, interim("goes")),
        (2600, final("goes on")),
        (4000, VadEnded(3400)),
        END,
    ) == ["utt_0 so", "utt_0 so it", "utt_0 so it goes", "utt_0 so it goes on", "utt_0 so it goes on."]


def test_a_guess_that_comes_to_nothing_is_taken_back() -> None:
    assert told((1000, VadStarted(800, 200)), (1500, interim("hm")), (2600, VadEnded(2000)), END) == [
        "utt_0 hm",
        "utt_0 .",
    ]


def test_speech_without_a_word_shows_nothing() -> None:
    assert told((1000, VadStarted(800, 200)), (2600, VadEnded(2000)), END) == []


def test_what_was_guessed_in_one_utterance_and_said_in_another_is_shown_once() -> None:
    said = SttTranscript("one two", True, words=(SpokenWord("one", 900, 1000), SpokenWord("two", 1100, 1800)))
    assert told(
        (1000, VadStarted(800, 200)),
        (2600, VadEnded(2000)),
        (3000, VadStarted(2800, 200)),
        (3100, interim("one tw")),
        (3200, said),
        (3200, final("one two")),
        (3600, interim("three")),
        (4600, VadEnded(4000)),
        (4700, final("three four")),
        END,
    ) == [
        "utt_1 one tw",
        "utt_1 ",
        "utt_0 one two",
        "utt_1 three",
        "utt_0 one two.",
        "utt_1 three four",
        "utt_1 three four.",
    ]


def test_a_guess_moves_with_the_speech() -> None:
    lines = told(
        (1000, VadStarted(800, 200)),
        (1500, interim("one")),
        (2600, VadEnded(2000)),
        (3000, VadStarted(2800, 200)),
        (3100, interim("one two")),
        (3200, final("one two")),
        END,
    )
    assert lines[:3] == ["utt_0 one", "utt_0 ", "utt_1 one two"]
    assert [line for line in lines if line.endswith(".")] == ["utt_0 one two.", "utt_1 ."]


def test_a_stream_that_ends_in_mid_word_leaves_no_line_open() -> None:
    assert told((1000, VadStarted(800, 200)), (1500, interim("I was ab")), (1600, Ended("disconnected", 1600))) == [
        "utt_0 I was ab",
        "utt_0 .",
    ]


def test_text_that_comes_after_a_segment_was_closed_is_shown_with_all_of_it() -> None:
    late = SttTranscript("failed", True, 1500, 1900)
    assert told(
        (1000, VadStarted(800, 200)),
        (1500, final("tried")),
        (2600, VadEnded(2000)),
        (8000, late),
        (8000, final("failed")),
        END,
    ) == ["utt_0 tried", "utt_0 tried.", "utt_0 tried failed."]
