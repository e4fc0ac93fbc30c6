"""A speech provider's output over time, independent of the protocol: the stand-ins translate it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Word = tuple[str, float, float]
"""Text, start and end in seconds of the connection's audio."""


@dataclass(frozen=True, slots=True)
class Onset:
    """Speech starts. ``at_s`` is its place in the connection's audio."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Partial:
    """The interim text of the speech so far."""

    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class Final:
    """The final text, and the end of speech. Without words: nothing was recognized."""

    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class Garbage:
    """A text frame that is not JSON, and one that is JSON but not a message."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The provider closes the connection, as on an error of its own."""


@dataclass(frozen=True, slots=True)
class Hang:
    """From here on the connection stays open, takes audio, and reports nothing more, whatever the request."""


Moment = Onset | Partial | Final | Garbage | Drop | Hang


AT_THE_END = math.inf
"""After the audio: sent only once the client has reported the end of its audio."""


@dataclass(frozen=True, slots=True)
class Line:
    """Sent once the connection has received ``after_s`` seconds of audio, and after another ``wait_s`` seconds. Steps
    beyond the end of the audio are left out."""

    after_s: float
    says: Moment | dict[str, Any]
    """A dict is a message in the provider's own format."""
    wait_s: float = 0.0


Script = Sequence[Line | tuple[float, Moment | dict[str, Any]]]


def utterance(*words: Word) -> list[Line]:
    """Speech as providers report it: its onset, all but its last word, all of it."""
    return [
        Line(words[0][1] + 0.2, Onset(words[0][1])),
        Line(words[-1][1], Partial(words[:-1])),
        Line(words[-1][2] + 0.3, Final(words)),
    ]


def text(words: Sequence[Word]) -> str:
    return " ".join(word for word, _, _ in words)
