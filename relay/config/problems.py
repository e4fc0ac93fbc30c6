"""What is wrong with the configuration, one line per mistake: where, key, what, cure."""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.errors import ConfigError
from relay.telemetry.printable import printable

KeyPath = tuple[str | int, ...]
"""Where a value is: keys of sections and positions in lists, from the top."""

MAX_PROBLEMS = 100
"""Mistakes that are listed; of more than these it is only told that there are some."""

_LONGEST = 300
"""Characters of each part of a line."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``str()`` of it is the line that the operator reads."""

    where: str
    """``config.yaml:12``, ``.env:3``, ``environment`` or ``command line``."""
    key: str
    """The key, or the name of the variable; empty for the file as a whole."""
    text: str
    """What is wrong; the cure."""

    def __str__(self) -> str:
        return ": ".join(_one_line(part) for part in (self.where, self.key, self.text) if part)


class Mistakes(ConfigError):
    """Every mistake of a configuration; the message has one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [str(problem) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            lines.append("… and more; correct these first")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


def _one_line(text: str) -> str:
    """Keys and some values are the file's own: they may be long, and hold characters that a terminal obeys."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return printable(text)
