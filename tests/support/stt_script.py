"""What a speech provider says and when, in no provider's words: the stand-ins put it in theirs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Word = tuple[str, float, float]
"""Text, start and end in seconds of the connection's audio."""


@dataclass(frozen=True, slots=True)
class Onset:
    """Speech begins. ``at_s`` is its place in the connection's audio."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Partial:
    """What the speech sounds like so far."""

    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class Final:
    """What was said, and that it is over. Without words: nothing could be understood."""

    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class Garbage:
    """A text frame that is no JSON, and one that is JSON and no message."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The provider closes the connection, as on an error of its own."""


@dataclass(frozen=True, slots=True)
class Hang:
    """From here on the connection stands, takes audio, and says nothing any more, whatever it is asked."""


Moment = Onset | Partial | Final | Garbage | Drop | Hang


AT_THE_END = math.inf
"""After the audio: said only once the client has told that no more comes."""


@dataclass(frozen=True, slots=True)
class Line:
    """Said once the connection has sent ``after_s`` seconds of audio, and ``wait_s`` seconds of waiting later. What its
    audio ended too early for is left out.
    """

    after_s: float
    says: Moment | dict[str, Any]
    """A dict is a message in the provider's own words."""
    wait_s: float = 0.0


Script = Sequence[Line | tuple[float, Moment | dict[str, Any]]]


def utterance(*words: Word) -> list[Line]:
    """Speech as providers tell it: its onset, all but its last word, all of it."""
    return [
        Line(words[0][1] + 0.2, Onset(words[0][1])),
        Line(words[-1][1], Partial(words[:-1])),
        Line(words[-1][2] + 0.3, Final(words)),
    ]


def text(words: Sequence[Word]) -> str:
    return " ".join(word for word, _, _ in words)
