from math import inf, nan

import pytest

from relay.speech.observations import (
    Anchored,
    Ended,
    Listening,
    Muted,
    Observation,
    SpokenWord,
    SttEnded,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)
from relay.speech.sanitize import sane


@pytest.mark.parametrize(
    ("observed", "known"),
    [
        (Anchored(-1, 5), None),
        (Anchored(5, 2**60), None),
        (Listening(7, -1, 2**50, -3), Listening(7, None, None, None)),
        (VadStarted(-40, -1, nan), VadStarted(0, 0, None)),
        (VadEnded(-1, "silence", 5, -1, inf, 1.0), VadEnded(None, "silence", 5, None, None, 1.0)),
        (SttEnded(-1, "r\ud800"), SttEnded(None, "r\ufffd")),
        (
            SttTranscript(" a ", True, -1, 2**50, (SpokenWord("a", -1, 5, 1.5),), -0.1, "en", None),
            SttTranscript("a", True, None, None, (SpokenWord("a", None, 5, None),), None, "en", None),
        ),
        (Transcribed("\ud83d\ude00\n", False), Transcribed("\U0001f600", False)),
        (TurnEnded("x", 2.0, -1, 5), TurnEnded("x", None, None, 5)),
        (Ended("shutdown", -1), Ended("shutdown", None)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_means_nothing_is_not_known(observed: Observation, known: Observation | None) -> None:
    assert sane(observed) == known


@pytest.mark.parametrize("observed", [Anchored(0, 0), VadStarted(0, 200, 0.5), VadEnded(None), Muted()])
def test_what_means_something_stays_as_it_is(observed: Observation) -> None:
    assert sane(observed) == observed
