"""What a closing stream waits for."""

import pytest

from relay.capture.health.progress import ANSWER_WITHIN_S, DrainTracker
from relay.speech.observations import (
    Observation,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    VadEnded,
    VadStarted,
)

START, END = VadStarted(0, 64), VadEnded(1_000)
FINAL, REPEATED = SttTranscript("Ever tried.", final=True), Transcribed("Ever tried.", final=True)
INTERIM = SttTranscript("Ever", final=False)


def owes(*seen: Observation, answers_late: bool = True, after: float = 0.0) -> bool:
    pending = DrainTracker(answers_late=answers_late)
    for observation in seen:
        pending.see(observation, 100.0)
    return pending.any(100.0 + after)


@pytest.mark.parametrize(
    ("seen", "owed"),
    [
        ((), False),
        ((START,), True),
        ((START, END), True),
        ((START, END, FINAL), True),
        ((START, END, FINAL, REPEATED), False),
        ((START, FINAL, REPEATED, END), False),
        ((START, FINAL, REPEATED, INTERIM, END), True),
        ((SttStarted(0),), False),
        ((SttStarted(0), INTERIM, SttEnded(1)), True),
        ((SttStarted(0), FINAL, REPEATED, SttEnded(1)), False),
        ((SttTranscript("", final=True),), False),
    ],
)
def test_speech_owes_its_end_and_its_text(seen: tuple[Observation, ...], owed: bool) -> None:
    assert owes(*seen) is owed


def test_noise_is_not_waited_for_for_ever() -> None:
    assert not owes(START, END, after=ANSWER_WITHIN_S)


def test_recognition_that_has_come_to_the_end_answers_no_more() -> None:
    assert not owes(START, END, answers_late=False)
